"""One's own pictures: `images/` beside `captions/`, or beside `NAME.txt` each, or a folder a class.

Captions are one line of UTF-8 each. Names and captions are checked at the start; pictures are read
when they are asked for, so memory holds the list of names and nothing else. A link that leads out
of the folder is not followed: a folder from elsewhere must not show what else lies on this machine.
"""

import copy
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float32

from flowbrush.data.names import read_names
from flowbrush.data.pictures import ENDINGS, LARGEST_PICTURE, TOO_LARGE, aspect, decode
from flowbrush.data.source import (
    LONGEST_CAPTION,
    Example,
    Origin,
    Size,
    UnreadablePicture,
    listing_sha256,
)
from flowbrush.errors import UserError

Layout = Literal["auto", "pairs", "beside", "classes"]
TOGETHER = 4096  # pictures whose headers are read between two words of it

# Why files are left out.
LEADS_OUT, FOLDER_LINK = "links out of the folder", "links to folders"
NO_FILE = "neither files nor folders"


@dataclass(frozen=True, kw_only=True)
class FolderConfig:
    """Where the pictures are. Layouts: `pairs` = images/ and captions/, `beside` = NAME.jpg and
    NAME.txt, `classes` = a folder a class, whose name is the caption; `auto` looks.

    names: of the folders of `classes`, as ImageNet's are called n01440764: FOLDER <tab> English
    <tab> 日本語, or LOC_synset_mapping.txt. A model of labels then takes `--batch.captions en 1`.
    """

    path: Path = Path("pictures")
    layout: Layout = "auto"
    names: Path | None = None

    def __post_init__(self) -> None:
        if self.names and self.layout in ("pairs", "beside"):
            raise UserError(
                f"source.names: of classes, but the layout is {self.layout}; leave one of them out"
            )

    def build(self, size: int) -> "Folder":
        """Raises UserError for an empty folder, missing partner, empty or unreadable caption."""
        return Folder(self, size)


class Folder:
    """A Source over files; `truth` is the picture's path from the folder."""

    def __init__(self, config: FolderConfig, size: int) -> None:
        root = config.path
        if not root.is_dir():
            raise UserError(f"{root}: no such folder; give one with --source.path")
        self.root = root
        self.size: Size = size
        self.layout = _layout(root) if config.layout == "auto" else config.layout
        if config.names:
            self.layout = "classes"
        self.pictures = root / "images" if self.layout == "pairs" else root
        found = _files(self.pictures, ENDINGS, root)
        captions = _Files() if self.layout == "classes" else _files(self.texts, (".txt",), root)
        left = found.left | captions.left
        self.names = sorted(name for name in found.names if _stem(name) not in left)
        self.left_out = Counter(left.values())
        told = ", ".join(f"{count:,} {cause}" for cause, count in self.left_out.items())
        if not self.names:
            others = f"; left out: {told}" if told else ""
            raise UserError(f"{self.pictures}: no pictures in it ({', '.join(ENDINGS)}){others}")
        if told:
            print(f"{root}: {len(self.names):,} pictures; left out: {told}", file=sys.stderr)
        if self.layout == "classes":
            folders = sorted({self._class_of(name) for name in self.names})
            self._captions = self._named(folders, config.names)
            self._classes = tuple(next(iter(self._captions[f].values())) for f in folders)
        else:
            self._classes = ()
            self._check_captions(captions.names, {*map(_stem, found.names), *left})

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> Example:
        path = self.pictures / self.names[i]
        try:
            encoded = _read(path, LARGEST_PICTURE)
        except OSError as error:
            raise UnreadablePicture(str(path), error.strerror or "unreadable") from None
        except ValueError:
            raise UnreadablePicture(str(path), TOO_LARGE) from None
        picture = decode(encoded, self.size, str(path))
        return Example(picture, self._captions_of(self.names[i]), truth=self.names[i])

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

    @property
    def texts(self) -> Path:
        """The folder of the captions."""
        return self.root / "captions" if self.layout == "pairs" else self.root

    def origin(self) -> Origin:
        """By the names and sizes of all files."""
        files = [str(self.pictures / name) for name in self.names]
        if self.layout != "classes":
            files += [str(self._caption_path(name)) for name in self.names]
        sizes = ((os.path.relpath(file, self.root), os.stat(file).st_size) for file in files)  # noqa: PTH116
        return Origin(listing_sha256(sizes), self.left_out)

    def _class_of(self, name: str) -> str:
        folder = os.path.dirname(name)
        if not folder:
            raise UserError(
                f"{self.root / name}: a picture outside the class folders; move it into one"
            )
        return folder.replace(os.sep, " ")

    def _named(self, folders: list[str], file: Path | None) -> dict[str, dict[str, str]]:
        """The captions of each folder."""
        if file is None:
            return {folder: {"caption": folder} for folder in folders}
        names = read_names(file)
        if missing := next((folder for folder in folders if folder not in names), None):
            raise UserError(
                f"{file}: no name for the folder {missing} of {self.root}; write a line for it"
            )
        return {folder: names[folder] for folder in folders}

    def _captions_of(self, name: str) -> dict[str, str]:
        if self.layout == "classes":
            return self._captions[self._class_of(name)]
        return {"caption": self._caption(name)}

    def _caption_path(self, name: str) -> Path:
        return self.texts / f"{_stem(name)}.txt"

    def _caption(self, name: str) -> str:
        path = self._caption_path(name)
        try:
            caption = _read(path, LONGEST_CAPTION).decode("utf-8-sig").strip()
        except FileNotFoundError:
            raise UserError(
                f"{path}: missing, the caption of {self.pictures / name}; write it, or move the "
                "picture away"
            ) from None
        except UnicodeDecodeError:
            raise UserError(f"{path}: not UTF-8; save it again as UTF-8") from None
        except ValueError:
            raise UserError(f"{path}: over {LONGEST_CAPTION:,} bytes; shorten it") from None
        if not caption:
            raise UserError(f"{path}: empty; write what the picture shows in one line")
        if "\n" in caption:
            raise UserError(f"{path}: {caption.count(chr(10)) + 1} lines; a caption is one line")
        return caption

    def _check_captions(self, captions: Iterable[str], stems: set[str]) -> None:
        for name in captions:
            if _stem(name) not in stems:
                raise UserError(
                    f"{self.texts / name}: a caption without its picture in {self.pictures}; "
                    "add it, or move the caption away"
                )
        for name in self.names:
            self._caption(name)


