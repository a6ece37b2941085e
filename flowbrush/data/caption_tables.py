"""Captions in tables beside the images: metadata.jsonl, .csv or .parquet, as Hugging Face has them.

A row names its image in `file_name`, from the table's own folder, and holds one or more captions.
"""

import csv
import json
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowbrush.data.columns import caption_columns, one_line
from flowbrush.data.names import composed
from flowbrush.data.source import UnreadablePicture
from flowbrush.errors import UserError

FILE = "file_name"
LARGEST_LINE = 2**20  # bytes of a row of text
ROWS = 1024  # of parquet, in memory at a time
NOT_THERE = "named in a table, but not there"


@dataclass
class Captions:
    """Of each image, by its path in one Unicode form: captions by kind, none where its row has
    none. left: rows left out, by cause."""

    of: dict[str, dict[str, str]] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)  # to columns, of all tables
    left: Counter[str] = field(default_factory=Counter)


def read_tables(
    root: Path, tables: Iterable[str], columns: Sequence[str], images: Collection[str]
) -> Captions:
    """tables: paths from `root`. columns: of captions, or KIND=COLUMN; empty = those with known
    names. images: the paths, in one Unicode form, that a row may name.

    Raises UserError where a table cannot be read, names no files, or holds no captions.
    """
    found = Captions()
    for table in sorted(tables):
        _read(root / table, os.path.dirname(table), columns, images, found)
    return found


def _read(
    path: Path, folder: str, columns: Sequence[str], images: Collection[str], found: Captions
) -> None:
    kinds: dict[str, str] = {}
    for number, row in enumerate(_rows(path), 1):
        where = f"{path}:{number}"
        if not kinds:
            kinds = _kinds(path, list(row), columns)
            found.kinds |= kinds
        if not isinstance(file := row.get(FILE), str) or not file:
            found.left[f"without {FILE}"] += 1
            continue
        key = composed(os.path.normpath(os.path.join(folder, file.replace("\\", "/"))))
        if key not in images:
            found.left[NOT_THERE] += 1
            continue
        captions = _captions(row, kinds, where, found.left)
        if found.of.setdefault(key, captions) is not captions:
            raise UserError(f"{where}: {file} is named twice; leave one row an image")


def _captions(
    row: dict[str, Any], kinds: dict[str, str], where: str, left: Counter[str]
) -> dict[str, str]:
    """Those that the row has; where it has none, its cause is counted."""
    captions, reason = dict[str, str](), ""
    for kind, column in kinds.items():
        if isinstance(row.get(column), list | dict):
            raise UserError(f"{where}: {column} holds no text; give another with --source.captions")
        try:
            captions[kind] = one_line(row.get(column), column, where)
        except UnreadablePicture as error:
            reason = error.reason
    if not captions:
        left[reason] += 1
    return captions


def _kinds(path: Path, there: list[str], columns: Sequence[str]) -> dict[str, str]:
    mend = f"or pass over the table with --source.ignore {path.name}"
    if FILE not in there:
        raise UserError(
            f"{path}: no column {FILE} among {', '.join(there)}; name the images in one, {mend}"
        )
    if kinds := caption_columns(columns, there, str(path)):
        return kinds
    raise UserError(
        f"{path}: no column of captions is known among {', '.join(there)}; give one with "
        f"--source.captions, {mend}"
    )


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """Raises UserError where the table cannot be read."""
    try:
        match path.suffix.lower():
            case ".jsonl":
                yield from _lines(path)
            case ".csv":
                with path.open(encoding="utf-8-sig", newline="") as file:
                    yield from csv.DictReader(file, restkey="")
            case _:
                yield from _parquet(path)
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8; save it again as UTF-8") from None
    except csv.Error as error:
        raise UserError(f"{path}: no table ({error}); mend it") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; mend it or move it away") from None


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig") as file:
        number = 0
        while line := file.readline(LARGEST_LINE):
            number += 1
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                raise UserError(f"{path}:{number}: no JSON object; each line is one row")
            yield row


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise UserError(f"{path}: parquet needs pip install 'flowbrush[data]'") from None
    try:
        with pq.ParquetFile(path) as file:
            kinds = {f.name: f.type for f in file.schema_arrow}
            texts = [n for n, kind in kinds.items() if not pa.types.is_binary(kind)]
            for batch in file.iter_batches(batch_size=ROWS, columns=texts):
                yield from batch.to_pylist()
    except pa.ArrowException as error:
        line = str(error).partition("\n")[0]
        raise UserError(f"{path}: no parquet file that can be read ({line})") from None
