"""Each caption encoded once, and alone: its features do not depend on the batch it came in."""

from collections import OrderedDict
from collections.abc import Callable

from flowbrush.condition import Condition, joined
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
        return joined([self._row(caption) for caption in captions])

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


def _bytes(row: Condition) -> int:
    return sum(0 if part is None else part.nbytes for part in (row.text, row.pooled))
