"""Tar shards in WebDataset's format, as img2dataset writes them: NAME.jpg, NAME.txt and NAME.json
one after another. An index of each gives random access; see tar_index.py for its format and cost.

Memory: 24 bytes a shard and its name; the indexes are mapped, the last OPEN_SHARDS of them with 4
bytes a sample. 700 million samples in 70,000 shards: below 100 MB a process.
"""

import copy
import hashlib
import math
import os
import sys
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32
from tqdm import tqdm

from flowbrush.data import tar_aspects, tar_index, tar_samples, tars
from flowbrush.data.filters import Filter, parse
from flowbrush.data.pictures import decode
from flowbrush.data.remote import RemoteFiles, is_remote
from flowbrush.data.shard_names import packed_shards, shard_names
from flowbrush.data.source import Example, Origin, Size, UnreadablePicture
from flowbrush.data.tar_index import Index
from flowbrush.errors import UserError, nearest
from flowbrush.whole_files import write_whole

OPEN_SHARDS = 128  # at a time, in one process: each holds two file handles
THREADS = 8  # that look at the shards when a source is built
LARGEST_INDEX = 2**28  # bytes, of one that lies beside a remote shard: 2 million samples
TEXT = "txt"  # the caption in a file of its own
# What is passed over, and is no sample that is left out.
PACKED = "packed shards, to be unpacked"
MET = (PACKED, tars.CUT, tars.BEHIND, tars.LINKS, tars.SPARSE, tars.UNSAFE,
       tar_samples.LEFTOVER, tar_samples.LATE)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TarShardsConfig:
    """Where the shards are, and which of their samples are wanted."""

    # Files and folders, here or remote: "shards/{00000..00099}.tar", "shards/", "s3://me/*.tar";
    # several with commas.
    path: str = "shards"
    # Kinds of captions: "txt" = the .txt, any other = a field of the .json.
    # Empty = the .txt, or where there is none, the .json's "caption".
    captions: tuple[str, ...] = ()
    # Of numbers in the .json, such as "similarity >= 0.3"; a sample without one is left out.
    filters: tuple[str, ...] = ()
    # For copies of remote shards, and for indexes that cannot be written beside their shards.
    cache: Path = Path("~/.cache/flowbrush")
    cache_bytes: int = 100_000_000_000  # of copies

    def build(self, size: int) -> "TarShards":
        """Makes the indexes that are missing: one pass over the headers and texts of a shard here,
        a whole fetch of a remote one that has no index beside it.

        Raises UserError for a missing shard, one that is no tar, a filter that cannot be read, and
        where no sample is left.
        """
        return TarShards(self, size)


@dataclass(frozen=True)
class _Wanted:
    """What a shard is opened with."""

    captions: tuple[str, ...]
    filters: tuple[Filter, ...]
    files: RemoteFiles
    indexes: Path


class TarShards:
    """A Source over tars. `truth` holds the numbers of a sample's .json, by name.

    It can be pickled: each process opens the shards it reads.
    """

    def __init__(self, config: TarShardsConfig, size: int) -> None:
        cache = config.cache.expanduser()
        filters = tuple(map(parse, config.filters))
        files = RemoteFiles(cache / "copies", config.cache_bytes)
        self.size: Size = size
        self.wanted = _Wanted(config.captions, filters, files, cache)
        self.names = shard_names(config.path, files)
        looked = _looked_at(self.names, self.wanted)
        self._stamps = np.array([found.stamp for found in looked], np.int64)
        self._lengths = np.array([found.length for found in looked], np.int64)
        self._starts = np.concatenate([[0], np.cumsum(self._lengths)])
        columns = set().union(*(found.columns for found in looked))
        for wanted in filters:
            if isinstance(wanted.value, str):
                raise UserError(f"source.filters: {wanted}; of tars only numbers are indexed")
            if wanted.column not in columns:
                there = ", ".join(sorted(columns)) or "none"
                raise UserError(
                    f"source.filters: no number '{wanted.column}' in the .json files (there: "
                    f"{there}){nearest(wanted.column, columns)}"
                )
        told = sum((found.told for found in looked), Counter[str]())
        told += Counter({PACKED: len(packed_shards(config.path))})  # without 0
        cut = next((name for name, found in zip(self.names, looked, strict=True)
                    if found.told[tars.CUT]), "")  # fmt: skip
        self.summary = _summary(config.path, len(self), told, cut, filters)
        licences = sum((found.licences for found in looked), Counter[str]())
        digest = hashlib.sha256()
        for name, found in zip(self.names, looked, strict=True):
            digest.update(f"{found.stamp[0]} {found.sha256} {Path(name).name}\0".encode())
        self._origin = Origin(digest.hexdigest(), told, licences, licences.total())
        if not len(self):
            raise UserError(f"{self.summary}; no sample is left")
        if told:
            print(self.summary, file=sys.stderr)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, i: int) -> Example:
        """Raises UserError where a shard is gone or has changed."""
        if not 0 <= i < len(self):
            raise IndexError(i)
        number = int(np.searchsorted(self._starts, i, side="right")) - 1
        shard = _opened(self.names[number], self.wanted, tuple(map(int, self._stamps[number])))
        return shard.example(i - int(self._starts[number]), self.size)

    @property
    def shards(self) -> Sequence[int]:
        """The samples of each shard, in order; those of one lie side by side."""
        return self._lengths.tolist()

    @property
    def classes(self) -> tuple[str, ...]:
        return ()

    @property
    def attribution(self) -> str:
        return ""

    def origin(self) -> Origin:
        """By the names, sizes and indexes of the shards."""
        return self._origin

    def aspects(self) -> Iterator[Float32[np.ndarray, " m"]]:
        def of(name: str) -> Float32[np.ndarray, " m"]:
            shard = Shard(name, self.wanted)
            return tar_aspects.aspects_of(name, shard.index, self.wanted.indexes)[shard.rows]

        with ThreadPoolExecutor(THREADS) as pool:
            yield from pool.map(of, self.names)

    def reshaped(self, size: tuple[int, int]) -> "TarShards":
        other = copy.copy(self)
        other.size = size
        return other


