"""Sources over some examples of another."""

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64

from flowbrush.data.source import Example, Source, shards_of

BLOCK = 1024  # places that are looked at together


@runtime_checkable
class Places(Protocol):
    """Some of the places 0, 1, 2, ..., in blocks of BLOCK. Both are cheap for any block."""

    def until(self, block: int) -> int:
        """How many there are in the blocks before this one."""
        ...

    def inside(self, block: int) -> Int64[np.ndarray, " k"]:
        """Those in the block, counted from its first place, in order."""
        ...


@dataclass(frozen=True)
class Part:
    """The examples of `source` at these places, in the same order; nothing is kept for each."""

    source: Source
    places: Places

    def __len__(self) -> int:
        return self._length

    @cached_property
    def _length(self) -> int:
        return self.before(len(self.source))

    def __getitem__(self, i: int) -> Example:
        return self.source[self.place(i)]

    def place(self, i: int) -> int:
        """Where in the source example i is."""
        if not 0 <= i < len(self):
            raise IndexError(i)
        blocks = range(-(-len(self.source) // BLOCK))
        block = bisect_right(blocks, i, key=self.places.until) - 1
        return block * BLOCK + int(self.places.inside(block)[i - self.places.until(block)])

    def before(self, place: int) -> int:
        """How many of its examples come before a place of the source."""
        block, within = divmod(place, BLOCK)
        inside = int(np.searchsorted(self.places.inside(block), within)) if within else 0
        return self.places.until(block) + inside

    @cached_property
    def shards(self) -> tuple[int, ...]:
        """What is left of the source's."""
        ends = accumulate(shards_of(self.source), initial=0)
        return tuple(after - before for before, after in pairwise(map(self.before, ends)))

    @property
    def classes(self) -> tuple[str, ...]:
        return self.source.classes

    @property
    def attribution(self) -> str:
        return self.source.attribution


@dataclass(frozen=True)
class Listed:
    """A few examples of `source`, in any order."""

    source: Source
    indices: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> Example:
        return self.source[self.indices[i]]

    @property
    def classes(self) -> tuple[str, ...]:
        return self.source.classes

    @property
    def attribution(self) -> str:
        return self.source.attribution
