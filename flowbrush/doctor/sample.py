"""Some examples of a source, always the same ones, and what is found in them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from flowbrush.data.source import (
    IncompleteExample,
    Source,
    UnreadablePicture,
    read_example,
)
from flowbrush.randomness import derive

SIDE = 8  # of the grid that a picture's likeness is read from


@dataclass
class Sample:
    """What some examples hold. Pictures are kept as hashes alone."""

    size: int = 0  # examples looked at
    kinds: tuple[str, ...] = ()  # of captions that training asks for; empty = all
    broken: list[UnreadablePicture] = field(default_factory=list)
    incomplete: list[IncompleteExample] = field(default_factory=list)
    captions: dict[str, list[str]] = field(default_factory=dict)  # by kind
    pictures: Counter[bytes] = field(default_factory=Counter)  # by hash of their bytes
    likenesses: Counter[int] = field(default_factory=Counter)
    latents: "Latents | None" = None

    def add(self, source: Source, i: int) -> None:
        """Look at one more example."""
        self.size += 1
        try:
            example = read_example(source, i, self.kinds)
        except IncompleteExample as error:
            self.incomplete.append(error)
            return
        except UnreadablePicture as error:
            self.broken.append(error)
            return
        for kind, caption in example.captions.items():
            self.captions.setdefault(kind, []).append(caption)
        picture = example.picture
        content = np.ascontiguousarray(picture).tobytes()
        self.pictures[blake2b(content, digest_size=16).digest()] += 1
        if picture.dtype == np.uint8:
            self.likenesses[likeness(picture)] += 1
            return
        if self.latents is None:
            self.latents = Latents(picture.shape[2])
        self.latents.add(picture)


class Latents:
    """Running sums of what a space stored, by channel, in fp64."""

    def __init__(self, channels: int) -> None:
        self.count = self.not_finite = 0
        self.sum, self.squares = np.zeros(channels), np.zeros(channels)

    def add(self, picture: np.ndarray) -> None:
        rows = picture.reshape(-1, picture.shape[2]).astype(np.float64)
        finite = np.isfinite(rows).all(axis=1)
        self.not_finite += int((~finite).sum())
        rows = rows[finite]
        self.count += len(rows)
        self.sum += rows.sum(axis=0)
        self.squares += (rows**2).sum(axis=0)

    @property
    def mean(self) -> np.ndarray:
        return self.sum / max(1, self.count)

    @property
    def std(self) -> np.ndarray:
        return np.sqrt(np.maximum(0, self.squares / max(1, self.count) - self.mean**2))


def chosen(n: int, most: int, seed: int) -> Sequence[int]:
    """At most `most` of range(n), all of them for 0, in rising order."""
    if not most or n <= most:
        return range(n)
    found: set[int] = set()
    draw = 0
    while len(found) < most:
        found.add(derive(seed, "doctor", draw) % n)
        draw += 1
    return sorted(found)


def likeness(picture: UInt8[np.ndarray, "H W 3"]) -> int:
    """64 bits: whether each cell of a coarse grey picture is lighter than its neighbour.

    It stays when a picture is scaled, or saved again with a few losses.
    """
    grey = Image.fromarray(picture).convert("L").resize((SIDE + 1, SIDE), Image.Resampling.BOX)
    cells = np.asarray(grey, np.int16)
    bits = (cells[:, 1:] > cells[:, :-1]).flatten()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")
