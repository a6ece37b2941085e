"""Examples that training never sees: a share of every block of a source, chosen by a hash.

Of n places the first blocks hold out floor(n share + u), u by the seed: a share of 1e-5 takes one
in a hundred blocks of 1024. Nothing is computed for an example before it is asked for.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from flowbrush.data.mixture import Mixture
from flowbrush.data.part import BLOCK, Part
from flowbrush.data.source import Source
from flowbrush.errors import UserError
from flowbrush.randomness import derive


@dataclass(frozen=True)
class HeldOut:
    """The places that are held out. Which they are depends on nothing else."""

    share: Fraction
    seed: int

    def until(self, block: int) -> int:
        return (block * BLOCK * self.share.numerator + self._first) // self.share.denominator

    @cached_property
    def _first(self) -> int:
        return derive(self.seed, "held out from", 0) % self.share.denominator

    def inside(self, block: int) -> Int64[np.ndarray, " k"]:
        """Those with the smallest words of the block's own Philox."""
        count = self.until(block + 1) - self.until(block)
        if not count:
            return np.empty(0, np.int64)
        words = np.random.Philox(key=derive(self.seed, "held out", block)).random_raw(BLOCK)
        return np.flatnonzero(words <= np.partition(words, count - 1)[count - 1])


@dataclass(frozen=True)
class Others:
    """The places that are not held out."""

    held_out: HeldOut

    def until(self, block: int) -> int:
        return block * BLOCK - self.held_out.until(block)

    def inside(self, block: int) -> Int64[np.ndarray, " k"]:
        left = np.ones(BLOCK, bool)
        left[self.held_out.inside(block)] = False
        return np.flatnonzero(left)


class Split(NamedTuple):
    """Two parts without an example in common."""

    learned: Source
    held_out: Source


def split(source: Source, share: float, seed: int = 0) -> Split:
    """About a `share` of the examples, held out, and the rest. One source is always split alike.

    Which part an example falls in depends on its place alone, so a source that grows at its end
    keeps the parts that it had. The parts of a mixture are split one by one, and keep their shares.
    Raises UserError where a share is asked for that comes to no example.
    """
    parts = _split(source, HeldOut(Fraction(str(share)), seed))
    if share and not len(parts.held_out):
        raise UserError(f"held_out: {share} of {len(source):,} examples comes to none; give more")
    return parts


def _split(source: Source, chosen: HeldOut) -> Split:
    if isinstance(source, Mixture):
        halves = [_split(part, chosen) for part in source.parts]
        return Split(
            _mixed([half.learned for half in halves], source.shares),
            _mixed([half.held_out for half in halves], source.shares),
        )
    return Split(Part(source, Others(chosen)), Part(source, chosen))


def _mixed(parts: list[Source], shares: tuple[float, ...]) -> Mixture:
    """Without those that are empty."""
    some = [(part, share) for part, share in zip(parts, shares, strict=True) if len(part)]
    return Mixture(tuple(part for part, _ in some), tuple(share for _, share in some))
