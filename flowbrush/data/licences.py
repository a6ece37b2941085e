"""The licence of a picture, where a column or a field of a .json names it."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

NAMES = ("license", "licence", "license_name", "license_url")  # in any case, as in LAION's LICENSE
NONE_TOLD, OTHERS = "none told", "others"
MOST_LOOKED_AT = 1_000_000  # rows of a table; more would make training wait
LONGEST = 200  # characters


def licence_columns(columns: Iterable[str]) -> list[str]:
    """The columns that tell it."""
    return [column for column in columns if column.lower() in NAMES]


def licence(value: Any) -> str:
    """What a value says, in one line."""
    text = " ".join(value[: 2 * LONGEST].split())[:LONGEST] if isinstance(value, str) else ""
    return text or NONE_TOLD


def counted(values: Iterable[Any]) -> Counter[str]:
    return Counter(map(licence, values))
