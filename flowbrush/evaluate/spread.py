"""Some of many, evenly."""

from collections.abc import Sequence


def spread(most: int, of: int) -> Sequence[int]:
    """`most` indices evenly over `of`, or all of them (most = 0: all)."""
    count = min(most or of, of)
    return [i * of // count for i in range(count)]
