"""Pictures a second out of tar shards of JPEGs, against webdataset's reader of the same shards.

    .venv/bin/python benchmarks/loader.py [side of the JPEGs] [pictures] [rounds]

Each sample is a JPEG, a caption and a JSON as img2dataset writes them; each reader gives batches of
64 pictures of 256 pixels as bytes in a tensor, with captions. Needs `pip install webdataset`. The
rounds are interleaved, and the ratios are of each round.
"""

import io
import json
import os
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import grain
import numpy as np
import torch
import webdataset
from PIL import Image

from flowbrush.data import TarShardsConfig
from flowbrush.data.batches import BatchConfig, batches
from flowbrush.data.tar_shards import TarShards

SIZE, BATCH, SHARDS, WINDOW = 256, 64, 8, 2
WORKERS = len(os.sched_getaffinity(0))
Reader = Callable[[], Iterator[int]]


def write_shards(folder: Path, side: int, count: int) -> None:
    """Soft clouds with some grain: about as many bytes as a photograph."""
    rng = np.random.default_rng(0)
    for shard in range(SHARDS):
        with tarfile.open(folder / f"{shard:05}.tar", "w") as tar:
            for i in range(count // SHARDS):
                soft = Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8))
                pixels = np.asarray(soft.resize((side, side), 3)) + rng.normal(
                    0, 6, (side, side, 3)
                )
                jpeg = io.BytesIO()
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(jpeg, "JPEG", quality=90)
                caption = f"a photograph of coloured clouds over the sea, number {i}"
                facts = {"caption": caption, "key": f"{i:09}", "width": side, "similarity": 0.3}
                for ending, data in (
                    ("jpg", jpeg.getvalue()),
                    ("json", json.dumps(facts).encode()),
                    ("txt", caption.encode()),
                ):
                    member = tarfile.TarInfo(f"{shard:05}{i:04}.{ending}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))


def shuffled(source: TarShards, workers: int) -> Reader:
    """As a run reads: a random order over all shards."""

    def read() -> Iterator[int]:
        with closing(batches(source, BatchConfig(size=BATCH, workers=workers), 0, 0)) as loader:
            for batch in loader:
                yield len(batch.pictures)

    return read


def ordered(source: TarShards, order: Sequence[int]) -> Reader:
    """The same, in an order that is given."""

    def read() -> Iterator[int]:
        places = grain.MapDataset.source(order).repeat().map(source.__getitem__)
        loaded = places.batch(BATCH, drop_remainder=True, batch_fn=list).to_iter_dataset(
            grain.ReadOptions(num_threads=4, prefetch_buffer_size=8)
        )
        iterator = iter(loaded)
        try:
            for examples in iterator:
                pictures = torch.from_numpy(np.stack([example.picture for example in examples]))
                yield len(pictures.permute(0, 3, 1, 2))
        finally:
            iterator.close()

    return read


def windows(source: TarShards) -> list[int]:
    """The shards shuffled, and then the samples of WINDOW of them together."""
    rng, starts = np.random.default_rng(0), np.cumsum([0, *source.shards])
    places = []
    for some in np.split(rng.permutation(SHARDS), SHARDS // WINDOW):
        own = np.concatenate([np.arange(starts[shard], starts[shard + 1]) for shard in some])
        places += rng.permutation(own).tolist()
    return places


def webdatasets(folder: Path, workers: int, shuffle: int) -> Reader:
    """As its README has it; a picture of another side is resized as Pillow does by default."""

    def sized(picture: np.ndarray) -> np.ndarray:
        if picture.shape[:2] == (SIZE, SIZE):
            return picture
        return np.asarray(Image.fromarray(picture).resize((SIZE, SIZE)))

    def stacked(samples: list[tuple[np.ndarray, str]]) -> tuple[torch.Tensor, list[str]]:
        pictures = torch.from_numpy(np.stack([picture for picture, _ in samples]))
        return pictures.permute(0, 3, 1, 2), [text for _, text in samples]

    def read() -> Iterator[int]:
        urls = sorted(map(str, folder.glob("*.tar")))
        data = webdataset.WebDataset(urls, shardshuffle=SHARDS if shuffle else False).repeat()
        data = data.shuffle(shuffle) if shuffle else data
        data = data.decode("rgb8").to_tuple("jpg", "txt").map_tuple(sized, str)
        data = data.batched(BATCH, collation_fn=stacked)
        for pictures, _ in webdataset.WebLoader(data, batch_size=None, num_workers=workers):
            yield len(pictures)

    return read


def rate(read: Reader, count: int) -> tuple[float, float]:
    """Pictures a second, and milliseconds of this process's CPU time for one.

    Counted once twelve batches are past: by then all queues have been filled.
    """
    reader, seen = read(), 0
    for _ in range(12):
        next(reader)
    start, before = time.perf_counter(), time.process_time()
    while seen < count:
        seen += next(reader)
    seconds, busy = time.perf_counter() - start, time.process_time() - before
    reader.close()  # type: ignore[attr-defined]
    return seen / seconds, 1000 * busy / seen


def main() -> None:
    side, count, rounds = (
        int(sys.argv[i]) if len(sys.argv) > i else n for i, n in ((1, 256), (2, 2048), (3, 5))
    )
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent)
        write_shards(folder, side, count)
        size = sum(path.stat().st_size for path in folder.glob("*.tar"))
        start = time.perf_counter()
        source = TarShardsConfig(path=parent).build(SIZE)
        seconds = time.perf_counter() - start
        index = sum(path.stat().st_size for path in folder.glob("*.index.*"))
        print(
            f"{len(source):,} JPEGs of {side} px in {SHARDS} shards of {size / 1e6:.0f} MB; "
            f"indexed in {seconds:.2f} s, {index / len(source):.0f} bytes a sample; {WORKERS} cores"
        )
        readers = {
            "flowbrush, threads, shuffled": shuffled(source, 0),
            "flowbrush, threads, shuffled within windows": ordered(source, windows(source)),
            "flowbrush, threads, in the tars' order": ordered(source, range(len(source))),
            f"flowbrush, {WORKERS} workers, shuffled": shuffled(source, WORKERS),
            "webdataset, one process, shuffled": webdatasets(folder, 0, 1000),
            "webdataset, one process, in the tars' order": webdatasets(folder, 0, 0),
            f"webdataset, {WORKERS} workers, shuffled": webdatasets(folder, WORKERS, 1000),
        }
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in readers}
        for _ in range(rounds):
            for name, reader in readers.items():
                found[name].append(rate(reader, count // 2))
    own = [speed for speed, _ in found["flowbrush, threads, shuffled within windows"]]
    print("\n| | pictures/s (median) | windows are faster by (median, range) | CPU ms a picture |")
    print("|---|--:|---|--:|")
    for name, measured in found.items():
        ratios = [one / other for one, (other, _) in zip(own, measured, strict=True)]
        faster = f"{statistics.median(ratios):.2f} x ({min(ratios):.2f} to {max(ratios):.2f})"
        busy = "" if "workers" in name else f"{statistics.median(cpu for _, cpu in measured):.2f}"
        speed = statistics.median(speed for speed, _ in measured)
        print(f"| {name} | {speed:,.0f} | {faster} | {busy} |")


if __name__ == "__main__":
    main()
