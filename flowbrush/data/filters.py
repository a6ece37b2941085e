"""Which rows of a table are kept: `clip_similarity_vitb32 >= 0.3`, one comparison a filter.

The text is matched against one pattern; nothing of it is ever run. Columns of COYO-700M: width,
height, clip_similarity_vitb32, clip_similarity_vitl14, watermark_score, aesthetic_score_laion_v2,
nsfw_score_opennsfw2, nsfw_score_gantman; of LAION: WIDTH, HEIGHT, similarity, pwatermark, punsafe,
NSFW, LICENSE.
"""

import math
import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from flowbrush.errors import UserError

OPERATORS = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
WORDS = {"true": 1.0, "false": 0.0}
_FORM = re.compile(r"""([^<>=!'"]+)([<>=!]=|[<>])\s*([^<>=!'"]+|'[^']*'|"[^"]*")""")


@dataclass(frozen=True)
class Filter:
    """column operator value. Text is compared with text, numbers with numbers; true is 1."""

    column: str
    operator: str
    value: float | str

    def keeps(self, value: Any) -> bool:
        """False where it is missing (None, NaN), or text for a number or the other way round."""
        if isinstance(self.value, str) != isinstance(value, str):
            return False
        if not isinstance(value, str | Real) or value != value:
            return False
        return bool(OPERATORS[self.operator](value, self.value))

    def kept(self, values: Float64[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
        """The same of a whole column of numbers, where NaN is what is missing."""
        if isinstance(self.value, str):
            return np.zeros(len(values), bool)
        return OPERATORS[self.operator](values, self.value) & ~np.isnan(values)

    def __str__(self) -> str:
        if isinstance(self.value, float):
            return f"{self.column} {self.operator} {self.value:.15g}"
        quote = '"' if "'" in self.value else "'"
        return f"{self.column} {self.operator} {quote}{self.value}{quote}"


def parse(text: str) -> Filter:
    """Raises UserError for anything but COLUMN, one of the six operators, and a number or text."""
    form = _FORM.fullmatch(text.strip())
    column, sign, value = (part.strip() for part in form.groups()) if form else ("", "", "")
    if not column or not value:
        raise UserError(
            f"filters: {text!r} is no comparison; write a column, one of {' '.join(OPERATORS)}, "
            "and a number or 'text'"
        )
    known = _value(value, text)
    if isinstance(known, str) and sign not in ("==", "!="):
        raise UserError(f"filters: {text!r} orders text; text can be == or != only")
    return Filter(column, sign, known)


def _value(written: str, text: str) -> float | str:
    if written[0] in "'\"":
        return written[1:-1]
    if written in WORDS:
        return WORDS[written]
    try:
        number = float(written)
    except ValueError:
        if re.fullmatch(r"[\w.?/+-]+", written):
            return written
        raise UserError(
            f"filters: {text!r} is more than one comparison; give each as a filter of its own, "
            "and text of several words in '...'"
        ) from None
    if not math.isfinite(number):
        raise UserError(f"filters: {text!r} compares with no number; leave it out")
    return number


@dataclass
class Tally:
    """How many rows came by, and how many each filter dropped that those before it had kept."""

    filters: tuple[Filter, ...]
    seen: int = 0
    dropped: dict[Filter, int] = field(default_factory=dict)

    def keeps(self, row: Mapping[str, Any]) -> bool:
        """Whether every filter keeps the row, which is counted. A column it lacks is missing."""
        self.seen += 1
        for one in self.filters:
            if not one.keeps(row.get(one.column)):
                self.drop(one, 1)
                return False
        return True

    def drop(self, one: Filter, rows: int) -> None:
        self.dropped[one] = self.dropped.get(one, 0) + rows

    @property
    def kept(self) -> int:
        return self.seen - sum(self.dropped.values())

    def __str__(self) -> str:
        """As in "2 of 5 kept; dropped: 3 by width >= 256"."""
        by = ", ".join(f"{self.dropped.get(one, 0):,} by {one}" for one in self.filters)
        return f"{self.kept:,} of {self.seen:,} kept" + (f"; dropped: {by}" if by else "")
