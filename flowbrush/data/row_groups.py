"""Groups of rows of parquet files: read whole, kept a while, and never larger than they may be."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from flowbrush.data.filters import Filter
from flowbrush.errors import UserError

COMPARISONS = {
    ">=": "greater_equal",
    "<=": "less_equal",
    "==": "equal",
    "!=": "not_equal",
    ">": "greater",
    "<": "less",
}


class Cache:
    """Decoded groups of rows, those asked for last, up to a number of bytes or one group."""

    def __init__(self, most: int) -> None:
        self.most, self.bytes = most, 0
        self._tables: OrderedDict[tuple[Path, int], Any] = OrderedDict()
        self._damaged: dict[tuple[Path, int], str] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return Cache, (self.most,)  # each process decodes its own

    def table(self, path: Path, number: int, wanted: Sequence[str]) -> Any:
        with self._lock:  # also while it is decoded, or every thread would decode it
            if known := self._damaged.get((path, number)):
                raise UserError(known)
            if (path, number) not in self._tables:
                try:
                    table = group(path, number, wanted)
                except UserError as error:
                    self._damaged[path, number] = str(error)
                    raise
                self.bytes += table.nbytes
                self._tables[path, number] = table
                while self.bytes > self.most and len(self._tables) > 1:
                    _, oldest = self._tables.popitem(last=False)
                    self.bytes -= oldest.nbytes
            self._tables.move_to_end((path, number))
            return self._tables[path, number]


def opened(path: Path, wanted: Sequence[str] = ()) -> Any:
    """wanted: columns of which a text or picture that many rows share shall take memory once, since
    a file of a few MB may claim it a million times."""
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise UserError("source: parquet needs pip install 'flowbrush[data]'") from None
    try:
        file = pq.ParquetFile(path, memory_map=True)
        leaves = map(file.schema.column, range(len(file.schema)))
        there = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
        shared = [leaf for leaf in there if leaf in wanted or leaf.partition(".")[0] in wanted]
        if not shared:
            return file
        return pq.ParquetFile(path, metadata=file.metadata, memory_map=True, read_dictionary=shared)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: not to be read as parquet ({_line(error)}); fetch it again"
        ) from None


def decoded_size(rows: Any, wanted: Sequence[str]) -> int:
    """Bytes of the columns of a group of rows, as its file tells them."""
    parts = [rows.column(i) for i in range(rows.num_columns)]
    names = set(wanted)
    return sum(
        part.total_uncompressed_size
        for part in parts
        if part.path_in_schema in names or part.path_in_schema.partition(".")[0] in names
    )


def size_of(path: Path) -> int:
    """In bytes; -1 of a file that is not there."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def missing(file: Any, column: str) -> int:
    """How many rows of an open file lack a column's value, as its footer tells; else 0."""
    leaves = [i for i in range(len(file.schema)) if file.schema.column(i).path in
              (column, f"{column}.bytes")]  # fmt: skip
    parts = [file.metadata.row_group(n).column(i).statistics
             for n in range(file.num_row_groups) for i in leaves]  # fmt: skip
    return sum(part.null_count for part in parts if part and part.has_null_count)


def group(path: Path, number: int, wanted: Sequence[str]) -> Any:
    try:
        with opened(path, wanted) as file:
            return file.read_row_group(number, columns=list(wanted), use_threads=False)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: a damaged group of rows ({_line(error)}); fetch it again"
        ) from None


def numbers(table: Any, column: str) -> Float64[np.ndarray, " n"]:
    """A column of a group; NaN where it has none, or what is no number."""
    import pyarrow as pa

    there = table.column_names
    kind = table.schema.field(column).type if column in there else pa.null()
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return np.full(table.num_rows, np.nan)
    return table[column].cast(pa.float64(), safe=False).to_numpy()


def each_once(column: Any, of: Callable[[Any], Any]) -> np.ndarray:
    """`of` each text in a column of a group, where those that rows share are looked at once."""
    found = [np.empty(0, object)]
    for chunk in column.chunks:
        known = [of(value.as_py()) for value in chunk.dictionary]
        places = chunk.indices.fill_null(-1).to_numpy()
        found.append(np.array([*known, of(None)], object)[places])
    return np.concatenate(found)


def kept_by(one: Filter, column: Any, path: Path) -> Bool[np.ndarray, " n"]:
    """What `one.keeps` says of each value of an arrow column, all at once.

    Raises UserError where it compares numbers with text.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if pa.types.is_null(kind):
        return np.zeros(len(column), bool)
    numbers = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    if (not text and not numbers) or text != isinstance(one.value, str):
        raise UserError(f"source.filters: {path} has {kind} in {one.column}, not as in {one}")
    if pa.types.is_dictionary(column.type) and text:
        return each_once(column, one.keeps).astype(bool)
    column = column.cast(pa.string() if text else pa.float64(), safe=False)
    kept = getattr(pc, COMPARISONS[one.operator])(column, one.value)
    if not text:
        kept = pc.and_not(kept, pc.is_nan(column))
    return pc.fill_null(kept, False).to_numpy()


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0]
