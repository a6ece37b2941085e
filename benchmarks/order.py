"""What the order of a very large source costs: memory, the start, and places a second.

    .venv/bin/python benchmarks/order.py [shards] [examples a shard]

The source is a list of lengths; 70,000 shards of about 10,000 examples are the size of COYO-700M.
Buckets: of 8 pixels, so that the loader is measured and not their pictures.
Each row is measured in a process of its own. "batches": one-pixel pictures through the loader.
"""

import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np

from flowbrush.data.batches import BatchConfig, batches
from flowbrush.data.buckets import BucketsConfig, bucketed
from flowbrush.data.mixture import Mixture
from flowbrush.data.order import order_of
from flowbrush.data.source import Example, Source
from flowbrush.data.split import split

WINDOW, BATCH, PLACES, LOADED = 16, 64, 200_000, 20_000


@dataclass(frozen=True)
class Lengths:
    """A source of which only the lengths of its shards are there."""

    shards: tuple[int, ...]
    total: int
    size: tuple[int, int] = (1, 1)
    classes: tuple[str, ...] = field(default=(), init=False)
    attribution: str = field(default="", init=False)

    def __len__(self) -> int:
        return self.total

    def __getitem__(self, i: int) -> Example:
        return Example(np.zeros((*self.size, 3), np.uint8), {"en": ""})

    def aspects(self) -> Iterator[np.ndarray]:
        random = np.random.default_rng(0)
        for length in self.shards:
            yield np.exp(random.standard_normal(length, np.float32) / 2)

    def reshaped(self, size: tuple[int, int]) -> "Lengths":
        return replace(self, size=size)


def lengths(shards: int, examples: int) -> Lengths:
    made = np.random.default_rng(0).integers(examples // 2, examples * 3 // 2, shards).tolist()
    return Lengths(tuple(made), sum(made))


def resident() -> float:
    """MB in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def measure(name: str, make: Callable[[], Source], window: int) -> None:
    before, began = resident(), time.perf_counter()
    source = make()
    order = order_of(source, window, seed=0)
    first = order[0]
    started = time.perf_counter() - began
    far, began = 5 * len(source) // 2 // BATCH * BATCH, time.perf_counter()
    order[far]
    resumed, began = time.perf_counter() - began, time.perf_counter()
    for place in range(far, far + PLACES):
        first ^= order[place]
    rate = PLACES / (time.perf_counter() - began)
    with closing(batches(source, BatchConfig(size=BATCH, window=window), 0, far)) as loader:
        next(loader)
        began = time.perf_counter()
        for _ in islice(loader, LOADED // BATCH):
            pass
        loaded = LOADED / (time.perf_counter() - began)
    print(
        f"| {name} | {len(source):,} | +{resident() - before:.0f} MB | {started:.2f} s | "
        f"{resumed * 1000:.0f} ms | {rate:,.0f} | {loaded:,.0f} |",
        flush=True,
    )


def main() -> None:
    shards, examples = (int(sys.argv[i + 1]) if len(sys.argv) > i + 1 else n
                        for i, n in enumerate((70_000, 10_000)))  # fmt: skip

    def sharded() -> Source:
        return lengths(shards, examples)

    def mixed() -> Source:
        return Mixture((lengths(shards, examples), lengths(shards // 10, examples)), (0.8, 0.2))

    def learned() -> Source:
        return split(sharded(), 0.001).learned

    def in_buckets() -> Source:
        return bucketed(sharded(), BucketsConfig(step=1, most=2.0).shapes(8), BATCH)

    rows = (("as a whole", sharded, 0), (f"windows of {WINDOW} shards", sharded, WINDOW),
            ("a mixture of two in windows", mixed, WINDOW), ("0.1 % held out", learned, 0),
            ("0.1 % held out, in windows", learned, WINDOW),
            ("7 buckets", in_buckets, 0),
            ("7 buckets, in windows", in_buckets, WINDOW))  # fmt: skip
    print("| order | examples | memory | start | resume | places/s | batches, pictures/s |")
    print("|---|--:|--:|--:|--:|--:|--:|", flush=True)
    for row in rows:
        process = multiprocessing.get_context("fork").Process(target=measure, args=row)
        process.start()
        process.join()


if __name__ == "__main__":
    main()
