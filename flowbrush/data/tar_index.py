"""Where the samples of a tar in WebDataset's format lie, found once.

The index is a safetensors file with one row a sample, in the order of the tar:

    picture.at U64, picture.size U32    in bytes from the tar's beginning
    text.at, text.size                  of the caption in `.txt`; size 0 = none
    json.at, json.size                  of the `.json`; size 0 = none
    number.NAME F64                     what the .json calls NAME, where it is a number; else NaN
    written.NAME U8                     1 where what it calls NAME is a text that is not blank
    licence U8                          place in the list of licences, if the .json names any

36 bytes a sample, and 8 for each number and 1 for each text of the .json. It is mapped into memory,
so what is held are the pages that were asked for, once for all processes of a machine.
"""

import hashlib
import json
import math
import mmap
import os
from array import array
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from flowbrush.data.licences import NONE_TOLD, OTHERS, licence, licence_columns
from flowbrush.data.pictures import LARGEST_PICTURE
from flowbrush.data.source import LONGEST_CAPTION
from flowbrush.data.tar_samples import NO_CAPTION, Parts, samples
from flowbrush.data.tars import CUT, Member, Window, members
from flowbrush.errors import UserError
from flowbrush.whole_files import write_whole

VERSION = 3  # of the rules too by which members are taken for samples
LONGEST_JSON = 1_000_000  # bytes
MOST_FIELDS = 100  # of the .json files of one shard, that are taken down
MOST_LICENCES = 200  # of one shard, that are told apart
PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zX", b"\x28\xb5\x2f\xfd")  # gzip, bzip2, xz, zstd
ENDING = ".index.safetensors"
PARTS = ("picture", "text", "json")
DTYPES = {"U64": np.uint64, "U32": np.uint32, "U8": np.uint8, "F64": np.float64}

# Why samples are left out.
BAD_TEXT, BAD_JSON = "caption too long or not UTF-8", "unreadable .json"
TOO_LARGE = f"picture empty or over {LARGEST_PICTURE // 10**6} MB"


@dataclass
class _Rows:
    """The index of one shard while it is made."""

    window: Window
    told: Counter[str] = field(default_factory=Counter)
    at: dict[str, array] = field(default_factory=lambda: {part: array("Q") for part in PARTS})
    size: dict[str, array] = field(default_factory=lambda: {part: array("I") for part in PARTS})
    numbers: dict[str, array] = field(default_factory=dict)
    written: dict[str, array] = field(default_factory=dict)
    licences: dict[str, int] = field(default_factory=lambda: {NONE_TOLD: 0, OTHERS: 1})
    licence: array = field(default_factory=lambda: array("B"))  # place in the above

    def add(self, parts: Parts) -> None:
        """One sample, unless it is left out."""
        if not 0 < parts["picture"].size <= LARGEST_PICTURE:
            self.told[TOO_LARGE] += 1
            return
        reason, fields = NO_CAPTION, {}
        if "text" in parts:
            try:
                if not caption(self._read(parts["text"], LONGEST_CAPTION)):
                    del parts["text"]
            except ValueError:
                reason = BAD_TEXT
                del parts["text"]
        if "json" in parts:
            try:
                fields = read_json(self._read(parts["json"], LONGEST_JSON))
            except ValueError:
                reason = BAD_JSON
                del parts["json"]
        texts = {name for name, value in fields.items() if is_caption(value)}
        if "text" not in parts and not texts:
            self.told[reason] += 1
            return
        row = len(self.at["picture"])
        for part in PARTS:
            member = parts.get(part, Member("", 0, 0))
            self.at[part].append(member.at)
            self.size[part].append(member.size)
        for name, value in fields.items():
            if not math.isnan(number := _number(value)):
                _put(self.numbers, "d", name, row, math.nan, number)
        for name in texts:
            _put(self.written, "B", name, row, 0, 1)
        told = next((licence(fields[name]) for name in licence_columns(fields)), NONE_TOLD)
        if len(self.licences) < MOST_LICENCES:
            self.licences.setdefault(told, len(self.licences))
        self.licence.append(self.licences.get(told, self.licences[OTHERS]))

    def _read(self, member: Member, most: int) -> bytes:
        if member.size > most:
            raise ValueError("too long")
        return self.window.read(member.at, member.size)

    def arrays(self) -> dict[str, np.ndarray]:
        found = {}
        for part in PARTS:
            found[f"{part}.at"] = np.array(self.at[part], np.uint64)
            found[f"{part}.size"] = np.array(self.size[part], np.uint32)
        count = len(self.at["picture"])
        for kind, columns, empty in (
            ("number", self.numbers, math.nan),
            ("written", self.written, 0),
        ):
            for name, column in columns.items():
                column.extend([empty] * (count - len(column)))
                found[f"{kind}.{name}"] = np.array(column)
        if any(self.licence):
            found["licence"] = np.array(self.licence)
        return found


