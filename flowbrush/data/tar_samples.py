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
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from flowbrush.data.file_kinds import is_leftover, unread
from flowbrush.data.pictures import ENDINGS
from flowbrush.data.tars import Member

COMMON = (".jpg", ".jpeg", ".png", ".webp")  # taken before others, of several images of a sample
LONGEST_ENDING = 8  # characters, of what can be part of a sample
MAX_WAITING = 2_000_000  # files without their other half, of one tar

# Why samples are left out.
NO_PICTURE, NO_CAPTION = "without a picture", "without a caption"
TWICE, SECOND = "twice in the tar", "further images of a sample"
APART = "with image and caption in different folders"
# What is passed over besides.
LEFTOVER, LATE = "hidden or system files", "captions apart from their sample"

Parts = dict[str, Member]  # by "picture", "text", "json", "unread"
Key = tuple[tuple[str, ...], str]  # the folders, and the name without its ending


class _File(NamedTuple):
    """A member as its name describes it: folders/stem + middle + ending."""

    folders: tuple[str, ...]
    stem: str
    middle: str
    ending: str
    part: str
    member: Member


@lru_cache(1024)
def _part_of(ending: str) -> str:
    """Empty for what is no part of a sample."""
    if ending in (".txt", ".json"):
        return {".txt": "text", ".json": "json"}[ending]
    if ending in ENDINGS:
        return "picture"
    return "unread" if unread("x" + ending) else ""


def samples(members: Iterable[Member], told: Counter[str]) -> Iterator[Parts]:
    """Of each sample its parts: a picture, and a text or a json. What makes none is counted."""
    waiting = _Waiting(told)
    files = _files(members, told)
    for (folders, stem), run in groupby(files, key=itemgetter(0, 1)):
        for middle, parts in _by_middle(list(run), told).items():
            key = folders, stem + middle
            if _is_whole(parts):
                waiting.whole.add(hash(key))
                yield parts
            elif parts:
                waiting.add(key, parts)
    yield from waiting.joined()


def _files(members: Iterable[Member], told: Counter[str]) -> Iterator[_File]:
    folder, folders, leftover = "", _folders(""), False
    for member in members:
        inside, _, base = member.name.rpartition("/")
        if inside != folder:
            folder, folders = inside, _folders(inside)
            leftover = any(map(is_leftover, folders))
        stem, dot, rest = base.partition(".")
        if leftover or is_leftover(base) or (stem[:2] == "__" == stem[-2:]):
            told[LEFTOVER] += 1  # the last one as WebDataset's __meta__.json
            continue
        middle, dot, ending = (dot + rest).rpartition(".")
        ending = (dot + ending).lower()
        if len(ending) > LONGEST_ENDING:
            continue
        yield _File(folders, stem, middle, ending, _part_of(ending), member)


def _folders(path: str) -> tuple[str, ...]:
    return tuple(name for name in path.split("/") if name not in ("", "."))


def _by_middle(run: list[_File], told: Counter[str]) -> dict[str, Parts]:
    """The samples, or halves, among files of one stem that follow each other.

    Of each part the first is taken; further ones are counted.
    """
    made: dict[str, Parts] = {}
    again: dict[str, Counter[str]] = {}
    for file in sorted(run, key=_is_rare) if len(run) > 1 else run:
        if not file.part:
            continue
        parts = made.setdefault(file.middle, {})
        if (first := parts.setdefault(file.part, file.member)) is not file.member:
            other = file.part == "picture" and first.name != file.member.name
            again.setdefault(file.middle, Counter())[SECOND if other else file.part] += 1
    for counts in again.values():
        told[SECOND] += counts.pop(SECOND, 0)
        told[TWICE] += max(counts.values(), default=0)
    if len(made) > 1 and "picture" in made.get("", {}):
        for middle in [middle for middle in made if middle and not _is_whole(made[middle])]:
            told[SECOND] += "picture" in made.pop(middle)  # a.mask.png beside a.png
    return made


def _is_rare(file: _File) -> bool:
    return file.part == "picture" and file.ending not in COMMON


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
