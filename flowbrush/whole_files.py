"""Files that are either the old one or the whole new one, whatever happens on the way."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Where to write, beside `path`: it takes that name when all is on disk, else it is removed.

    Makes its folder. Any number of processes and threads may do so at once; the last one stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".aside-{os.getpid()}-{threading.get_ident()}-{path.name}")
    try:
        yield aside
        sync(aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    sync(path.parent)


def write_whole(path: Path, content: bytes) -> None:
    with written_whole(path) as aside:
        aside.write_bytes(content)


def sync(path: Path) -> None:
    """Wait until the file or folder is on disk, so that no power cut puts it after the rename."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
