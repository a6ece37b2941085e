"""Whether a prompt was followed, for a data set of one picture a concept: the share of painted
pictures whose nearest real picture, in pixels, is the one that the prompt names."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from flowbrush.contact_sheet import contact_sheet
from flowbrush.data.source import Source
from flowbrush.text_to_image import TextToImage

LANGUAGES = {
    "en": "English",
    "ja": "Japanese",
    "de": "German",
    "fr": "French",
    "es": "Spanish",
    "zh": "Chinese",
    "ko": "Korean",
}
WHITE = 250  # a pixel whose channels all reach this belongs to the ground


def right_first(painted: UInt8[Tensor, "b 3 H W"], real: UInt8[Tensor, "b 3 H W"]) -> float:
    """The share of rows of `painted` that are nearer to their own row of `real` than to any other.

    Nearer in squared pixel distance; a tie with an earlier row counts as wrong.
    """
    distance = torch.cdist(painted.flatten(1).double(), real.flatten(1).double())
    return float((distance.argmin(dim=1) == torch.arange(len(painted))).double().mean())


def ground_error(painted: UInt8[Tensor, "b 3 H W"], real: UInt8[Tensor, "b 3 H W"]) -> float:
    """The mean distance from white, of 255, where the real picture is white (nan: nowhere)."""
    ground = (real >= WHITE).all(dim=1, keepdim=True).expand_as(real)
    return float((255 - painted.float())[ground].mean())


@dataclass(frozen=True)
class Painted:
    """Every example painted from one of its captions, in the source's order."""

    captions: list[str]
    pictures: UInt8[Tensor, "b 3 H W"]
    right_first: float
    ground_error: float


def paint_all(painter: TextToImage, source: Source, limit: int) -> dict[str, Painted]:
    """The first `limit` examples painted, once for each kind of caption (language) they have."""
    examples = [source[i] for i in range(min(limit, len(source)))]
    real = torch.stack([torch.tensor(example.picture) for example in examples]).permute(0, 3, 1, 2)
    painted = {}
    for kind in examples[0].captions:
        captions = [example.captions[kind] for example in examples]
        pictures = painter.generate(captions)
        scores = right_first(pictures, real), ground_error(pictures, real)
        painted[kind] = Painted(captions, pictures, *scores)
    return painted


def summary(painted: dict[str, Painted], trained_on: tuple[str, ...] | None) -> list[str]:
    """Lines for the user. trained_on: the kinds of captions that the run has seen; None = all."""
    seen = [kind for kind in painted if trained_on is None or kind in trained_on]
    unseen = [kind for kind in painted if kind not in seen]

    def figures(kinds: list[str]) -> str:
        return ", ".join(f"{LANGUAGES.get(k, k)} {painted[k].right_first:.1%}" for k in kinds)

    count = len(next(iter(painted.values())).captions)
    lines = [f"right first of {count}: {figures(seen)}"] if seen else []
    if unseen:
        lines.append(f"right first, in languages never trained on: {figures(unseen)}")
    if seen:
        ground = sum(painted[kind].ground_error for kind in seen) / len(seen)
        if not math.isnan(ground):
            lines.append(f"white ground: mean error {ground:.2f} of 255")
    return lines


def sheet(painted: dict[str, Painted], each: int = 8) -> Image.Image:
    """A row of `each` examples, spread over the data, for every kind of caption."""
    captions: list[str] = []
    pictures: list[Tensor] = []
    for row, one in enumerate(painted.values()):
        step = max(1, len(one.captions) // each)
        chosen = [(i * step + row) % len(one.captions) for i in range(each)]
        captions += [one.captions[i] for i in chosen]
        pictures += [one.pictures[i] for i in chosen]
    return contact_sheet(torch.stack(pictures), captions, columns=each)
