"""How much memory a folder of 100,000 captioned pictures takes to train from.

.venv/bin/python benchmarks/folder_memory.py [files]
"""

import io
import resource
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import numpy as np
from PIL import Image

from flowbrush.data import FolderConfig
from flowbrush.data.batches import BatchConfig, batches


def resident() -> float:
    """MB in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def fill(folder: Path, files: int) -> None:
    (folder / "images").mkdir()
    (folder / "captions").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(noise).save(encoded, "JPEG")
    for i in range(files):
        (folder / "images" / f"picture-{i:06}.jpg").write_bytes(encoded.getvalue())
        (folder / "captions" / f"picture-{i:06}.txt").write_text(f"caption number {i}, 見出し")


def main() -> None:
    files = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as name:
        fill(Path(name), files)
        before, began = resident(), time.perf_counter()
        source = FolderConfig(path=Path(name)).build(64)
        listed, checked = resident(), time.perf_counter() - began
        peak = listed
        with closing(batches(source, BatchConfig(size=64), seed=0, start=0)) as loader:
            for i, _batch in enumerate(loader):
                peak = max(peak, resident())
                if (i + 1) * 64 >= files:
                    break
        print(f"{files:,} files: listed and checked in {checked:.1f} s")
        print(
            f"resident set: +{listed - before:.0f} MB for the list, +{peak - before:.0f} MB at "
            "most in an epoch"
        )


if __name__ == "__main__":
    main()
