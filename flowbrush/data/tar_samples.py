"""Which members of a tar make a sample, and why the others make none.

A sample is what WebDataset takes for one: files of one folder and one name, which ends at the first
dot, that follow each other. Where a name has no plain endings, `a.1.jpg` and `a.1.txt` are a sample
of their own. An image without a caption, or a caption without an image, waits for its other half
until the end of the tar: a tar of all images and then all captions gives its samples too, and so
does one of `images/` and `captions/`. Where it is not certain which belong together, none is taken.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby

from flowbrush.data.file_kinds import is_leftover, unread
from flowbrush.data.pictures import ENDINGS
from flowbrush.data.tars import Member

COMMON = (".jpg", ".jpeg", ".png", ".webp")  # taken before others, of several images of a sample
MAX_WAITING = 2_000_000  # files without their other half, of one tar

# Why samples are left out.
NO_PICTURE, NO_CAPTION = "without a picture", "without a caption"
TWICE, SECOND = "twice in the tar", "further images of a sample"
APART = "with image and caption in different folders"
# What is passed over besides.
LEFTOVER, LATE = "hidden or system files", "captions apart from their sample"

Parts = dict[str, Member]  # by "picture", "text", "json", "unread"
Key = tuple[tuple[str, ...], str]  # the folders, and the name without its ending


@dataclass(frozen=True)
class _File:
    """A member as its name describes it: folders/stem + middle + ending."""

    folders: tuple[str, ...]
    stem: str
    middle: str
    ending: str
    member: Member

    @property
    def part(self) -> str:
        """Empty for what is no part of a sample."""
        if self.ending in (".txt", ".json"):
            return {".txt": "text", ".json": "json"}[self.ending]
        if self.ending in ENDINGS:
            return "picture"
        return "unread" if unread("x" + self.ending) else ""


def samples(members: Iterable[Member], told: Counter[str]) -> Iterator[Parts]:
    """Of each sample its parts: a picture, and a text or a json. What makes none is counted."""
    waiting = _Waiting(told)
    files = _files(members, told)
    for (folders, stem), run in groupby(files, key=lambda file: (file.folders, file.stem)):
        for middle, parts in _by_middle(list(run), told).items():
            key = folders, stem + middle
            if _is_whole(parts):
                waiting.whole.add(hash(key))
                yield parts
            elif parts:
                waiting.add(key, parts)
    yield from waiting.joined()


def _files(members: Iterable[Member], told: Counter[str]) -> Iterator[_File]:
    for member in members:
        names = [name for name in member.name.split("/") if name not in ("", ".")]
        if not names:
            continue
        base = names[-1]
        if any(map(is_leftover, names)) or (base.startswith("__") and "__." in base):
            told[LEFTOVER] += 1  # the latter as WebDataset's __meta__.json
            continue
        stem, dot, rest = base.partition(".")
        middle, last_dot, ending = (dot + rest).rpartition(".")
        yield _File(tuple(names[:-1]), stem, middle, (last_dot + ending).lower(), member)


def _by_middle(run: list[_File], told: Counter[str]) -> dict[str, Parts]:
    """The samples, or halves, among files of one stem that follow each other."""
    found: dict[str, list[_File]] = {}
    for file in run:
        if file.part:
            found.setdefault(file.middle, []).append(file)
    made = {middle: _parts(files, told) for middle, files in found.items()}
    if "picture" not in made.get("", {}):
        return made
    for middle in [middle for middle, parts in made.items() if middle and not _is_whole(parts)]:
        told[SECOND] += "picture" in made.pop(middle)  # a.mask.png beside a.png
    return made


def _parts(files: list[_File], told: Counter[str]) -> Parts:
    """The first of each part; further ones are counted."""
    parts, again = Parts(), Counter[str]()
    for file in sorted(
        files, key=lambda file: file.part == "picture" and file.ending not in COMMON
    ):
        if file.part in parts:
            same = parts[file.part].name == file.member.name
            again["second" if file.part == "picture" and not same else file.part] += 1
        parts.setdefault(file.part, file.member)
    told[SECOND] += again.pop("second", 0)
    told[TWICE] += max(again.values(), default=0)
    return parts


def _is_whole(parts: Parts) -> bool:
    return "picture" in parts and ("text" in parts or "json" in parts)


@dataclass
class _Waiting:
    """Halves of samples, until the end of the tar. whole: hashes of the keys that were yielded."""

    told: Counter[str]
    whole: set[int] = field(default_factory=set)
    halves: dict[Key, Parts] = field(default_factory=dict)
    uncertain: set[Key] = field(default_factory=set)

    def add(self, key: Key, parts: Parts) -> None:
        if hash(key) in self.whole:
            self.told[TWICE if "picture" in parts else LATE] += 1
            return
        key = tuple(map(_composed, key[0])), _composed(key[1])
        if key not in self.halves and len(self.halves) >= MAX_WAITING:
            self.told[_cause(parts)] += 1
            return
        there = self.halves.setdefault(key, {})
        if there.keys() & parts.keys():
            self.uncertain.add(key)
            self.told[TWICE] += 1
        else:
            there |= parts

    def joined(self) -> Iterator[Parts]:
        """Those that found their other half."""
        for key in self.uncertain:
            self.told[TWICE] += 1
            del self.halves[key]
        for key, parts in list(self.halves.items()):
            if hash(key) in self.whole:
                self.told[TWICE if "picture" in parts else LATE] += 1
                del self.halves[key]
            elif "picture" in parts and not _is_whole(parts) and key in self.halves:
                parts |= self._captions_of(key)
        alone = Counter(name for (_, name), parts in self.halves.items() if not _images(parts))
        apart = Counter[str]()
        for (_, name), parts in self.halves.items():
            if _is_whole(parts):
                yield parts
            elif "picture" in parts and apart[name] < alone[name]:
                apart[name] += 1
                self.told[APART] += 1
            elif _images(parts):
                self.told[_cause(parts)] += 1
        self.told[NO_PICTURE] += (alone - apart).total()
        self.halves.clear()

    def _captions_of(self, key: Key) -> Parts:
        """Of `images/a`, those of `captions/a`."""
        folders, name = key
        for place in (i for i, folder in enumerate(folders) if folder == "images"):
            other = (*folders[:place], "captions", *folders[place + 1 :]), name
            if other in self.halves and not _images(self.halves[other]):
                return self.halves.pop(other)
        return {}


def _images(parts: Parts) -> bool:
    return "picture" in parts or "unread" in parts


def _cause(parts: Parts) -> str:
    """Why a half that found no other is left out."""
    if "picture" in parts:
        return NO_CAPTION
    return unread(parts["unread"].name) if "unread" in parts else NO_PICTURE


def _composed(name: str) -> str:
    """macOS writes é as two characters, most others as one."""
    return unicodedata.normalize("NFC", name)
