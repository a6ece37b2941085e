"""Parquet files with a picture, or its latents, and captions in each row.

A row is read by decoding the group of rows that it is in, as the file was written; those that were
asked for last stay in memory. Lengths come from the files' footers, pictures are left alone.
"""

import copy
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from flowbrush.data import columns, licences, row_groups
from flowbrush.data.arrow_types import is_encoded, is_stored, is_struct, is_text
from flowbrush.data.columns import existing
from flowbrush.data.filters import Tally, parse
from flowbrush.data.latents import Layout, as_picture, check_size, unpacked
from flowbrush.data.pictures import decode
from flowbrush.data.source import (
    LONGEST_CAPTION,
    Example,
    IncompleteExample,
    Origin,
    Picture,
    Size,
    UnreadablePicture,
    listing_sha256,
)
from flowbrush.errors import UserError

NO_PICTURE = "without a picture"
FIRST = 100  # rows, of which one must have readable latents
PATTERNS = ("*.parquet", "*.parq")


@dataclass(frozen=True, kw_only=True)
class ParquetConfig:
    """Parquet files, as img2dataset and Hugging Face write them: bytes, or a struct of them."""

    path: Path = Path("parquet")  # a file, a folder or a glob
    picture: str = ""  # column of encoded pictures; empty = image, jpg, ... or the only one
    latents: str = ""  # column of latents in their place, of what autoencoder the space must know
    shape: tuple[int, ...] = ()  # of latents that are stored flat, as in 16 32 32
    layout: Layout = "auto"  # of the latents
    captions: tuple[str, ...] = ()  # columns, or KIND=COLUMN; empty = caption, text, alt_text, ...
    filters: tuple[str, ...] = ()  # as in "similarity >= 0.3"; a row that lacks the number goes
    cache: int = 512  # MiB of decoded groups of rows that each process keeps

    def __post_init__(self) -> None:
        if self.picture and self.latents:
            raise UserError("source: a picture column and a latents column; give one of them")
        if self.cache < 1:
            raise UserError(f"source.cache: {self.cache} MiB; it must be 1 or more")

    def build(self, size: int) -> "Parquet":
        """Raises UserError for missing files and columns, wrong filters, and where no row is left.

        With filters it reads their columns of every file.
        """
        return Parquet(self, size)


class _Groups(NamedTuple):
    """All groups of rows as they follow each other: arrays, for there may be millions.

    bits: a bit a row, 1 where it is left, every group from a new byte on; empty without filters.
    """

    file: Int64[np.ndarray, " groups"]
    number: Int64[np.ndarray, " groups"]  # in its file
    first: Int64[np.ndarray, " groups"]  # row of the file
    rows: Int64[np.ndarray, " groups"]
    left: Int64[np.ndarray, " groups"]
    bits: UInt8[np.ndarray, " bytes"]


