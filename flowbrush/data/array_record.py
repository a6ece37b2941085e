"""ArrayRecord files, whose records are pickled dicts as JaxFM writes them.

    latent, label                            stage 1
    latent, short_caption, long_caption      stage 2

Latents are those of an autoencoder before any scale: with others, say so in `space.mean` and
`space.scale`. Records are read by `pickles.loads`, which runs nothing.
"""

import os
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from flowbrush.data import columns, pickles
from flowbrush.data.columns import caption_columns, existing
from flowbrush.data.latents import Layout, as_picture, check_size
from flowbrush.data.names import read_names
from flowbrush.data.source import Example, Origin, UnreadablePicture, listing_sha256
from flowbrush.errors import UserError

PATTERNS = ("*.array_record", "*.array_record-*", "*.arrayrecord", "*.arrayrecord-*")
FIRST = 100  # records, of which one must be readable
OPEN_FILES = 256  # at a time, in one process: each holds a file handle
OPTIONS = "readahead_buffer_size:0,max_parallelism:0"  # for random access


@dataclass(frozen=True, kw_only=True)
class ArrayRecordConfig:
    """Files of pickled dicts. They are fast where they were written with `group_size:1`."""

    path: Path = Path("records")  # a file, a folder or a glob
    latents: str = ""  # field of the latents; empty = latent, latents, moments
    shape: tuple[int, ...] = ()  # of latents that are stored flat, as in 16 32 32
    layout: Layout = "auto"  # of the latents
    captions: tuple[str, ...] = ()  # fields, or KIND=FIELD; empty = short and long_caption, ...
    label: str = "label"  # field of the class's number, where there are no captions
    labels: int = 1000  # how many classes there are, where there is no file of names
    names: Path | None = None  # NUMBER <tab> English <tab> 日本語, a class a line

    def build(self, size: int) -> "ArrayRecords":
        """Raises UserError for missing files and fields, and for records of another kind."""
        return ArrayRecords(self, size)


class ArrayRecords:
    """A Source over records; `truth` is the class's number, if any. It can be pickled."""

    def __init__(self, config: ArrayRecordConfig, size: int) -> None:
        self.config, self.size = config, size
        self.files = columns.files_of(config.path, PATTERNS)
        self._starts = list(accumulate(map(_count, self.files), initial=0))
        self._shape: tuple[int, ...] = ()
        few = range(min(len(self), FIRST))
        try:
            first, name = columns.first_readable(lambda i: (self._record(i), self._name(i)), few)
            known = next((field for field in columns.LATENTS if field in first), "latent")
            self._latents = existing(config.latents or known, list(first), name, "source.latents")
            self._kinds = caption_columns(config.captions, list(first), name)
            self._names = {} if self._kinds else self._class_names(list(first), name)
            self._shape = columns.first_readable(self.__getitem__, few).picture.shape
        except UnreadablePicture as error:
            raise UserError(
                f"{error}; none of the first {len(few)} records is readable: write them again"
            ) from None
        check_size(self._shape[0], size, name)

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, i: int) -> Example:
        """Raises UserError for a record that asks for code to be run."""
        if not 0 <= i < len(self):
            raise IndexError(i)
        record, name = self._record(i), self._name(i)
        latents = record.get(self._latents)
        if not isinstance(latents, np.ndarray):
            raise UnreadablePicture(name, f"{self._latents} is no array of numpy's")
        picture = as_picture(latents, self.config.shape, self.config.layout, name)
        if self._shape and picture.shape != self._shape:
            raise UnreadablePicture(name, f"latents of {picture.shape}, others of {self._shape}")
        if self._kinds:
            captions = columns.captions_of(self._kinds, lambda f: _text(record.get(f)), name)
            return Example(picture, captions, name=name)
        label = record.get(self.config.label)
        label = label.item() if isinstance(label, np.ndarray) and label.size == 1 else label
        if str(label) not in self._names:
            raise UnreadablePicture(name, f"no class has the number {label!r}")
        return Example(picture, self._names[str(label)], truth=label, name=name)

    def _at(self, i: int) -> tuple[Path, int]:
        """A record's file, and its number there."""
        number = bisect_right(self._starts, i) - 1
        return self.files[number], i - self._starts[number]

    def _name(self, i: int) -> str:
        return "{}:{}".format(*self._at(i))

    def _record(self, i: int) -> dict[str, Any]:
        return _record(*self._at(i))

    @property
    def classes(self) -> tuple[str, ...]:
        """The English names in the order of their numbers, or the numbers where there are none."""
        return tuple(next(iter(names.values())) for names in self._names.values())

    @property
    def attribution(self) -> str:
        return ""

    def origin(self) -> Origin:
        """By the names and sizes of the files."""
        return Origin(listing_sha256((file.name, file.stat().st_size) for file in self.files))

    @property
    def shards(self) -> tuple[int, ...]:
        """How many records each file has, in order; they follow each other."""
        return tuple(after - before for before, after in pairwise(self._starts))

    def _class_names(self, fields: list[str], name: str) -> dict[str, dict[str, str]]:
        """Of each number, by language."""
        if self.config.label not in fields:
            raise UserError(
                f"{name}: neither captions nor {self.config.label} among {', '.join(fields)}; give "
                "a field with --source.captions or --source.label"
            )
        if self.config.names is None:
            return {str(i): {"class": str(i)} for i in range(self.config.labels)}
        names = read_names(self.config.names)
        numbers = [str(i) for i in range(len(names))]
        if set(names) != set(numbers):
            raise UserError(
                f"{self.config.names}: keys must be the numbers of the classes, 0 to "
                f"{len(names) - 1}"
            )
        return {number: names[number] for number in numbers}


def _record(path: Path, row: int) -> dict[str, Any]:
    """Raises UnreadablePicture for a damaged one, UserError for one that is refused."""
    name = f"{path}:{row}"
    try:
        record = pickles.loads(_reader(path, os.getpid()).read([row])[0], name)
    except (ValueError, RuntimeError) as error:
        raise UnreadablePicture(name, str(error)) from None
    if not isinstance(record, dict):
        raise UnreadablePicture(name, f"a {type(record).__name__} where a dict belongs")
    return record


@lru_cache(OPEN_FILES)
def _reader(path: Path, process: int) -> Any:
    """process: its id, as a process must not read on from its parent's place."""
    try:
        from array_record.python.array_record_module import ArrayRecordReader
    except ImportError:
        raise UserError("source: ArrayRecord needs pip install 'flowbrush[data]'") from None
    return ArrayRecordReader(str(path), OPTIONS, file_reader_buffer_size=2**15)


def _count(path: Path) -> int:
    """How many records a file has. Raises UserError where it has none."""
    try:
        if count := _reader(path, os.getpid()).num_records():
            return count
    except RuntimeError:
        pass
    raise UserError(f"{path}: no records in it, or cut short; copy it again")


def _text(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
