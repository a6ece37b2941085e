"""Files of other machines (s3://, gs://, https://, ...) through fsspec, in a bounded folder here.

A shard is fetched whole: all of its samples are wanted within a window of the order, and one stream
is faster than a range a sample and, where requests are paid for, a thousand times cheaper.
"""

import errno
import fcntl
import hashlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
from fsspec.callbacks import Callback

from flowbrush.errors import UserError

SILENCE = 60.0  # seconds without a byte after which a server is given up
TRIES = 7
PAUSE = 1.0  # seconds before the second try, doubled before each further one: a minute in all
ABANDONED = 3600.0  # seconds after which half a file is taken for one of a process that was killed
FRESH = 60.0  # seconds for which what one thread or process gave up is given up by the others too
STARTED = time.time()
HINTS = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "http": "aiohttp", "https": "aiohttp"}


def is_remote(name: str) -> bool:
    return "://" in name


@dataclass(frozen=True)
class RemoteFiles:
    """A folder with copies of remote files, which are taken never to change.

    What was not read for longest goes first where the copies would be above `limit` bytes. Any
    number of processes and threads of one machine may share it. A copy is there whole or not at
    all. It can be pickled.
    """

    folder: Path
    limit: int
    tries: int = TRIES
    pause: float = PAUSE

    def open(self, url: str, size: int | None = None) -> int:
        """A descriptor of the copy, which is fetched if it is not here; to be closed soon, since
        a copy that was given up keeps its room until then.

        size: in bytes, of a file that was there before. Should it be missing now, or have another
        size, that may pass like any other trouble.
        Raises UserError where the file is missing, forbidden, above the limit, or out of reach or
        of another size after all tries.
        """
        copy = self.copy(url)
        while True:
            try:
                file = os.open(copy, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                self._fetch(url, copy, size)
            except OSError as error:
                raise self._unusable(error) from None
            else:
                if size in (None, os.fstat(file).st_size):
                    os.utime(file)  # read last now
                    return file
                os.close(file)
                copy.unlink(missing_ok=True)

    def copy(self, url: str) -> Path:
        """Where the copy is, or will be."""
        digest = hashlib.sha256(url.encode()).hexdigest()
        return self.folder / f"{digest[:32]}.copy"

    def content(self, url: str, most: int) -> bytes | None:
        """A small file, which is not kept; None where there is none, or one above `most` bytes."""

        def read(files: Any) -> bytes | None:
            try:
                with files.open(url, "rb", block_size=0) as file:
                    found = file.read(most + 1)
            except FileNotFoundError:
                return None
            return found if len(found) <= most else None

        return self._tried(url, read)

    def found(self, pattern: str) -> list[str]:
        """The files that a pattern with `*` stands for, in order."""
        scheme = pattern.partition("://")[0]
        names = self._tried(pattern, lambda files: files.glob(pattern))
        return sorted(name if is_remote(name) else f"{scheme}://{name}" for name in names)

    def _fetch(self, url: str, copy: Path, size: int | None) -> None:
        failed = copy.with_suffix(".failed")
        with self._locked(f"fetching-{copy.name[:2]}"):
            if told := _told_of_late(failed):  # else each one that waited would wait anew
                raise UserError(told)
            aside = copy.with_name(f"{copy.name}.{os.getpid()}-{threading.get_ident()}.aside")
            taken = _Taken(self, url, aside.with_suffix(".room"))
            while not copy.exists():  # another process may have been faster
                try:
                    self._tried(
                        url,
                        lambda files: _fetch_once(files, url, aside, taken, size),
                        known=size is not None,
                    )
                    aside.replace(copy)
                    failed.unlink(missing_ok=True)
                except UserError as error:
                    with suppress(OSError):
                        failed.write_text(str(error), "utf-8")
                    raise
                except _Crowded:  # other fetches hold the room, and will be done
                    time.sleep(self.pause)
                finally:
                    aside.unlink(missing_ok=True)
                    taken.room.unlink(missing_ok=True)

    def make_room(self, url: str, needed: int, room: Path) -> None:
        """Take `needed` bytes for a fetch under way; the empty file `room`, of that size, says so.

        Raises UserError where they are above the limit, _Crowded where other fetches hold them.
        """
        if needed > self.limit:
            raise UserError(
                f"{url}: {needed:,} bytes, but --source.cache-bytes is {self.limit:,}; raise it"
            )
        with self._locked("making-room"):
            copies, held, now = [], needed, time.time()
            for entry in os.scandir(self.folder):
                try:
                    found = entry.stat()
                except FileNotFoundError:
                    continue
                if entry.name.endswith(".copy"):
                    copies.append((found.st_mtime, found.st_size, entry.path))
                elif entry.name.endswith((".room", ".aside", ".failed")):
                    if now - found.st_mtime > ABANDONED:
                        Path(entry.path).unlink(missing_ok=True)
                    elif entry.name.endswith(".room") and entry.path != str(room):
                        held += found.st_size
            if held > self.limit:
                raise _Crowded
            with room.open("wb") as file:
                file.truncate(needed)
            held += sum(size for _, size, _ in copies)
            for _, size, path in sorted(copies):
                if held <= self.limit:
                    break
                Path(path).unlink(missing_ok=True)
                held -= size

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """One process and thread at a time; released also when it is killed."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = os.open(self.folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        except OSError as error:
            raise self._unusable(error) from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
        finally:
            os.close(file)

    def _unusable(self, error: OSError) -> UserError:
        return UserError(f"{self.folder}: {error.strerror}; give another folder by --source.cache")

    def _tried(self, url: str, work: Any, known: bool = False) -> Any:
        """What `work` makes of the file system, tried again where the network may be to blame.

        known: that the file was there before.
        """
        reason = ""
        for attempt in range(self.tries):
            if attempt:
                pause = self.pause * 2 ** (attempt - 1)
                if attempt > 1:  # once is common
                    print(f"{url}: {reason}; next try in {pause:g} s", file=sys.stderr)
                time.sleep(pause)
            try:
                return work(_file_system(url))
            except (UserError, _Crowded):
                raise
            except FileNotFoundError:
                if not known:
                    raise UserError(f"{url}: not there; look at --source.path") from None
                reason = "not there any more"
            except Exception as error:  # of any kind: each storage has its own
                status = getattr(error, "status", None) or getattr(error, "code", None)
                refused = isinstance(status, int) and 400 <= status < 500
                if isinstance(error, PermissionError) or (refused and status not in (408, 429)):
                    raise UserError(f"{url}: refused ({_line(error)}); log in first") from None
                if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise UserError(
                        f"{self.folder}: {error.strerror}; lower --source.cache-bytes"
                    ) from None
                reason = _line(error)
        raise UserError(
            f"{url}: out of reach after {self.tries} tries ({reason}); look at the network, and "
            "start again"
        )


def _told_of_late(failed: Path) -> str:
    """What a fetch failed of, since this process began and not long ago; else nothing."""
    try:
        fresh = failed.stat().st_mtime > max(STARTED, time.time() - FRESH)
        return failed.read_text("utf-8") if fresh else ""
    except FileNotFoundError:
        return ""


class _Crowded(Exception):
    """The room is held by fetches that are under way."""


class _Taken(Callback):
    """Takes room for a file as soon as its size is known, or else as it grows."""

    def __init__(self, files: RemoteFiles, url: str, room: Path) -> None:
        super().__init__()
        self.files, self.url, self.room = files, url, room

    def set_size(self, size: int | None) -> None:
        self.size, self.value = size, 0
        self.files.make_room(self.url, size or 0, self.room)

    def relative_update(self, inc: int = 1) -> None:
        self.value += inc
        if self.value > (self.size or 0):
            self.files.make_room(self.url, self.value, self.room)


def _fetch_once(files: Any, url: str, aside: Path, taken: _Taken, size: int | None) -> None:
    files.get_file(url, str(aside), callback=taken)
    found = aside.stat().st_size
    if taken.size is not None and found != taken.size:
        raise OSError(f"{found:,} bytes came of {taken.size:,}")
    if size is not None and found != size:
        raise OSError(
            f"changed: {found:,} bytes, and {size:,} before; if that is meant, empty --source.cache"
        )


def _file_system(url: str) -> Any:
    """fsspec's, for the scheme of `url`; it keeps one a process."""
    scheme, options = url.partition("://")[0], dict[str, Any]()
    try:
        if scheme in ("http", "https"):
            import aiohttp

            # No limit for the whole, since shards are large; but one for a server gone silent.
            patience = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=SILENCE)
            options = {"timeout": patience, "headers": {"Accept-Encoding": "identity"}}
            return fsspec.filesystem(scheme, client_kwargs=options)
        return fsspec.filesystem(scheme)
    except ImportError:
        package = HINTS.get(scheme, f"what fsspec needs for {scheme}")
        raise UserError(f"{url}: needs another package: pip install {package}") from None
    except ValueError:
        raise UserError(f"{url}: no storage of the kind {scheme}:// is known") from None


def _line(error: BaseException) -> str:
    first = str(error).strip().partition("\n")[0]
    return first or type(error).__name__