class Parquet:
    """A Source over rows of parquet files; `truth` is FILE:ROW. It can be pickled."""

    def __init__(self, config: ParquetConfig, size: int) -> None:
        self.config = config
        self.size: Size = size
        self.files = columns.files_of(config.path, PATTERNS)
        self._sizes = [row_groups.size_of(path) for path in self.files]
        self.tally = Tally(tuple(parse(text) for text in config.filters))
        schema = row_groups.opened(self.files[0]).schema_arrow
        texts = (name for name in schema.names if is_text(schema.field(name).type))
        self._licence = next(iter(licences.licence_columns(texts)), "")
        self._encoded = "" if config.latents else _pictures(config, schema, self.files[0])
        self._stored = "" if self._encoded else _latents(config, schema, self.files[0])
        self._kinds = _captions(config, schema, self.files[0])
        self._wanted = sorted({self._encoded or self._stored, *self._kinds.values()})
        self._missing = 0
        found = [self._groups_of(i) for i in range(len(self.files))]
        self._groups = _Groups(*map(np.concatenate, zip(*found, strict=True)))
        self._starts = np.concatenate([[0], self._groups.left.cumsum()])
        self._bits = np.concatenate([[0], (-(-self._groups.rows // 8)).cumsum()])
        self._cache = row_groups.Cache(config.cache * 2**20)
        self._shape: tuple[int, ...] = ()  # of latents
        self._tell_missing()
        if not len(self):
            raise UserError(f"{config.path}: no rows left, {self.tally}; loosen source.filters")
        if self._stored:
            self._shape = self._first_shape(size)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, i: int) -> Example:
        """Raises UserError where a file has another length by now, or went away."""
        if not 0 <= i < len(self):
            raise IndexError(i)
        groups, group = self._groups, int(np.searchsorted(self._starts, i, "right")) - 1
        row = self._row(group, int(i - self._starts[group]))
        path = self.files[groups.file[group]]
        name = f"{path}:{groups.first[group] + row}"
        try:
            table = self._cache.table(path, int(groups.number[group]), self._wanted)
        except UserError as error:
            if row_groups.size_of(path) != self._sizes[groups.file[group]]:
                raise
            raise UnreadablePicture(name, str(error)) from None  # as each row of a damaged group
        captions = columns.captions_of(self._kinds, lambda c: _text(table[c][row], c, name), name)
        return Example(self._picture(table, row, name), captions, truth=name)

    @property
    def classes(self) -> tuple[str, ...]:
        return ()

    @property
    def attribution(self) -> str:
        return ""

    def origin(self) -> Origin:
        """By the names and sizes of the files. Licences are those of the first rows."""
        left_out = {str(one): rows for one, rows in self.tally.dropped.items()}
        left_out |= {NO_PICTURE: self._missing} if self._missing else {}
        sha256 = listing_sha256((file.name, file.stat().st_size) for file in self.files)
        found: Counter[str] = Counter()
        for group in range(len(self._groups.left)) if self._licence else ():
            if found.total() >= licences.MOST_LOOKED_AT:
                break
            path, number = self.files[self._groups.file[group]], int(self._groups.number[group])
            schema = row_groups.opened(path).schema_arrow
            if self._licence not in schema.names or not is_text(schema.field(self._licence).type):
                continue
            column = row_groups.group(path, number, [self._licence])[self._licence]
            found.update(row_groups.each_once(column, licences.licence)[self._rows(group)])
        return Origin(sha256, left_out, found, found.total())

    @property
    def shards(self) -> tuple[int, ...]:
        """How many rows each file has, in order; they follow each other."""
        left = np.bincount(self._groups.file, self._groups.left, len(self.files))
        return tuple(int(rows) for rows in left)

    def aspects(self) -> Iterator[Float32[np.ndarray, " m"]]:
        there = row_groups.opened(self.files[0]).schema_arrow.names
        pair = next((pair for pair in columns.SIDES if set(pair) <= set(there)), None)
        if pair is None or self._stored:
            reason = "holds latents" if self._stored else "tells no width and height"
            raise UserError(f"buckets.step: {self.files[0]} {reason}; leave it at 0")
        for group in range(len(self._groups.file)):
            path, number = self.files[self._groups.file[group]], int(self._groups.number[group])
            table = row_groups.group(path, number, pair)
            width, height = (row_groups.numbers(table, side) for side in pair)
            found = columns.aspects_of(width, height)
            yield found[self._rows(group)] if self.tally.filters else found

    def reshaped(self, size: tuple[int, int]) -> "Parquet":
        other = copy.copy(self)
        other.size = size
        return other

    def _row(self, group: int, i: int) -> int:
        """The place in a group of its i-th row that is left."""
        return int(self._rows(group)[i]) if self.tally.filters else i

    def _rows(self, group: int) -> Int64[np.ndarray, " n"]:
        """The places in a group of all rows that are left."""
        if not self.tally.filters:
            return np.arange(self._groups.rows[group])
        bytes_of_it = self._groups.bits[self._bits[group] : self._bits[group + 1]]
        return np.flatnonzero(np.unpackbits(bytes_of_it))

    def _picture(self, table: Any, row: int, name: str) -> Picture:
        if self._encoded:
            return decode(_bytes(table[self._encoded][row], name), self.size, name)
        array = _numbers(table[self._stored][row], self.config.shape, name)
        latents = as_picture(array, self.config.shape, self.config.layout, name)
        if self._shape and latents.shape != self._shape:
            raise UnreadablePicture(name, f"latents of {latents.shape}, others of {self._shape}")
        return latents

    def _first_shape(self, size: int) -> tuple[int, ...]:
        first = range(min(len(self), FIRST))
        try:
            shape = columns.first_readable(self.__getitem__, first).picture.shape
        except UnreadablePicture as error:
            raise UserError(
                f"{error}; none of the first {len(first)} rows is readable: mend them, or leave "
                "them out by a filter"
            ) from None
        check_size(shape[0], size, str(self.files[0]))
        return shape

    def _groups_of(self, number: int) -> _Groups:
        path = self.files[number]
        file = row_groups.opened(path)
        there = file.schema_arrow.names
        for column in self._wanted:
            existing(column, there, str(path), "source")
            self._check_type(column, file.schema_arrow.field(column).type, path)
        for one in self.tally.filters:
            existing(one.column, there, str(path), "source.filters")
        if not self.tally.filters:  # of which it is not known what they leave
            self._missing += row_groups.missing(file, self._encoded or self._stored)
        groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
        largest = max((row_groups.decoded_size(group, self._wanted) for group in groups), default=0)
        if largest > self.config.cache * 2**20:
            raise UserError(
                f"source.cache: {self.config.cache} MiB, but a group of rows of {path} takes "
                f"{-(-largest // 2**20):,}; give that, or write the file again in smaller groups"
            )
        rows = np.array([group.num_rows for group in groups], np.int64)
        self.tally.seen += int(rows.sum())
        left, bits = rows, [np.empty(0, np.uint8)]
        if asked := sorted({one.column for one in self.tally.filters}):
            kept = [self._kept(row_groups.group(path, i, asked), path) for i in range(len(rows))]
            left = np.array([some.sum() for some in kept], np.int64)
            bits += [np.packbits(some) for some in kept]
        in_file = np.full(len(rows), number)
        firsts = rows.cumsum() - rows
        return _Groups(in_file, np.arange(len(rows)), firsts, rows, left, np.concatenate(bits))

    def _tell_missing(self) -> None:
        """Rows without a picture, as of img2dataset's failed downloads: skipped when they come."""
        if self._missing:
            told = f"{self.config.path}: {self._missing:,} of {len(self):,} rows {NO_PICTURE}"
            print(f"{told}; they are skipped", file=sys.stderr)

    def _check_type(self, column: str, kind: Any, path: Path) -> None:
        """Raises UserError where a file has other things in a column than the first one."""
        import pyarrow as pa

        fits = {self._encoded: is_encoded, self._stored: is_stored}.get(column, is_text)
        content = kind.field("bytes").type if is_struct(kind) else kind
        if not fits(kind) and not pa.types.is_null(content):
            first = row_groups.opened(self.files[0]).schema_arrow.field(column).type
            raise UserError(
                f"{path}: {column} is {kind} there, and {first} in {self.files[0]}; write it again "
                "with one type, or leave the file out of --source.path"
            )

    def _kept(self, table: Any, path: Path) -> Bool[np.ndarray, " rows"]:
        kept = np.ones(len(table), bool)
        for one in self.tally.filters:
            now = kept & row_groups.kept_by(one, table[one.column], path)
            self.tally.drop(one, int(kept.sum() - now.sum()))
            kept = now
        return kept


def _pictures(config: ParquetConfig, schema: Any, path: Path) -> str:
    """The column of pictures; empty where there is none, but one of latents."""
    if config.picture:
        name = existing(config.picture, schema.names, str(path), "source.picture")
        if not is_encoded(schema.field(name).type):
            raise UserError(
                f"source.picture: {name} of {path} holds {schema.field(name).type}, no encoded "
                "pictures; give a column of bytes"
            )
        return name
    there = [n for n in schema.names if is_encoded(schema.field(n).type)]
    if known := next((n for n in columns.PICTURES if n in there), ""):
        return known
    if any(name in schema.names for name in columns.LATENTS):
        return ""
    if len(there) == 1:
        return there[0]
    address = next((n for n in columns.ADDRESSES if n in schema.names), "")
    if address and not there:
        caption = next((n for n in columns.CAPTIONS if n in schema.names), "TEXT")
        raise UserError(
            f"{path}: no pictures in it, only where they are (column {address}); download them "
            f"first: img2dataset --url_list {config.path} --input_format parquet --url_col "
            f"{address} --caption_col {caption} --output_format parquet --output_folder pictures"
        )
    raise UserError(
        f"{path}: no column of pictures is known among {', '.join(schema.names)}; give one with "
        "--source.picture or --source.latents"
    )


def _latents(config: ParquetConfig, schema: Any, path: Path) -> str:
    if config.latents:
        return existing(config.latents, schema.names, str(path), "source.latents")
    return next(name for name in columns.LATENTS if name in schema.names)


def _captions(config: ParquetConfig, schema: Any, path: Path) -> dict[str, str]:
    import pyarrow as pa

    kinds = columns.caption_columns(config.captions, schema.names, str(path))
    if not kinds:
        raise UserError(
            f"{path}: no column of captions is known among {', '.join(schema.names)}; give one "
            "with --source.captions"
        )
    for column in kinds.values():
        kind = schema.field(column).type
        if not is_text(kind) and not pa.types.is_null(kind):
            raise UserError(
                f"source.captions: {column} of {path} holds {kind}, no text; give another column"
            )
    return kinds


def _text(value: Any, column: str, name: str) -> Any:
    """value: a place in the list of texts that rows share, which are not copied to be measured."""
    import pyarrow.compute as pc

    if value.is_valid:
        encoded = value.dictionary.slice(value.index.as_py(), 1)
        if (pc.binary_length(encoded)[0].as_py() or 0) > 4 * LONGEST_CAPTION:
            raise UnreadablePicture(name, columns.too_long(column))
    try:
        return value.as_py()
    except UnicodeDecodeError:
        raise UnreadablePicture(name, f"no UTF-8 in {column}") from None


def _bytes(value: Any, name: str) -> bytes:
    held = value.as_py()
    encoded = held.get("bytes") if isinstance(held, dict) else held
    if not encoded:
        raise IncompleteExample(name, "no picture in this row")
    return encoded


def _numbers(value: Any, shape: tuple[int, ...], name: str) -> np.ndarray:
    """Latents out of an arrow value: bytes, or lists in lists."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not value.is_valid:
        raise IncompleteExample(name, "no latents in this row")
    if isinstance(value, pa.ExtensionScalar | pa.DictionaryScalar):
        value = value.value
    if is_encoded(value.type):
        return unpacked(_bytes(value, name), shape, name)
    if not pa.types.is_nested(value.type) or pa.types.is_struct(value.type):
        raise UserError(
            f"{name}: latents as {value.type}; they are read from bytes and from lists of numbers"
        )
    values, lengths = value.values, [len(value.values)]
    while pa.types.is_nested(values.type):
        sizes = pc.unique(pc.list_value_length(values)).to_pylist()
        if len(sizes) != 1 or sizes[0] is None:
            raise UnreadablePicture(name, "latents of rows that differ in length")
        values, lengths = values.flatten(), [*lengths, sizes[0]]
    if values.null_count or not pa.types.is_floating(values.type):
        raise UnreadablePicture(name, f"latents of {values.type}, or with gaps")
    return values.to_numpy(zero_copy_only=False).reshape(lengths)
