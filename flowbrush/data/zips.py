"""Images inside of zip files, each read where it lies."""

import os
import zipfile
from functools import lru_cache
from pathlib import Path

OPEN_ZIPS = 16  # in each process


def read_member(path: Path, name: str, most: int) -> bytes:
    """The bytes of a file in a zip.

    Raises FileNotFoundError where it is not in it, ValueError where it has more than `most` bytes
    unpacked, OSError or zipfile.BadZipFile where the zip cannot be read.
    """
    archive = _opened(path, path.stat().st_mtime_ns, os.getpid())
    try:
        member = archive.getinfo(name)
    except KeyError:
        raise FileNotFoundError(2, "not in the zip") from None
    if member.file_size > most:
        raise ValueError(f"over {most // 10**6} MB")
    return archive.read(member)  # no more than that; threads may share an archive


@lru_cache(OPEN_ZIPS)
def _opened(path: Path, changed: int, process: int) -> zipfile.ZipFile:
    """process: that which opened it, for a fork would share its place in the file."""
    return zipfile.ZipFile(path)
