"""Examples that training never sees: a share of a source, chosen by a hash of their place in it."""

from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from flowbrush.data.mixture import Mixture
from flowbrush.data.source import Example, Source, shards_of
from flowbrush.randomness import uniform


@dataclass(frozen=True)
class Part:
    """A Source over some examples of another."""

    source: Source
    indices: tuple[int, ...]  # into `source`

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> Example:
        return self.source[self.indices[i]]

    @property
    def shards(self) -> list[int]:
        """What is left of the source's."""
        starts = list(accumulate(shards_of(self.source)))
        inside = np.searchsorted(starts, np.asarray(self.indices, np.int64), side="right")
        return np.bincount(inside, minlength=len(starts)).tolist()

    @property
    def classes(self) -> tuple[str, ...]:
        return self.source.classes

    @property
    def attribution(self) -> str:
        return self.source.attribution


class Split(NamedTuple):
    """Two parts without an example in common."""

    learned: Source
    held_out: Source


def split(source: Source, held_out: float, seed: int = 0) -> Split:
    """About a share `held_out` of the examples, and the rest. One source is always split alike.

    Which part an example falls in depends on its place alone, so a source that grows at its end
    keeps the parts that it had. The parts of a mixture are split one by one, and keep their shares.
    """
    if isinstance(source, Mixture):
        halves = [split(part, held_out, seed) for part in source.parts]
        return Split(
            _mixed([half.learned for half in halves], source.shares),
            _mixed([half.held_out for half in halves], source.shares),
        )
    chance = uniform(seed, "held out", range(len(source))) < held_out
    indices = list(enumerate(chance.tolist()))
    return Split(
        Part(source, tuple(i for i, held in indices if not held)),
        Part(source, tuple(i for i, held in indices if held)),
    )


def _mixed(parts: list[Source], shares: tuple[float, ...]) -> Mixture:
    """Without those that are empty."""
    some = [(part, share) for part, share in zip(parts, shares, strict=True) if len(part)]
    return Mixture(tuple(part for part, _ in some), tuple(share for _, share in some))