def _layout(root: Path) -> Layout:
    if (root / "images").is_dir() and (root / "captions").is_dir():
        return "pairs"
    texts = _files(root, (".txt",), root)
    if texts.names or texts.left:
        return "beside"
    subfolders = [entry.name for entry in os.scandir(root) if entry.is_dir()]
    if subfolders == ["images"]:
        raise UserError(f"{root / 'captions'}: missing beside images/; write the captions there")
    return "classes" if any(not name.startswith(".") for name in subfolders) else "beside"


@dataclass
class _Files:
    """names: paths from the folder. left: what is left out, by its path without ending, and why."""

    names: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)


def _files(folder: Path, endings: tuple[str, ...], root: Path) -> _Files:
    """The files below `folder` with one of the endings; hidden ones are passed over.

    Raises UserError where the folder itself lies outside of `root`.
    """
    found, inside = _Files(), os.path.realpath(root)
    if os.path.commonpath([inside, os.path.realpath(folder)]) != inside:
        raise UserError(f"{folder}: a link out of {root}; move what it leads to into its place")
    for name, entry in _entries(str(folder)):
        link = entry.is_symlink()
        place = Path(entry.path) if link else entry  # a path takes a ring of links for no file
        if link and place.is_dir():
            found.left[name + os.sep] = FOLDER_LINK
        elif entry.name.lower().endswith(endings):
            if link and os.path.commonpath([inside, os.path.realpath(entry.path)]) != inside:
                found.left[_stem(name)] = LEADS_OUT
            elif not place.is_file():
                found.left[_stem(name)] = NO_FILE
            else:
                found.names.append(name)
    return found


def _entries(root: str) -> "Iterator[tuple[str, os.DirEntry[str]]]":
    """Everything below `root` but hidden files and folders, with its path from there."""
    waiting = [""]
    while waiting:
        below = waiting.pop()
        with os.scandir(os.path.join(root, below)) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                name = os.path.join(below, entry.name)
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(name)
                else:
                    yield name, entry


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]


def _read(path: Path, most: int) -> bytes:
    """Raises ValueError above `most` bytes, which are then not read."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size > most:
            raise ValueError("too large")
        return file.read()
