"""The headers of a tar, walked one by one: nothing is unpacked, and no name is trusted."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

LONGEST_NAME = 65_536  # bytes of an extended header, which may hold a long name
BLOCK, WINDOW = 512, 16_384
LINKS, UNSAFE = "links or devices", "names that lead out of the tar"
SPARSE = "sparse files, which tar -S wrote"
CUT = "shards cut short or damaged"
BEHIND = "tars behind the end of another, as cat joins them"
LONGEST_END = 1_048_576  # bytes of zeros at the end of a tar that are looked through


@dataclass(frozen=True)
class Member:
    """A file in a tar: its name, where its bytes begin, and how many they are.

    Bytes of a name that are not UTF-8 stay as they are (surrogateescape): two names stay two.
    """

    name: str
    at: int
    size: int


class Window:
    """The bytes of an open file, read some at a time, since small members lie side by side."""

    def __init__(self, file: int) -> None:
        self.file, self.size = file, os.fstat(file).st_size
        self._start, self._bytes = 0, b""

    def read(self, at: int, size: int) -> bytes:
        if not self._start <= at <= self._start + len(self._bytes) - size:
            self._start, self._bytes = at, os.pread(self.file, max(size, WINDOW), at)
        return self._bytes[at - self._start : at - self._start + size]


def members(window: Window, told: Counter[str]) -> Iterator[Member]:
    """The whole files of a tar. What is not one, and where the tar breaks off, is told.

    Memory is bounded by LONGEST_NAME. Raises ValueError where the first header is none.
    """
    at, long_name, long_size, sparse = 0, "", -1, False
    while any(header := window.read(at, BLOCK)) or len(header) < BLOCK:
        try:
            kind, name, size = _header(header)
        except ValueError:
            if not at:
                raise
            told[CUT] += 1
            return
        size = size if long_size < 0 else long_size
        data = at + BLOCK if kind != b"S" else _behind_map(window, at)
        at = data + -(-size // BLOCK) * BLOCK
        if data + size > window.size:
            told[CUT] += 1
            return
        if kind in b"xL":
            extended = window.read(data, size) if size <= LONGEST_NAME else b""
            if kind == b"L":
                long_name = _text(extended.rstrip(b"\0"))
            else:
                found = _pax(extended)
                long_name = found.get("path", long_name)
                stated = found.get("size", "")[:20]  # more digits than any size has
                long_size = int(stated) if stated.isdecimal() else -1
                sparse = any(key.startswith("GNU.sparse.") for key in found)
            continue
        name, long_name, long_size = long_name or name, "", -1
        sparse, in_pieces = False, sparse or kind == b"S"
        if in_pieces:
            told[SPARSE] += 1
        elif kind in b"0\x007":
            if name.startswith("/") or ".." in name.split("/"):
                told[UNSAFE] += 1
            else:
                yield Member(name, data, size)
        elif kind not in b"5gK":  # a folder; what only long names of links and comments need
            told[LINKS] += 1
    ends = range(at, min(window.size, at + LONGEST_END), BLOCK)
    told[BEHIND] += any(any(window.read(block, BLOCK)) for block in ends)


def _behind_map(window: Window, at: int) -> int:
    """Where the data of a sparse file of GNU's old format begin: behind what goes on its header."""
    follows, at = window.read(at, BLOCK)[482:483], at + BLOCK
    while follows not in (b"", b"\0"):
        follows, at = window.read(at, BLOCK)[504:505], at + BLOCK
    return at


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def name_in(block: bytes) -> str:
    """The name in a member's header, to be shown; empty where it is no header."""
    try:
        return _header(block)[1].encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    except ValueError:
        return ""


def _header(block: bytes) -> tuple[bytes, str, int]:
    """Kind, name and size. Raises ValueError where it is no header of POSIX's or GNU's kinds."""
    if len(block) < BLOCK or int(block[148:156].strip(b" \0") or b"0", 8) != (
        sum(block) - sum(block[148:156]) + 8 * 32
    ):
        raise ValueError("no header")
    raw = block[124:136]
    # GNU's sizes above 8 GiB are binary.
    size = int.from_bytes(raw[1:]) if raw[0] == 0x80 else int(raw.strip(b" \0") or b"0", 8)
    if size < 0 or size >= 2**62:
        raise ValueError("no size")
    name = block[:100].partition(b"\0")[0]
    if block[257:263] == b"ustar\0" and (prefix := block[345:500].partition(b"\0")[0]):
        name = prefix + b"/" + name
    return block[156:157], _text(name), size


def _pax(data: bytes) -> dict[str, str]:
    """The records `LENGTH KEY=VALUE\\n` of an extended header, as far as they are well-formed."""
    found, at = {}, 0
    while at < len(data):
        length, _, _ = data[at : at + 20].partition(b" ")
        if not length.isdigit() or not len(length) < int(length) <= len(data) - at:
            break
        record = data[at + len(length) + 1 : at + int(length) - 1]
        key, _, value = record.partition(b"=")
        found[_text(key)] = _text(value)
        at += int(length)
    return found