class Shard:
    """One tar with its index. `rows` are those of the samples that are wanted."""

    def __init__(self, name: str, wanted: _Wanted) -> None:
        self.name, self.wanted = name, wanted
        self.index = _index(name, wanted)
        self.told = self.index.told.copy()
        keep = self._captioned()
        self.told[tar_samples.NO_CAPTION] += int((~keep).sum())
        for wish in wanted.filters:
            here = self.index.arrays.get(f"number.{wish.column}")
            kept = keep & (False if here is None else wish.kept(here))
            self.told[str(wish)] += int(keep.sum() - kept.sum())
            keep = kept
        self.rows = np.flatnonzero(keep).astype(np.uint32)
        self.told = +self.told  # without those of which there are none
        self.numbers = {
            name: self.index.arrays[f"number.{name}"] for name in self.index.columns("number")
        }
        self._file: int | None = None

    def licences(self) -> Counter[str]:
        """Of the samples that are wanted; empty where none is named."""
        if (column := self.index.arrays.get("licence")) is None:
            return Counter()
        counts = np.bincount(column[self.rows], minlength=len(self.index.licences)).tolist()
        return +Counter(dict(zip(self.index.licences, counts, strict=True)))

    def _captioned(self) -> Bool[np.ndarray, " n"]:
        texts = self.index.arrays["text.size"] > 0
        found = np.zeros(len(self.index), bool)
        for kind in self.wanted.captions or (TEXT, "caption"):
            written = self.index.arrays.get(f"written.{kind}")
            found |= texts if kind == TEXT else False if written is None else written > 0
        return found

    def example(self, place: int, size: Size) -> Example:
        row = int(self.rows[place])
        captions, kinds = {}, self.wanted.captions
        with_text = self.index.extent("text", row)[1] > 0 and (not kinds or TEXT in kinds)
        with_json = not with_text if not kinds else bool(set(kinds) - {TEXT})
        parts = ["picture", *(["text"] if with_text else []), *(["json"] if with_json else [])]
        found = self._read([self.index.extent(part, row) for part in parts])
        read = dict(zip(parts, found, strict=True))
        try:
            fields = tar_index.read_json(read["json"]) if read.get("json") else {}
            if with_text:
                captions[TEXT if kinds else "caption"] = tar_index.caption(read["text"])
        except ValueError:
            raise UserError(f"{self.name}: changed since its index was made; start again") from None
        for kind in kinds or ("caption",):
            if kind != TEXT and tar_index.is_caption(fields.get(kind)):
                captions[kind] = " ".join(fields[kind].split())
        truth = {
            column: number
            for column, numbers in self.numbers.items()
            if not math.isnan(number := float(numbers[row]))
        }
        name = f"{self.name}: sample {row}"
        try:
            picture = decode(read["picture"], size, name)
        except UnreadablePicture as error:
            raise UnreadablePicture(f"{name} ({self._member(row)})", error.reason) from None
        return Example(picture, captions, truth=truth, name=name)

    def _member(self, row: int) -> str:
        """What the tar calls a sample's picture, as far as its plain header holds it."""
        at, _ = self.index.extent("picture", row)
        return tars.name_in(self._read([(at - tars.BLOCK, tars.BLOCK)])[0])

    def _read(self, extents: list[tuple[int, int]]) -> list[bytes]:
        """Raises UserError for a shard that is not what it was: its pictures are not broken, and
        other ones in their place would make another run."""
        if is_remote(self.name):
            file = self.wanted.files.open(self.name, self.index.stamp[0])
            try:
                return self._read_open(file, extents)
            finally:
                os.close(file)  # so that a copy that is given up makes room
        if self._file is None:
            file = tar_index.open_file(Path(self.name), self.name)
            weakref.finalize(self, os.close, file)
            self._check(tar_index.stamp(file) == self.index.stamp)
            self._file = file
        return self._read_open(self._file, extents)

    def _read_open(self, file: int, extents: list[tuple[int, int]]) -> list[bytes]:
        try:
            found = [os.pread(file, size, at) for at, size in extents]
        except OSError as error:
            raise UserError(f"{self.name}: {error.strerror}; mend it, and start again") from None
        self._check([len(data) for data in found] == [size for _, size in extents])
        return found

    def _check(self, unchanged: bool) -> None:
        if not unchanged:
            raise UserError(f"{self.name}: changed since its index was made; start again")


