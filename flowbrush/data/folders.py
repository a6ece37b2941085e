"""One's own pictures: `images/` beside `captions/`, or beside `NAME.txt` each, or a folder a class.

Captions are one line of UTF-8 each. Names and captions are checked at the start; pictures are read
when they are asked for, so memory holds the list of names and nothing else.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flowbrush.data.names import read_names
from flowbrush.data.pictures import ENDINGS, decode
from flowbrush.data.source import Example, UnreadablePicture
from flowbrush.errors import UserError

Layout = Literal["auto", "pairs", "beside", "classes"]


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
        self.root, self.size = root, size
        self.layout = _layout(root) if config.layout == "auto" else config.layout
        if config.names:
            self.layout = "classes"
        self.pictures = root / "images" if self.layout == "pairs" else root
        self.names = sorted(_files(str(self.pictures), ENDINGS))
        if not self.names:
            raise UserError(f"{self.pictures}: no pictures in it ({', '.join(ENDINGS)})")
        if self.layout == "classes":
            folders = sorted({self._class_of(name) for name in self.names})
            self._captions = self._named(folders, config.names)
            self._classes = tuple(next(iter(self._captions[f].values())) for f in folders)
        else:
            self._classes = ()
            self._check_captions()

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> Example:
        path = self.pictures / self.names[i]
        try:
            encoded = path.read_bytes()
        except OSError as error:
            raise UnreadablePicture(str(path), error.strerror or "unreadable") from None
        picture = decode(encoded, self.size, str(path))
        return Example(picture, self._captions_of(self.names[i]), truth=self.names[i])

    @property
    def classes(self) -> tuple[str, ...]:
        """In the order of the folders' names, which is ImageNet's; where they have names, these."""
        return self._classes

    @property
    def attribution(self) -> str:
        return ""

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
        folder = self.root / "captions" if self.layout == "pairs" else self.root
        return folder / (os.path.splitext(name)[0] + ".txt")

    def _caption(self, name: str) -> str:
        path = self._caption_path(name)
        try:
            caption = path.read_text("utf-8-sig").strip()
        except FileNotFoundError:
            raise UserError(
                f"{path}: missing, the caption of {self.pictures / name}; write it, or move the "
                "picture away"
            ) from None
        except UnicodeDecodeError:
            raise UserError(f"{path}: not UTF-8; save it again as UTF-8") from None
        if not caption:
            raise UserError(f"{path}: empty; write what the picture shows in one line")
        if "\n" in caption:
            raise UserError(f"{path}: {caption.count(chr(10)) + 1} lines; a caption is one line")
        return caption

    def _check_captions(self) -> None:
        stems = {os.path.splitext(name)[0] for name in self.names}
        folder = self.root / "captions" if self.layout == "pairs" else self.root
        for name in _files(str(folder), (".txt",)):
            if os.path.splitext(name)[0] not in stems:
                raise UserError(
                    f"{folder / name}: a caption without its picture in {self.pictures}; add it, "
                    "or move the caption away"
                )
        for name in self.names:
            self._caption(name)


def _layout(root: Path) -> Layout:
    if (root / "images").is_dir() and (root / "captions").is_dir():
        return "pairs"
    if any(True for _ in _files(str(root), (".txt",))):
        return "beside"
    subfolders = [entry.name for entry in os.scandir(root) if entry.is_dir()]
    if subfolders == ["images"]:
        raise UserError(f"{root / 'captions'}: missing beside images/; write the captions there")
    return "classes" if any(not name.startswith(".") for name in subfolders) else "beside"


def _files(root: str, endings: tuple[str, ...]) -> Iterator[str]:
    """Paths below `root`, from it, of the files with one of the endings; hidden ones left out."""
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        inside = os.path.relpath(folder, root)
        for name in names:
            if name.lower().endswith(endings) and not name.startswith("."):
                yield name if inside == "." else os.path.join(inside, name)
