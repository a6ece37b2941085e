"""What is painted to be measured: captions of real examples, which stay where they are."""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import torch
from jaxtyping import Int64, UInt8
from PIL import Image
from torch import Tensor

from flowbrush.contact_sheet import contact_sheet
from flowbrush.data import EmojiConfig, EmojiVariantsConfig
from flowbrush.data.source import Source, UnreadablePicture, read_example, stacked
from flowbrush.data.split import split
from flowbrush.errors import UserError
from flowbrush.evaluate.composition import pairs
from flowbrush.evaluate.spread import spread
from flowbrush.experiment import ExperimentConfig, unprepared


@dataclass(frozen=True)
class Asked:
    """Examples of a source, and the captions that are painted of them, kind after kind.

    A kind is a language, or "short" and "long". Pictures are read when they are needed: memory
    does not grow with their number. truths: what the source knows of each. prompts: examples that
    share their image or all of their captions, and so are not independent, have one number.
    """

    source: Source
    indices: tuple[int, ...]
    kinds: tuple[str, ...]
    captions: tuple[str, ...]  # kinds x indices
    truths: tuple[Any, ...]  # indices
    prompts: tuple[int, ...]  # indices

    def __len__(self) -> int:
        return len(self.indices)

    def of(self, kind: str) -> slice:
        """The places of one kind's captions among all."""
        first = self.kinds.index(kind) * len(self)
        return slice(first, first + len(self))

    @property
    def groups(self) -> Int64[Tensor, " n"]:
        """For an interval over all captions: those of one example, in every kind, are a group."""
        return torch.tensor(self.prompts).repeat(len(self.kinds))

    def real(self, together: int = 64) -> Iterator[UInt8[Tensor, "b 3 H W"]]:
        """The real pictures, in parts."""
        for i in range(0, len(self), together):
            yield stacked([self.source[n].picture for n in self.indices[i : i + together]])


def asked(source: Source, most: int, kinds: Sequence[str] = ()) -> Asked:
    """About `most` examples evenly over a source (0 = all), without the broken ones.

    kinds: of captions; empty = all that the first example has. An example that lacks one of them is
    left out, as a broken one is. Raises UserError where none is left.
    """
    examples, prompts = {}, list[tuple[Hashable, Hashable]]()
    missing, chosen = "", tuple(kinds)
    for i in spread(most, len(source)):
        try:
            example = read_example(source, i)
        except UnreadablePicture:
            continue
        chosen = chosen or tuple(example.captions)
        if lacks := next((kind for kind in chosen if kind not in example.captions), ""):
            there = ", ".join(example.captions)
            missing = f"--kinds {lacks}: no picture has it; one of them has {there}"
            continue
        examples[i] = example.captions, example.truth
        image = sha256(example.picture.tobytes()).digest()
        # Classes are all that there is to ask for, and a drawn world draws each caption anew.
        is_draw = bool(source.classes) or example.truth is not None
        prompts.append((image, i if is_draw else tuple(example.captions.items())))
    if not examples:
        raise UserError(missing or "evaluate: the source has no picture that can be read")
    captions, truths = zip(*examples.values(), strict=True)
    return Asked(
        source,
        tuple(examples),
        chosen,
        tuple(caption[kind] for kind in chosen for caption in captions),
        truths,
        tuple(_linked(prompts)),
    )


def _linked(keys: Sequence[tuple[Hashable, Hashable]]) -> list[int]:
    """A number of each row: the same where rows share a key, or are linked by others that do."""
    parent = list(range(len(keys)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    for column in zip(*keys, strict=True):
        first: dict[Hashable, int] = {}
        for i, key in enumerate(column):
            parent[root(i)] = root(first.setdefault(key, i))
    return [root(i) for i in range(len(keys))]


def sheet(what: Asked, painted: Iterable[UInt8[Tensor, "_ 3 H W"]], each: int = 8) -> Image.Image:
    """A row of `each` painted pictures, spread over the examples, for every kind of caption."""
    step = max(1, len(what) // each)
    places = [
        what.of(kind).start + (i * step + row) % len(what)
        for row, kind in enumerate(what.kinds)
        for i in range(each)
    ]
    wanted, pictures, place = set(places), {}, 0
    for part in painted:
        for picture in part:
            if place in wanted:
                pictures[place] = picture
            place += 1
    captions = [what.captions[place] for place in places]
    return contact_sheet(torch.stack([pictures[place] for place in places]), captions, each)


def of_run(config: ExperimentConfig, most: int, kinds: Sequence[str] = ()) -> Asked:
    """About `most` examples of what a run is to be asked (0 = all).

    They are held out, where it holds some out; where it leaves out pairs of concept and attribute,
    those, and as many that it saw. kinds: of emoji any language. Raises UserError as `asked` does.
    """
    pictures = unprepared(config.source)
    if isinstance(pictures, EmojiConfig | EmojiVariantsConfig) and kinds:
        pictures = replace(pictures, languages=tuple(kinds))
    if isinstance(pictures, EmojiVariantsConfig) and pictures.unseen:
        return asked(pairs(pictures, config.size, most), 0, kinds)
    source = pictures.build(config.size)
    part = split(source, config.held_out).held_out if config.held_out else source
    return asked(part, most, kinds)