def _put(columns: dict[str, array], code: str, name: str, row: int, empty: Any, value: Any) -> None:
    if name not in columns:
        if len(columns) >= MOST_FIELDS or len(name) > 100:
            return
        columns[name] = array(code)
    columns[name].extend([empty] * (row - len(columns[name])))
    columns[name].append(value)


def _number(value: Any) -> float:
    """NaN for what is none. Numbers written as text are numbers too."""
    try:
        short = isinstance(value, int | float) or (isinstance(value, str) and len(value) <= 40)
        return float(value) if short else math.nan
    except (ValueError, OverflowError):
        return math.nan


def caption(data: bytes) -> str:
    """In one line. Raises ValueError for what is not UTF-8."""
    return " ".join(data.decode("utf-8-sig").split())


def is_caption(value: Any) -> bool:
    """Whether a field of a .json is a text of a caption's length that is not blank."""
    return isinstance(value, str) and len(value) <= LONGEST_CAPTION and bool(value.strip())


def read_json(data: bytes) -> dict[str, Any]:
    """Raises ValueError for what is no JSON object."""
    try:
        fields = json.loads(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(fields, dict):
        raise ValueError("no object")
    return fields


def make_index(file: int, name: str, known_by: tuple[int, int], earlier: int = 0) -> bytes:
    """The index of an open tar, as bytes of a safetensors file.

    name: of the tar, for errors. known_by: its stamp, by which the index is later matched to it.
    earlier: bytes that it had when an index was made of it before; 0 = there is none.

    Costs one look at each member, of which texts are read and pictures skipped: on one core 25,000
    samples a second. Raises UserError for what is no tar, or has been cut short since.
    """
    rows = _Rows(Window(file))
    try:
        for parts in samples(members(rows.window, rows.told), rows.told):
            rows.add(parts)
    except ValueError:
        packed = rows.window.read(0, 4).startswith(PACKED)
        mend = "unpack it, since only a plain tar has random access" if packed else "fetch it again"
        raise UserError(f"{name}: not a tar; {mend}") from None
    except OSError as error:
        raise UserError(f"{name}: cannot be read ({error.strerror}); fetch it again") from None
    if rows.told[CUT] and rows.window.size < earlier:
        raise UserError(
            f"{name}: cut short, {rows.window.size:,} bytes of the {earlier:,} that it had; fetch "
            "it again, or delete its index to do without the rest"
        )
    arrays, digest = rows.arrays(), hashlib.sha256()
    for key in sorted(arrays):
        digest.update(key.encode() + arrays[key].tobytes())
    told = {"version": VERSION, "stamp": known_by, "told": rows.told}
    told |= {"sha256": digest.hexdigest(), "licences": list(rows.licences)}
    return save(arrays, {"index": json.dumps(told)})


class Index:
    """An index that was made before, mapped into memory.

    stamp: size and time of the tar it was made of. told: what was left out, and met besides.
    sha256: of its columns, when it was made. licences: those that its column of them points to.
    """

    def __init__(self, path: Path) -> None:
        """Raises OSError where it is missing, ValueError where it is broken."""
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        begin = 8 + int.from_bytes(mapped[:8], "little")
        header = read_json(mapped[8:begin])
        try:
            told = json.loads(header.pop("__metadata__")["index"])
            self.arrays = {key: _array(mapped, begin, entry) for key, entry in header.items()}
            self.stamp: tuple[int, int] = (int(told["stamp"][0]), int(told["stamp"][1]))
            self.told = Counter({str(key): int(count) for key, count in told["told"].items()})
            self.sha256, self.licences = str(told["sha256"]), list(map(str, told["licences"]))
            if told["version"] != VERSION:
                raise ValueError("another version")
            at = {part: self.arrays[f"{part}.at"] for part in PARTS}
            size = {part: self.arrays[f"{part}.size"] for part in PARTS}
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(f"no index ({error!r})") from None
        most = {"picture": LARGEST_PICTURE, "text": LONGEST_CAPTION, "json": LONGEST_JSON}
        if len({array.shape for array in self.arrays.values()}) != 1 or at["picture"].ndim != 1:
            raise ValueError("columns of several lengths")
        for part in PARTS:
            ends = at[part] + size[part]
            if (size[part] > most[part]).any() or (
                (ends > self.stamp[0]) | (at[part] > ends)
            ).any():
                raise ValueError("leads out of the tar")
        if "licence" in self.arrays and self.arrays["licence"].max(initial=0) >= len(self.licences):
            raise ValueError("an unknown licence")
        if not size["picture"].all():
            raise ValueError("empty pictures")

    def __len__(self) -> int:
        return len(self.arrays["picture.at"])

    def extent(self, part: str, row: int) -> tuple[int, int]:
        """Where in the tar it begins, and how many bytes it has."""
        return int(self.arrays[f"{part}.at"][row]), int(self.arrays[f"{part}.size"][row])

    def columns(self, kind: str) -> list[str]:
        """The names of the columns of numbers ("number") or texts ("written")."""
        return [key.partition(".")[2] for key in self.arrays if key.startswith(f"{kind}.")]


def _array(mapped: mmap.mmap, start: int, entry: dict[str, Any]) -> np.ndarray:
    """The array of one entry of a safetensors header; the data begin at `start`."""
    dtype, (begin, end) = np.dtype(DTYPES[entry["dtype"]]), entry["data_offsets"]
    if begin == end:
        return np.empty(entry["shape"], dtype)
    count = (end - begin) // dtype.itemsize
    return np.frombuffer(mapped, dtype, count, start + begin).reshape(entry["shape"])


def local_index(tar: Path, cache: Path) -> Index:
    """The index beside a tar, or in `cache` where its folder cannot be written; made where there
    is none, or one of another tar. Raises UserError as `make_index` does, or if neither can be."""
    earlier = 0
    places = [tar.with_name(tar.name + ENDING), cached_index(str(tar.absolute()), cache)]
    file = open_file(tar, str(tar))
    try:
        for place in places:
            if index := readable_index(place):
                if index.stamp == stamp(file):
                    return index
                earlier = max(earlier, index.stamp[0])
        made = make_index(file, str(tar), stamp(file), earlier)
    finally:
        os.close(file)
    for place in places:
        try:
            write_whole(place, made)
            return Index(place)
        except OSError as error:
            refused = error
    raise UserError(
        f"{places[-1].parent}: its index of {tar} cannot be written ({refused.strerror}); "
        "give a folder with --source.cache"
    )


def readable_index(path: Path) -> Index | None:
    try:
        return Index(path)
    except (OSError, ValueError):
        return None


def cached_index(name: str, cache: Path) -> Path:
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
    return cache / "indexes" / digest[:2] / f"{digest[2:34]}{ENDING}"


def open_file(path: Path, name: str) -> int:
    """A descriptor. Raises UserError, naming `name`, where the file is missing or unreadable."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise UserError(
            f"{name}: {error.strerror}; fetch it, or leave it out of --source.path"
        ) from None


def stamp(file: int) -> tuple[int, int]:
    """What an open tar is known by: its size, and the time it was written."""
    found = os.fstat(file)
    return found.st_size, found.st_mtime_ns
