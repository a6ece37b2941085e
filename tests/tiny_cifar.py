"""CIFAR-10's binary version in small."""

from pathlib import Path

import numpy as np


def write_cifar(folder: Path, of_each: int = 2) -> Path:
    """Noise of all ten classes, `of_each` in each of its files."""
    folder.mkdir(parents=True)
    rows = np.random.default_rng(0).integers(0, 256, (10 * of_each, 3073), np.uint8)
    rows[:, 0] = np.arange(len(rows)) % 10
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        (folder / f"{name}.bin").write_bytes(rows.tobytes())
    return folder
