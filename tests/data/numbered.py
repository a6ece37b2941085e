"""Sources whose examples are called by their numbers, in one piece and in shards."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice

import jaxtyping
import numpy as np

from flowbrush.data.batches import BatchConfig, batches
from flowbrush.data.order import Order
from flowbrush.data.source import Example, Source, UnreadablePicture


@dataclass(frozen=True)
class Plain:
    """Example i is called "i"; its picture is one pixel."""

    length: int
    kinds: tuple[str, ...] = ("en",)
    broken: frozenset[int] = frozenset()
    classes: tuple[str, ...] = ()
    attribution: str = ""

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> Example:
        if i in self.broken:
            raise UnreadablePicture(f"{i}.png", "torn")
        return Example(np.full((1, 1, 3), i % 256, np.uint8), dict.fromkeys(self.kinds, f"{i}"))


@dataclass(frozen=True)
class InShards(Plain):
    """The same in shards."""

    shards: tuple[int, ...] = ()


def in_shards(shards: Sequence[int], broken: Sequence[int] = ()) -> InShards:
    return InShards(sum(shards), broken=frozenset(broken), shards=tuple(shards))


@contextmanager
def unchecked() -> Iterator[None]:
    """Without the checks of signatures: of an order's time they take nearly all."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def numbers(order: Order, places: range) -> np.ndarray:
    with unchecked():
        return np.array([order[place] for place in places])


def loaded(
    source: Source, count: int, start: int = 0, rank: int = 0, world: int = 1, **choices
) -> list[list[int]]:
    """The numbers in the first batches of one process."""
    with closing(batches(source, BatchConfig(**choices), 7, start, rank, world)) as loader:
        return [list(map(int, batch.captions)) for batch in islice(loader, count)]
