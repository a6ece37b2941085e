"""Each caption encoded once, and alone: its features do not depend on the batch it came in."""

from collections import OrderedDict
from collections.abc import Callable
from functools import reduce

import torch

from flowbrush.condition import Condition
from flowbrush.errors import UserError
from flowbrush.shapes import ConditionShapes

LONGEST_CAPTION = 2000  # characters; more is a mistake, not a caption


class CachedEncoder:
    """A TextEncoder from a function of one caption, with a bounded memory of recent captions.

    encode: one caption -> a Condition of batch 1 without padding.
    """

    def __init__(
        self, encode: Callable[[str], Condition], shapes: ConditionShapes, keep_bytes: int = 2**26
    ) -> None:
        self._encode, self._shapes, self._left = encode, shapes, keep_bytes
        self._rows: OrderedDict[str, Condition] = OrderedDict()
        self._null = encode("")

    @property
    def shapes(self) -> ConditionShapes:
        return self._shapes

    @property
    def null(self) -> Condition:
        return self._null

    def __call__(self, captions: list[str]) -> Condition:
        """A batch, padded to its longest caption. Raises UserError for one beyond all measure."""
        rows = [self._row(caption) for caption in captions]
        if all(row.text_mask is None and _tokens(row) == _tokens(rows[0]) for row in rows):
            return _stacked(rows)
        return reduce(Condition.followed_by, rows)

    def _row(self, caption: str) -> Condition:
        if caption in self._rows:
            self._rows.move_to_end(caption)
            return self._rows[caption]
        if len(caption) > LONGEST_CAPTION:
            raise UserError(
                f"caption '{caption[:30]}...': {len(caption):,} characters, the most is "
                f"{LONGEST_CAPTION:,}; shorten it"
            )
        row = self._rows[caption] = self._encode(caption)
        self._left -= _bytes(row)
        while self._left < 0 and len(self._rows) > 1:
            self._left += _bytes(self._rows.popitem(last=False)[1])
        return row


def _tokens(row: Condition) -> int:
    return 0 if row.text is None else row.text.shape[1]


def _stacked(rows: list[Condition]) -> Condition:
    def join(name: str) -> torch.Tensor | None:
        parts = [part for row in rows if (part := getattr(row, name)) is not None]
        return torch.cat(parts) if parts else None

    return Condition(text=join("text"), pooled=join("pooled"))


def _bytes(row: Condition) -> int:
    return sum(0 if part is None else part.nbytes for part in (row.text, row.pooled))