@lru_cache(OPEN_SHARDS)
def _opened(name: str, wanted: _Wanted, stamp: tuple[int, int]) -> Shard:
    """stamp: so that a tar that was made anew is not taken for the old one."""
    shard = Shard(name, wanted)
    shard._check(shard.index.stamp == stamp)
    return shard


def _index(name: str, wanted: _Wanted) -> Index:
    """Of a remote shard: kept here, found beside it, or made of a copy, without its time."""
    if not is_remote(name):
        return tar_index.local_index(Path(name), wanted.indexes)
    kept = tar_index.cached_index(name, wanted.indexes)
    if index := tar_index.readable_index(kept):
        return index
    beside = wanted.files.content(name + tar_index.ENDING, LARGEST_INDEX)
    if beside is not None:
        write_whole(kept, beside)
        if index := tar_index.readable_index(kept):
            return index
    file = wanted.files.open(name)
    try:
        write_whole(kept, tar_index.make_index(file, name, (os.fstat(file).st_size, 0)))
    except UserError:
        wanted.files.copy(name).unlink(missing_ok=True)  # the next start fetches it again
        raise
    finally:
        os.close(file)
    return Index(kept)


@dataclass(frozen=True)
class _Look:
    """What building keeps of a shard."""

    length: int
    stamp: tuple[int, int]
    told: Counter[str]
    columns: frozenset[str]
    licences: Counter[str]
    sha256: str  # of its index


def _looked_at(names: list[str], wanted: _Wanted) -> list[_Look]:
    """Every shard, once. Each process begins at another, so that several share the work."""

    def look(number: int) -> tuple[int, _Look]:
        shard = Shard(names[number], wanted)
        columns = frozenset(shard.index.columns("number"))
        index, licences = shard.index, shard.licences()
        told = _Look(len(shard.rows), index.stamp, shard.told, columns, licences, index.sha256)
        return number, told

    first = os.getpid() * 7919 % len(names)
    order = [*range(first, len(names)), *range(first)]
    pool = ThreadPoolExecutor(THREADS)
    try:
        done = pool.map(look, order)
        bar = tqdm(done, "looking at shards", len(names), delay=5, leave=False, unit="shards")
        return [found for _, found in sorted(bar, key=lambda pair: pair[0])]
    finally:
        pool.shutdown(cancel_futures=True)


def _summary(path: str, kept: int, told: Counter[str], cut: str, filters: Sequence[Any]) -> str:
    """In one line: how many samples there are, what was left out and why, what was met besides."""
    first = [str(one) for one in filters if told[str(one)]]
    others = sorted(told.keys() - set(first) - set(MET))
    left = {reason: told[reason] for reason in (*first, *others) if told[reason]}
    total = kept + sum(left.values())
    met = [f"{told[tars.CUT]:,} {tars.CUT} (the first: {cut})"] if cut else []
    met += [f"{told[kind]:,} {kind}" for kind in MET if kind != tars.CUT and told[kind]]
    line = f"{path}: {kept:,} of {total:,} samples"
    if left:
        line += "; left out: " + ", ".join(f"{count:,} {reason}" for reason, count in left.items())
    line += "; passed over: " + ", ".join(met) if met else ""
    if told[tar_samples.APART]:
        line += "; put a sample's files side by side in one folder: tar --sort=name"
    return line
