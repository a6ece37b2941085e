"""Splits of a data set that lie in folders of their own, such as train/, val/ and test/."""

import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePath
from typing import Literal, NamedTuple

from flowbrush.errors import UserError

SplitName = Literal["train", "validation", "test", "all"]
_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
_FOLDER = re.compile(rf"({'|'.join(_NAMES)})([-_ ]?(set|data|images|\d{{4}}))?", re.IGNORECASE)


class Splits(NamedTuple):
    """chosen: the folder of the split that is read; empty where there are none. others: how many
    images each of the other splits' folders has, by its path."""

    chosen: str
    others: dict[str, int]


def splits(images: Iterable[str], chosen: SplitName, where: str) -> Splits:
    """The folders of splits among the paths of images, below at most one folder that wraps them.

    They are splits where there are no other folders beside them, and no images.
    Raises UserError where there are some but not the chosen one.
    """
    folders = Counter(map(os.path.dirname, images))
    paths = {PurePath(folder).parts: count for folder, count in folders.items()}
    for depth in range(min(map(len, paths), default=0) if chosen != "all" else 0):
        heads = {path[: depth + 1] for path in paths}
        kinds = {os.sep.join(head): _kind(head[-1]) for head in heads}
        if all(kinds.values()) and (chosen in kinds.values() or len(kinds) > 1):
            return _chosen(kinds, paths, chosen, where)
        if len(heads) > 1:
            break
    if chosen not in ("all", "train"):
        raise UserError(f"source.split: {where} has no folder of the split {chosen}; leave it out")
    return Splits("", {})


def _chosen(
    kinds: dict[str, str], paths: dict[tuple[str, ...], int], chosen: SplitName, where: str
) -> Splits:
    mine = sorted(folder for folder, kind in kinds.items() if kind == chosen)
    names = ", ".join(f"{folder}/" for folder in sorted(kinds))
    if len(mine) != 1:
        there = "two folders" if mine else "no folder"
        raise UserError(
            f"source.split: {where} has {there} of the split {chosen} among {names}; choose with "
            "--source.split train, validation, test, or all of them"
        )
    depth = mine[0].count(os.sep) + 1
    counts = Counter[str]()
    for path, count in paths.items():
        counts[os.sep.join(path[:depth])] += count
    return Splits(mine[0], {f: n for f, n in sorted(counts.items()) if f != mine[0]})


def kind_of(folder: str) -> str:
    """The split that a folder's last name stands for."""
    return _kind(os.path.basename(folder))


def _kind(name: str) -> str:
    found = _FOLDER.fullmatch(name)
    return _NAMES[found[1].lower()] if found else ""
