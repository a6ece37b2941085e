"""What lies in a folder, by kinds of files. No file is opened, no link followed out of it."""

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from flowbrush.data.file_kinds import CAPTIONS, ending, is_leftover, unread
from flowbrush.data.pictures import ENDINGS
from flowbrush.errors import UserError

TABLE, TABLES = "metadata", (".jsonl", ".csv", ".parquet")
# Endings of files that may hold captions, in a form that nothing here reads.
OTHERS = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".cap", ".captions", ".tags",
          ".prompt", ".prompts")  # fmt: skip
# Files that say something of a data set, but nothing of one image.
ABOUT = re.compile(
    r"(readme|licen[cs]e|copying|notice|citation|changelog|attribution|credits|dataset_infos?"
    r"|class(es)?|class_?names|names|synsets?|wnids|words|loc_\w+|requirements)([._-].*)?",
    re.IGNORECASE,
)
MASKS = ("-masklabel", "-condlabel")  # OneTrainer's, beside the images

# Why images are left out.
LEADS_OUT, FOLDER_LINK = "links out of the folder", "links to folders"
NO_FILE, MASK = "neither files nor folders", "masks of other images"


@dataclass
class Listing:
    """Paths from the folder, by kind of file, in no order.

    images: that can be read. texts: with an ending of captions. tables: of metadata. others: that
    may hold captions and are not read. about: of the set as a whole. left: what is left out of the
    images and texts, and why. passed: how many other files there are, by a word for them.
    """

    images: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    about: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    passed: Counter[str] = field(default_factory=Counter)

    def add(self, name: str, file: str) -> None:
        """One more file: its path from the folder, and its own name."""
        stem, kind = os.path.splitext(file)[0], ending(file)
        if kind in ENDINGS:
            if stem.endswith(MASKS):
                self.left[name] = MASK
            else:
                self.images.append(name)
        elif cause := unread(file):
            self.left[name] = cause
        elif kind in TABLES and stem.lower() == TABLE:
            self.tables.append(name)
        elif kind in CAPTIONS + OTHERS:
            kinds = self.texts if kind in CAPTIONS else self.others
            (self.about if ABOUT.fullmatch(file) else kinds).append(name)
        else:
            self.passed[kind or file] += 1

    def without(self, folders: Iterable[str]) -> "Listing":
        """What lies in none of the folders."""
        inside = tuple(folder + os.sep for folder in folders)

        def kept(names: Iterable[str]) -> list[str]:
            return [name for name in names if not name.startswith(inside)]

        return Listing(
            images=kept(self.images),
            texts=kept(self.texts),
            tables=kept(self.tables),
            others=kept(self.others),
            about=kept(self.about),
            left={name: self.left[name] for name in kept(self.left)},
            passed=self.passed,
        )


def listed(root: Path, ignore: Sequence[str], follow: Collection[str]) -> Listing:
    """Everything below `root` but what is hidden, ignored, or was left by a system.

    ignore: names or patterns, of files and folders or their paths. follow: folders in `root` that
    may be links. Raises UserError where one of these leads out of it.
    """
    found, inside = Listing(), os.path.realpath(root)
    for name, entry in _entries(str(root), ignore, follow, found.passed):
        link = entry.is_symlink()
        place = Path(entry.path) if link else entry  # a path takes a ring of links for no file
        wanted = ending(entry.name) in ENDINGS + CAPTIONS
        if link and place.is_dir():
            found.left[name] = FOLDER_LINK
        elif wanted and link and not _within(inside, entry.path):
            found.left[name] = LEADS_OUT
        elif place.is_file():
            if not link or _within(inside, entry.path):
                found.add(name, entry.name)
        elif wanted:
            found.left[name] = NO_FILE
    return found


def _entries(
    root: str, ignore: Sequence[str], follow: Collection[str], passed: Counter[str]
) -> "Iterator[tuple[str, os.DirEntry[str]]]":
    """Everything but folders, with its path from `root`."""
    waiting = [""]
    while waiting:
        below = waiting.pop()
        with os.scandir(os.path.join(root, below)) as entries:
            for entry in entries:
                name = os.path.join(below, entry.name)
                if is_leftover(entry.name):
                    passed[entry.name] += not entry.name.startswith(".")
                elif any(fnmatchcase(n, one) for one in ignore for n in (entry.name, name)):
                    passed["ignored"] += 1
                elif entry.is_dir(follow_symlinks=name in follow):
                    if name in follow and not _within(os.path.realpath(root), entry.path):
                        raise UserError(
                            f"{entry.path}: a link out of {root}; move what it leads to into its "
                            "place"
                        )
                    waiting.append(name)
                else:
                    yield name, entry


def _within(folder: str, path: str) -> bool:
    return os.path.commonpath([folder, os.path.realpath(path)]) == folder
