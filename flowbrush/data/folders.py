"""One's own images, with captions in files beside them, in a table, or in the folders' names.

Captions are one line of UTF-8 each. Names and captions are checked at the start; images are read
when they are asked for, so memory holds names, and the captions of tables. A link that leads out
of the folder is not followed: a folder from elsewhere must not show what else lies on this machine.
"""

import copy
import hashlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from flowbrush.data.layouts import Layout, reading
from flowbrush.data.names import composed, read_names, shown
from flowbrush.data.pictures import LARGEST_PICTURE, TOO_LARGE, aspect, decode
from flowbrush.data.source import (
    LONGEST_CAPTION,
    Example,
    Origin,
    Size,
    UnreadablePicture,
    listing_sha256,
)
from flowbrush.data.splits import SplitName
from flowbrush.errors import UserError

TOGETHER = 4096  # pictures whose headers are read between two words of it


@dataclass(frozen=True, kw_only=True)
class FolderConfig:
    """Where the images are, and how their captions are kept; `auto` looks.

    layout: pairs (images/ and captions/), beside (NAME.jpg and NAME.txt or .caption), table
    (metadata.jsonl, .csv or .parquet), classes (a folder a class, whose name is the caption).
    split: read where there are folders such as train/ and val/; all = these are classes too.
    captions: columns of a table, or KIND=COLUMN; empty = caption, text, ...
    ignore: names or patterns of files and folders that are passed over, as in '*.json'.
    names: of the folders of `classes`, as ImageNet's are called n01440764: FOLDER <tab> English
    <tab> 日本語, or LOC_synset_mapping.txt. A model of labels then takes `--batch.captions en 1`.
    """

    path: Path = Path("pictures")
    layout: Layout = "auto"
    names: Path | None = None
    split: SplitName = "train"
    captions: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.names and self.layout not in ("auto", "classes"):
            raise UserError(
                f"source.names: of classes, but the layout is {self.layout}; leave one of them out"
            )

    def build(self, size: int) -> "Folder":
        """Raises UserError for an empty folder, a caption that is missing, unread or unreadable."""
        return Folder(self, size)


class Folder:
    """A Source over files; `truth` is the image's path from the folder of images."""

    def __init__(self, config: FolderConfig, size: int) -> None:
        root = config.path
        if not root.is_dir():
            raise UserError(f"{shown(str(root))}: no such folder; give one with --source.path")
        layout: Layout = "classes" if config.names else config.layout
        found = reading(root, layout, config.split, config.captions, config.ignore)
        self.root, self.layout, self.left_out = root, found.layout, +found.left
        self.size: Size = size
        self.pictures, self.texts = root / found.pictures, root / found.texts
        self.names, self._texts, self._rows = found.names, found.captions, found.rows
        left = ", ".join(f"{count:,} {cause}" for cause, count in self.left_out.items())
        told = [f"{len(self):,} images", *found.told, *([f"left out: {left}"] if left else [])]
        self.summary = f"{shown(str(root))}: {'; '.join(told)}"
        _say_once(self.summary)
        self._captions = self._named(found.classes, config.names)
        kinds = (next(iter(captions.values())) for captions in self._captions.values())
        self._classes = tuple(dict.fromkeys(kinds))
        self._captions_sha256 = self._checked_captions()

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> Example:
        path = self.pictures / self.names[i]
        name = shown(str(path))
        try:
            encoded = _read(path, LARGEST_PICTURE)
        except OSError as error:
            raise UnreadablePicture(name, error.strerror or "unreadable") from None
        except ValueError:
            raise UnreadablePicture(name, TOO_LARGE) from None
        picture = decode(encoded, self.size, name)
        return Example(picture, self._captions_of(i), truth=shown(self.names[i]))

    def aspects(self) -> Iterator[Float32[np.ndarray, " m"]]:
        for i in range(0, len(self), TOGETHER):
            names = self.names[i : i + TOGETHER]
            yield np.array([aspect(self.pictures / name) for name in names], np.float32)

    def reshaped(self, size: tuple[int, int]) -> "Folder":
        other = copy.copy(self)
        other.size = size
        return other

    @property
    def classes(self) -> tuple[str, ...]:
        """In the order of the folders' names, which is ImageNet's; where they have names, these."""
        return self._classes

    @property
    def attribution(self) -> str:
        return ""

    def origin(self) -> Origin:
        """By the names and sizes of all files, by the captions, and by when images were written."""
        stamps = hashlib.sha256()
        for name in self.names:
            stat = os.stat(f"{self.pictures}/{name}")  # noqa: PTH116 (of a million files)
            stamps.update(f"{stat.st_size} {stat.st_mtime_ns}\0".encode())
        return Origin(
            self.first_sha256(len(self)),
            self.left_out,
            names_sha256=listing_sha256((composed(name), 0) for name in self.names),
            captions_sha256=self._captions_sha256,
            stamps_sha256=stamps.hexdigest(),
        )

    def first_sha256(self, examples: int) -> str:
        """The hash of the list of the first examples' files, as `origin` has it of all."""
        folders = (self.pictures, self.names[:examples]), (self.texts, self._texts[:examples])
        below = [(os.path.relpath(folder, self.root), names) for folder, names in folders]
        files = (os.path.normpath(f"{folder}/{name}") for folder, names in below for name in names)
        sizes = ((composed(f), os.stat(f"{self.root}/{f}").st_size) for f in files)  # noqa: PTH116
        return listing_sha256(sizes)

    def _named(self, folders: dict[str, str], file: Path | None) -> dict[str, dict[str, str]]:
        """The captions of each folder of classes, by its path."""
        if file is None:
            return {folder: {"caption": name} for folder, name in folders.items()}
        names = read_names(file)
        if missing := next((name for name in folders.values() if name not in names), None):
            raise UserError(
                f"{file}: no name for the folder {missing} of {self.root}; write a line for it"
            )
        return {folder: names[name] for folder, name in folders.items()}

    def _captions_of(self, i: int) -> dict[str, str]:
        if self._rows:
            return self._rows[i]
        if self._texts:
            return {"caption": self._caption(self.texts / self._texts[i])}
        return self._captions[os.path.dirname(self.names[i])]

    def _checked_captions(self) -> str:
        """The hash of all captions. Raises UserError for one that cannot be learned."""
        digest = hashlib.sha256()
        every = map(self._captions_of, range(len(self))) if not self._captions else ()
        for captions in every or self._captions.values():
            for kind, caption in captions.items():
                digest.update(f"{kind}\0{caption}\0".encode("utf-8", "surrogatepass"))
            digest.update(b"\0")
        return digest.hexdigest()

    def _caption(self, path: Path) -> str:
        where = shown(str(path))
        try:
            caption = _read(path, LONGEST_CAPTION).decode("utf-8-sig").strip()
        except FileNotFoundError:
            raise UserError(f"{where}: went away; put it back") from None
        except UnicodeDecodeError:
            raise UserError(f"{where}: not UTF-8; save it again as UTF-8") from None
        except ValueError:
            raise UserError(f"{where}: over {LONGEST_CAPTION:,} bytes; shorten it") from None
        if not caption:
            raise UserError(f"{where}: empty; write what the image shows in one line")
        if "\n" in caption:
            raise UserError(f"{where}: {caption.count(chr(10)) + 1} lines; a caption is one line")
        return caption


@cache  # stages and encoders build a source again
def _say_once(line: str) -> None:
    print(line, file=sys.stderr)


def _read(path: Path, most: int) -> bytes:
    """Raises ValueError above `most` bytes, which are then not read."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size > most:
            raise ValueError("too large")
        return file.read()
