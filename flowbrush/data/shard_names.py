"""What a path of shards stands for: `shards/{00000..00099}.tar`, a folder, a pattern, a list."""

import glob
import re
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

from flowbrush.data.remote import RemoteFiles, is_remote
from flowbrush.data.tar_index import ENDING
from flowbrush.errors import UserError

MOST_SHARDS = 10_000_000
PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst")


def shard_names(path: str, files: RemoteFiles) -> list[str]:
    """The shards that a path stands for, in order.

    Raises UserError where there are none, or where there is the index of one that is not there.
    """
    names: list[str] = []
    for pattern in (part for whole in _split(path) for part in _unfolded(whole)):
        if is_remote(pattern):
            pattern = pattern + "*.tar" if pattern.endswith("/") else pattern
            found = files.found(pattern) if "*" in pattern else [pattern]
        else:
            place, indexes = Path(pattern).expanduser(), list[str]()
            if place.is_dir():
                found = sorted(map(str, place.glob("*.tar")))
                indexes = list(map(str, place.glob("*.tar" + ENDING)))
            elif not place.exists() and glob.has_magic(pattern):
                found = sorted(glob.glob(str(place)))  # noqa: PTH207, the pattern may be absolute
                indexes = glob.glob(str(place) + ENDING)  # noqa: PTH207
            else:
                found = [str(place)]
            if gone := {index.removesuffix(ENDING) for index in indexes} - set(found):
                raise UserError(
                    f"{min(gone)}: gone, but its index is there; put it back, or delete the index "
                    "to do without it"
                )
        found = [name for name in found if not Path(name).name.startswith("._")]  # of macOS
        if not found:
            if packed := packed_shards(pattern):
                raise UserError(
                    f"{packed[0]}: packed; unpack it, since only a plain tar has random access"
                )
            raise UserError(f"{pattern}: no shards there (.tar); give others with --source.path")
        names += found
    if not names:
        raise UserError("source.path: empty; name shards, such as shards/{00000..00099}.tar")
    return names


def packed_shards(path: str) -> list[Path]:
    """Compressed tars in the folders of a path that do not lie there unpacked as well."""
    folders = [Path(part).expanduser() for part in _split(path) if not is_remote(part)]
    return [
        file
        for folder in folders
        if folder.is_dir()
        for file in sorted(folder.iterdir())
        for ending in PACKED
        if file.name.endswith(ending)
        and not file.with_name(file.name.removesuffix(ending) + ".tar").exists()
    ]


def _split(path: str) -> list[str]:
    """At the commas that are not within braces."""
    return [part.strip() for part in re.split(r",(?![^{}]*\})", path) if part.strip()]


def _unfolded(pattern: str) -> Iterator[str]:
    """`{000..012}` and `{a,b}` in every combination. Raises UserError for too many."""
    pieces = re.split(r"(\{[^{}]*\})", pattern)
    choices: list[Sequence[str]] = []
    total = 1
    for piece in pieces:
        if found := re.fullmatch(r"\{(\d+)\.\.(\d+)\}", piece):
            first, last, width = int(found[1]), int(found[2]), len(found[1])
            total *= max(last - first + 1, 0)
            if first > last or total > MOST_SHARDS:
                raise UserError(
                    f"source.path: {piece} is from {first} to {last}; count up, and name at most "
                    f"{MOST_SHARDS:,} shards"
                )
            choices.append([f"{number:0{width}d}" for number in range(first, last + 1)])
        else:
            braced = piece.startswith("{") and "," in piece
            choices.append(piece[1:-1].split(",") if braced else [piece])
    return map("".join, product(*choices))
