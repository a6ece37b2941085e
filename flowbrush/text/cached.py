"""Each caption encoded once, and alone: its features do not depend on the batch it came in."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool
from torch import Tensor

from flowbrush.condition import MAX_CAPTION, Condition, joined
from flowbrush.errors import UserError, check_unicode
from flowbrush.shapes import ConditionShapes

# The null caption: the empty one's vectors, or zeros in their place.
Null = Literal["empty", "zeros"]


@runtime_checkable
class TextModel(Protocol):
    """Captions -> a Condition each: batches of one, on the CPU, without padding."""

    def __call__(self, captions: list[str]) -> list[Condition]: ...

    @property
    def cut(self) -> int:
        """How many captions so far were longer than it reads."""
        ...


class CachedEncoder:
    """A TextEncoder from text models, its parts, with a bounded memory of recent captions.

    join: what each part made of one caption -> the caption's Condition.
    """

    def __init__(
        self,
        models: Sequence[TextModel],
        shapes: ConditionShapes,
        join: Callable[[list[Condition]], Condition] = itemgetter(0),
        null: Null = "empty",
        keep_bytes: int = 2**26,
    ) -> None:
        self._models, self._shapes, self._join, self._left = models, shapes, join, keep_bytes
        self._rows: OrderedDict[tuple[int, str], Condition] = OrderedDict()
        self._empty = [model([""])[0] for model in models]
        self._null = join(self._empty)
        if null == "zeros":
            self._null = self._null.map(torch.zeros_like)

    @property
    def shapes(self) -> ConditionShapes:
        return self._shapes

    @property
    def null(self) -> Condition:
        return self._null

    @property
    def parts(self) -> int:
        return len(self._models)

    @property
    def cut(self) -> int:
        return sum(model.cut for model in self._models)

    def __call__(
        self, captions: list[str], silent: Bool[Tensor, "b parts"] | None = None
    ) -> Condition:
        """A batch, padded to its longest caption. Raises UserError for one beyond all measure."""
        if silent is None:
            silent = torch.zeros(len(captions), self.parts, dtype=torch.bool)
        return joined([self._row(*of) for of in zip(captions, silent.tolist(), strict=True)])

    def encode_many(self, captions: list[str], batch: int) -> list[Condition]:
        """Batches of one without padding, the same as a call's to rounding, and sooner there.

        They are computed `batch` at a time, captions of like length together. Nothing is
        remembered: equal arguments give equal bits. Raises UserError as a call does.
        """
        different = sorted(dict.fromkeys(captions), key=len)
        for caption in different:
            _check(caption)
        chunks = [different[i : i + batch] for i in range(0, len(different), batch)]
        parts = [[row for chunk in chunks for row in model(chunk)] for model in self._models]
        rows = [self._join(list(row)) for row in zip(*parts, strict=True)]
        found = dict(zip(different, rows, strict=True))
        return [found[caption] for caption in captions]

    def _row(self, caption: str, silent: list[bool]) -> Condition:
        parts = range(self.parts)
        return self._join([self._empty[i] if silent[i] else self._part(i, caption) for i in parts])

    def _part(self, i: int, caption: str) -> Condition:
        """What part `i` makes of the caption."""
        if (i, caption) in self._rows:
            self._rows.move_to_end((i, caption))
            return self._rows[i, caption]
        _check(caption)
        row = self._rows[i, caption] = self._models[i]([caption])[0]
        self._left -= _bytes(row)
        while self._left < 0 and len(self._rows) > 1:
            self._left += _bytes(self._rows.popitem(last=False)[1])
        return row


def _check(caption: str) -> None:
    check_unicode(caption, f"caption '{caption[:30]}'")
    if len(caption) > MAX_CAPTION:
        raise UserError(
            f"caption '{caption[:30]}...': {len(caption):,} characters, the most is "
            f"{MAX_CAPTION:,}; shorten it"
        )


def _bytes(row: Condition) -> int:
    return sum(0 if part is None else part.nbytes for part in (row.text, row.pooled))
