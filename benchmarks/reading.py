"""Pictures a second out of prepared shards, in random order, against decoding JPEGs of 512 pixels.

    .venv/bin/python benchmarks/reading.py [pictures] [rounds]

The same pictures three times: latents and T5 features in shards; a folder of JPEGs; and, where
webdataset is importable, its reader on a tar of those JPEGs: in the tar's order, and by one thread
where the others have Grain's four. The rounds are interleaved, and the ratios are of each round.
"""

import io
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from flowbrush.data import FolderConfig, PreparedConfig
from flowbrush.data.batches import BatchConfig, batches
from flowbrush.data.source import Source
from flowbrush.experiment import ExperimentConfig
from flowbrush.prepare.prepare import PrepareConfig, prepare
from flowbrush.spaces import LatentConfig
from flowbrush.spaces.tiny import tiny_autoencoder
from flowbrush.text import T5Config
from flowbrush.text.tiny import tiny_t5

SIZE, BATCH = 512, 32
CAPTION = "a photograph of coloured clouds over the sea, number"


def write_jpegs(folder: Path, count: int) -> None:
    """Soft clouds with some grain: about as many bytes as a photograph."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for i in range(count):
        soft = Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8)).resize((SIZE, SIZE), 3)
        grain = rng.normal(0, 6, (SIZE, SIZE, 3))
        picture = (np.asarray(soft) + grain).clip(0, 255).astype(np.uint8)
        Image.fromarray(picture).save(folder / f"{i:06}.jpg", quality=90)
        (folder / f"{i:06}.txt").write_text(f"{CAPTION} {i}")


def write_tar(folder: Path, path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        for file in sorted(folder.iterdir()):
            tar.add(file, file.name)


def flowbrush_reader(source: Source) -> Callable[[], Iterator[int]]:
    def read() -> Iterator[int]:
        with closing(batches(source, BatchConfig(size=BATCH), 0, 0)) as loader:
            for batch in loader:
                yield len(batch.pictures)

    return read


def webdataset_reader(path: Path) -> Callable[[], Iterator[int]] | None:
    try:
        import webdataset
    except ImportError:
        return None

    def decode(sample: dict[str, bytes]) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(sample["jpg"])).convert("RGB"))

    def read() -> Iterator[int]:
        data = webdataset.WebDataset(str(path), shardshuffle=False).repeat().map(decode)
        for batch in data.batched(BATCH, collation_fn=np.stack):
            yield len(batch)

    return read


def rate(read: Callable[[], Iterator[int]], count: int) -> float:
    """Pictures a second, after the first batch."""
    reader, seen = read(), 0
    next(reader)
    start = time.perf_counter()
    while seen < count:
        seen += next(reader)
    seconds = time.perf_counter() - start
    reader.close()  # type: ignore[attr-defined]
    return seen / seconds


def main() -> None:
    count, rounds = (int(sys.argv[i]) if len(sys.argv) > i else n for i, n in ((1, 320), (2, 7)))
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as parent:
        root = Path(parent)
        write_jpegs(root / "jpegs", count)
        write_tar(root / "jpegs", root / "jpegs.tar")
        tiny_autoencoder(root / "vae", channels=4, factor=8)
        tiny_t5(root / "t5", root / "t5", width=768)
        config = replace(
            ExperimentConfig(size=SIZE, source=FolderConfig(path=root / "jpegs")),
            space=LatentConfig(model=str(root / "vae")),
            text=T5Config(model=str(root / "t5"), tokens=77),
        )
        done = prepare(config, PrepareConfig(to=root / "shards", shard=64, device="cpu"))
        readers = {
            "prepared shards": flowbrush_reader(PreparedConfig(path=root / "shards").build(SIZE)),
            "folder of JPEGs": flowbrush_reader(config.source.build(SIZE)),
            "webdataset, tar of JPEGs": webdataset_reader(root / "jpegs.tar"),
        }
        jpegs = sum(path.stat().st_size for path in (root / "jpegs").glob("*.jpg"))
        print(
            f"{count} pictures: {jpegs / 1e6:.1f} MB of JPEGs, {done.size / 1e6:.1f} MB of shards"
        )
        found: dict[str, list[float]] = {name: [] for name, read in readers.items() if read}
        for _ in range(rounds):
            for name in found:
                pictures = count * (8 if name == "prepared shards" else 1)
                found[name].append(rate(readers[name], pictures))  # type: ignore[arg-type]
    shards = found["prepared shards"]
    print("\n| | pictures/s (median) | shards are faster by (median, range) |\n|---|---|---|")
    for name, rates in found.items():
        ratios = [own / other for own, other in zip(shards, rates, strict=True)]
        faster = f"{statistics.median(ratios):.1f} x ({min(ratios):.1f} to {max(ratios):.1f})"
        print(f"| {name} | {statistics.median(rates):,.0f} | {faster} |")


if __name__ == "__main__":
    main()
