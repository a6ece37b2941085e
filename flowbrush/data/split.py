"""Examples that training never sees: a share of a source, chosen by a hash of their place in it."""

from dataclasses import dataclass
from typing import NamedTuple

from flowbrush.data.source import Example, Source
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
    def classes(self) -> tuple[str, ...]:
        return self.source.classes

    @property
    def attribution(self) -> str:
        return self.source.attribution


class Split(NamedTuple):
    """Two parts without an example in common."""

    learned: Part
    held_out: Part


def split(source: Source, held_out: float, seed: int = 0) -> Split:
    """About a share `held_out` of the examples, and the rest. One source is always split alike.

    Which part an example falls in depends on its place alone, so a source that grows at its end
    keeps the parts that it had.
    """
    chance = uniform(seed, "held out", range(len(source))) < held_out
    indices = list(enumerate(chance.tolist()))
    return Split(
        Part(source, tuple(i for i, held in indices if not held)),
        Part(source, tuple(i for i, held in indices if held)),
    )
