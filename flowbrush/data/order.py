"""The global order of training: a place to an example's number, without a list of examples.

A source without shards, or of no more than the window has, is shuffled as a whole. One in shards is
read a window at a time: each epoch takes the shards in another order, and shuffles together the
examples of so many shards in a row. Of a mixture the parts take turns, each in its own order; so
do buckets, a whole batch a turn.
"""

import logging
import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from flowbrush.data.buckets import Buckets
from flowbrush.data.mixture import Mixture
from flowbrush.data.source import Source, shards_of
from flowbrush.errors import UserError
from flowbrush.randomness import derive

logging.getLogger("absl").setLevel(logging.ERROR)  # Grain's word about a profiler that is not there
import grain  # noqa: E402

NEARBY = 50  # attempts to put another example of the same window in a broken one's place
BLOCK = 1024  # turns of a mixture that are shuffled together
ROUNDS = 6
_WORD = 2**64 - 1


@runtime_checkable
class Order(Protocol):
    """A pure function of the place; it goes on through the epochs without end."""

    def __getitem__(self, place: int) -> int: ...

    def instead(self, place: int, attempt: int) -> int:
        """The example to try where those of the attempts before, from 0 on, were broken."""
        ...


def order_of(source: Source, window: int, seed: int) -> Order:
    """window: shards shuffled together; 0 = all. Raises UserError for a source without examples."""
    if not len(source):
        raise UserError("source: there are no pictures in it")
    if isinstance(source, Mixture):
        parts = enumerate(source.parts)
        orders = [order_of(part, window, derive(seed, "part", n)) for n, part in parts]
        return MixedOrder(source.starts, source.shares, orders, seed)
    if isinstance(source, Buckets):
        # One seed for all: so they go through the shards of a source together.
        orders = [order_of(bucket, window, seed) for bucket in source.together.parts]
        return BucketOrder(source.together.starts, source.weights, orders, source.batch)
    shards = shards_of(source) if window else ()
    if len(shards) > window:
        return WindowOrder(shards, window, seed)
    return WholeOrder(len(source), seed)


class WholeOrder:
    """Grain's shuffle of all examples, another one each epoch."""

    def __init__(self, length: int, seed: int) -> None:
        self._length, self._seed = length, seed
        self._order = grain.MapDataset.range(length).seed(seed % 2**32).shuffle().repeat()

    def __getitem__(self, place: int) -> int:
        return int(self._order[place])

    def instead(self, place: int, attempt: int) -> int:
        return derive(self._seed, f"instead {attempt}", place) % self._length


@dataclass(frozen=True)
class _Epoch:
    """The shards in the order of one epoch."""

    number: int
    key: int  # of what is shuffled within its windows
    shards: list[int]
    starts: list[int]  # of each shard in this order, and the end: places of the epoch


class _Window(NamedTuple):
    """Where a place is: its window begins at place `first` of the epoch and has `size` places."""

    epoch: _Epoch
    number: int
    first: int
    size: int
    place: int  # within the window


class WindowOrder:
    """Each epoch: the shards in another order; examples shuffled among `window` shards in a row.

    Memory is a few numbers a shard. Between two windows' places, twice `window` shards are open.
    """

    def __init__(self, shards: Sequence[int], window: int, seed: int) -> None:
        self._sizes, self._window, self._seed = np.asarray(shards, np.int64), window, seed
        self._starts = _starts(self._sizes)
        self._epochs: tuple[_Epoch, ...] = ()

    def __getitem__(self, place: int) -> int:
        found = self._at(place)
        key = _mixed(found.epoch.key, 0, found.number)
        return self._example(found, permuted(found.place, found.size, key))

    def instead(self, place: int, attempt: int) -> int:
        drawn = derive(self._seed, f"instead {attempt}", place)
        if attempt >= NEARBY:
            return drawn % self._starts[-1]
        found = self._at(place)
        return self._example(found, drawn % found.size)

    def _at(self, place: int) -> _Window:
        number, place = divmod(place, self._starts[-1])
        epoch = self._epoch(number)
        shard = bisect_right(epoch.starts, place) - 1  # never an empty one: the next starts later
        window = shard // self._window
        first = epoch.starts[window * self._window]
        end = epoch.starts[min((window + 1) * self._window, len(epoch.shards))]
        return _Window(epoch, window, first, end - first, place - first)

    def _example(self, found: _Window, within: int) -> int:
        epoch, place = found.epoch, found.first + within
        shard = bisect_right(epoch.starts, place) - 1
        return self._starts[epoch.shards[shard]] + place - epoch.starts[shard]

    def _epoch(self, number: int) -> _Epoch:
        """Two are kept, since what is read ahead may be in the next epoch already."""
        for known in self._epochs:
            if known.number == number:
                return known
        # The raw words of Philox are the same in every version of NumPy; its shuffles may not be.
        philox = np.random.Philox(key=derive(self._seed, "shards", number))
        shards = np.argsort(philox.random_raw(len(self._sizes)), kind="stable")
        key = derive(self._seed, "windows", number)
        made = _Epoch(number, key, shards.tolist(), _starts(self._sizes[shards]))
        self._epochs = (made, *self._epochs[:1])
        return made


