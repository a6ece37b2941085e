"""CIFAR-10 (Krizhevsky 2009): 60,000 photos of 32 pixels, in its binary or its Python version.

Binary: 3,073 bytes a picture, its class and then 1,024 of red, of green and of blue. The Python
version's pickles are read by `pickles.loads`, which runs nothing.
"""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from flowbrush.data import pickles
from flowbrush.data.pictures import fitted
from flowbrush.data.source import Example, Origin
from flowbrush.errors import UserError

BYTES = 3 * 32 * 32  # of a picture
PLACES = ("", "cifar-10-batches-bin", "cifar-10-batches-py")  # within the folder
ARCHIVES = ("cifar-10-binary.tar.gz", "cifar-10-python.tar.gz")
NAMES = {
    "airplane": "飛行機",
    "automobile": "自動車",
    "bird": "鳥",
    "cat": "猫",
    "deer": "鹿",
    "dog": "犬",
    "frog": "カエル",
    "horse": "馬",
    "ship": "船",
    "truck": "トラック",
}


@dataclass(frozen=True, kw_only=True)
class CifarConfig:
    """A folder with `data_batch_1.bin` to `_5.bin` and `test_batch.bin`, or the same without .bin.

    captions: sentences = "a photo of a cat" (en) and "猫の写真" (ja), classes = "cat" (class).
    """

    path: Path = Path("cifar-10")
    split: Literal["train", "test"] = "train"
    captions: Literal["sentences", "classes"] = "sentences"

    def build(self, size: int) -> "Cifar":
        """Raises UserError for a missing, truncated or foreign file."""
        return Cifar(self, size)


class _File(NamedTuple):
    """Of one file, or of several."""

    pictures: UInt8[np.ndarray, "n 3 32 32"]
    labels: UInt8[np.ndarray, " n"]


class Cifar:
    """A Source of photos in memory as bytes (154 MB); `truth` is the class's number."""

    def __init__(self, config: CifarConfig, size: int) -> None:
        self.size = size
        files = [_read(path) for path in _files(config)]
        self.pictures = np.concatenate([file.pictures for file in files])
        self.labels = np.concatenate([file.labels for file in files])
        if config.captions == "classes":
            self._captions = [{"class": name} for name in NAMES]
        else:
            self._captions = [
                {"en": f"a photo of {_article(name)} {name}", "ja": f"{japanese}の写真"}
                for name, japanese in NAMES.items()
            ]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> Example:
        image = Image.fromarray(self.pictures[i].transpose(1, 2, 0))
        label = int(self.labels[i])
        return Example(fitted(image, self.size), self._captions[label], truth=label)

    @property
    def classes(self) -> tuple[str, ...]:
        """The captions in English. A model of labels takes these: `--batch.captions en 1`."""
        return tuple(next(iter(captions.values())) for captions in self._captions)

    @property
    def attribution(self) -> str:
        return "CIFAR-10, Alex Krizhevsky, Vinod Nair and Geoffrey Hinton"

    def origin(self) -> Origin:
        """By the pictures and classes themselves."""
        return Origin(sha256(self.pictures.tobytes() + self.labels.tobytes()).hexdigest())


def _article(name: str) -> str:
    return "an" if name[0] in "aeiou" else "a"


def _files(config: CifarConfig) -> list[Path]:
    names = ["test_batch"]
    if config.split == "train":
        names = [f"data_batch_{i}" for i in range(1, 6)]
    for place in PLACES:
        for ending in (".bin", ""):
            paths = [config.path / place / (name + ending) for name in names]
            if paths[0].is_file():
                if missing := next((path for path in paths if not path.is_file()), None):
                    raise UserError(f"{missing}: missing; unpack the archive again")
                return paths
    if packed := next((name for name in ARCHIVES if (config.path / name).is_file()), None):
        raise UserError(
            f"{config.path / packed}: still packed; tar -xf {config.path / packed} -C {config.path}"
        )
    raise UserError(f"{config.path}: no {names[0]}.bin or {names[0]} in it; give CIFAR-10's folder")


def _read(path: Path) -> _File:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; fetch it again") from None
    file = _binary(data, path) if path.suffix == ".bin" else _pickled(data, path)
    if file.labels.max() >= len(NAMES):
        raise UserError(f"{path}: a class {file.labels.max()} of {len(NAMES)}; this is no CIFAR-10")
    return file


def _binary(data: bytes, path: Path) -> _File:
    if not data or len(data) % (1 + BYTES):
        raise UserError(
            f"{path}: {len(data):,} bytes, no multiple of {1 + BYTES:,}; fetch it again"
        )
    rows = np.frombuffer(data, np.uint8).reshape(-1, 1 + BYTES)
    return _File(rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0])


def _pickled(data: bytes, path: Path) -> _File:
    try:
        found = pickles.loads(data, str(path))
        named = {k.decode("latin1") if isinstance(k, bytes) else k: v for k, v in found.items()}
        pictures, labels = named["data"], np.array(named["labels"])
        if pictures.dtype != np.uint8 or labels.dtype.kind != "i" or not labels.min() >= 0:
            raise ValueError("other numbers than its pictures and classes")
        if labels.shape != pictures.shape[:1] or labels.max() > 255:
            raise ValueError("not a class for each picture")
        return _File(pictures.reshape(-1, 3, 32, 32), labels.astype(np.uint8))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: no batch of CIFAR-10 ({error}); fetch it again") from None