class Turns:
    """Turn n to the part that it falls to, and how many turns that part had before."""

    def __init__(self, shares: Sequence[float | Fraction]) -> None:
        exact = [Fraction(str(share)) for share in shares]  # 0.7 as 7/10
        scale = math.lcm(*(share.denominator for share in exact))
        weights = [int(share * scale) for share in exact]
        self._weights = list(zip(weights, list(accumulate(weights[::-1]))[::-1], strict=True))

    def __getitem__(self, turn: int) -> tuple[int, int]:
        # Of n turns the first part has floor(n weight / all); the others share what is left alike.
        last = len(self._weights) - 1
        for part, (weight, left) in enumerate(self._weights[:last]):
            had = turn * weight // left
            if (turn + 1) * weight // left > had:
                return part, had
            turn -= had
        return last, turn


class MixedOrder:
    """Turns in exactly the parts' shares; each part goes through its own epochs.

    After n turns a part has had its share of n, to within one turn of each part before it and the
    shuffling of one block.
    """

    def __init__(
        self, starts: Sequence[int], shares: Sequence[float], orders: Sequence[Order], seed: int
    ) -> None:
        self._starts, self._orders, self._key = starts, orders, derive(seed, "turns", 0)
        self._turns = Turns(shares)

    def __getitem__(self, place: int) -> int:
        part, turn = self.turn(place)
        return self._starts[part] + self._orders[part][turn]

    def instead(self, place: int, attempt: int) -> int:
        part, turn = self.turn(place)
        return self._starts[part] + self._orders[part].instead(turn, attempt)

    def turn(self, place: int) -> tuple[int, int]:
        """The part that a place falls to, and the place in that part's own order."""
        # Shuffled, so that of two processes not each has one part of a half and a half alone.
        block, place = divmod(place, BLOCK)
        return self._turns[block * BLOCK + permuted(place, BLOCK, _mixed(self._key, 0, block))]


class BucketOrder:
    """Turns of `batch` places in exactly the buckets' weights; each goes through its own epochs.

    They are not shuffled, so that a bucket's examples come in its own order.
    """

    def __init__(
        self,
        starts: Sequence[int],
        weights: Sequence[Fraction],
        orders: Sequence[Order],
        batch: int,
    ) -> None:
        self._starts, self._orders, self._batch = starts, orders, batch
        self._turns = Turns(weights)

    def __getitem__(self, place: int) -> int:
        bucket, place = self.turn(place)
        return self._starts[bucket] + self._orders[bucket][place]

    def instead(self, place: int, attempt: int) -> int:
        bucket, place = self.turn(place)
        return self._starts[bucket] + self._orders[bucket].instead(place, attempt)

    def turn(self, place: int) -> tuple[int, int]:
        """The bucket that a place falls to, and the place in that bucket's own order."""
        number, within = divmod(place, self._batch)
        bucket, had = self._turns[number]
        return bucket, had * self._batch + within


def permuted(i: int, n: int, key: int) -> int:
    """Where a permutation of range(n) that is drawn by the key takes i.

    A Feistel network over the cells of a table that holds n, walked until it meets one of the n
    (Black and Rogaway 2002, Ciphers with Arbitrary Finite Domains).
    """
    rows = math.isqrt(n - 1) + 1
    columns = -(-n // rows)
    while True:
        row, column = divmod(i, columns)
        for turn in range(0, ROUNDS, 2):
            row = (row + _mixed(key, turn, column)) % rows
            column = (column + _mixed(key, turn + 1, row)) % columns
        i = row * columns + column
        if i < n:
            return i


def _mixed(key: int, turn: int, value: int) -> int:
    """SplitMix64 (Steele, Lea and Flood 2014) of the three."""
    z = (key + 0x9E3779B97F4A7C15 * (turn + 1) & _WORD) ^ value
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & _WORD
    z = (z ^ z >> 27) * 0x94D049BB133111EB & _WORD
    return z ^ z >> 31


def _starts(sizes: np.ndarray) -> list[int]:
    return [0, *np.cumsum(sizes).tolist()]
