"""Each caption encoded once: its features do not depend on the captions that it came with."""

import os
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
CACHED_FRACTION = 1 / 20  # of the device's memory


@runtime_checkable
class TextModel(Protocol):
    """Captions -> a Condition each: batches of one on the model's device, without padding."""

    def __call__(self, captions: list[str]) -> list[Condition]:
        """In one batch, padded to the longest caption."""
        ...

    def in_batches(self, captions: list[str], batch: int) -> list[Condition]:
        """In batches whose shape depends on no other caption, `batch` at a time."""
        ...

    @property
    def cut(self) -> int:
        """How many captions so far were longer than it reads."""
        ...


class CachedEncoder:
    """A TextEncoder from text models, its parts, with a bounded memory of recent captions.

    The memory is on the models' device, in their dtype; conditions come in fp32.
    join: what each part made of one caption -> the caption's Condition.
    batch: captions that a call encodes together; None = 1 on a CPU, which gains nothing by more.
    keep_bytes: of the memory; None = CACHED_FRACTION of the device's.
    """

    def __init__(
        self,
        models: Sequence[TextModel],
        shapes: ConditionShapes,
        join: Callable[[list[Condition]], Condition] = itemgetter(0),
        null: Null = "empty",
        batch: int | None = None,
        keep_bytes: int | None = None,
    ) -> None:
        self._models, self._shapes, self._join = models, shapes, join
        self._rows: OrderedDict[tuple[int, str], Condition] = OrderedDict()
        self._empty = [model.in_batches([""], batch or 1)[0] for model in models]
        device = _device(self._empty[0])
        self._batch = batch or (1 if device.type == "cpu" else 16)
        if not batch and self._batch > 1:  # again, in the shape of the batches to come
            self._empty = [model.in_batches([""], self._batch)[0] for model in models]
        self._left = int(_memory(device) * CACHED_FRACTION) if keep_bytes is None else keep_bytes
        self._null = _in_fp32(join(self._empty))
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
        parts = [
            self._encoded(i, captions, dropped) for i, dropped in enumerate(silent.t().tolist())
        ]
        return _in_fp32(joined([self._join(list(row)) for row in zip(*parts, strict=True)]))

    def encode_many(self, captions: list[str], batch: int) -> list[Condition]:
        """Batches of one on the CPU, without padding; as a call's to rounding, and sooner there.

        They are computed `batch` at a time, captions of like length together. Nothing is
        remembered: equal arguments give equal bits. Raises UserError as a call does.
        """
        different = sorted(dict.fromkeys(captions), key=len)
        for caption in different:
            _check(caption)
        chunks = [different[i : i + batch] for i in range(0, len(different), batch)]
        parts = [[row for chunk in chunks for row in model(chunk)] for model in self._models]
        cpu = torch.device("cpu")
        rows = [self._join(list(row)).to(cpu, torch.float32) for row in zip(*parts, strict=True)]
        found = dict(zip(different, rows, strict=True))
        return [found[caption] for caption in captions]

    def _encoded(self, i: int, captions: list[str], dropped: list[bool]) -> list[Condition]:
        """What part `i` makes of each caption; of the empty one in the place of a dropped one."""
        pairs = list(zip(captions, dropped, strict=True))
        kept = dict.fromkeys(caption for caption, drop in pairs if not drop)
        missing = [caption for caption in kept if (i, caption) not in self._rows]
        for caption in missing:
            _check(caption)
        new = dict(zip(missing, self._models[i].in_batches(missing, self._batch), strict=True))
        rows = {caption: new.get(caption) or self._rows[i, caption] for caption in kept}
        for caption, row in rows.items():
            self._rows[i, caption] = row
            self._rows.move_to_end((i, caption))
        self._left -= sum(map(_bytes, new.values()))
        while self._left < 0 and len(self._rows) > 1:
            self._left += _bytes(self._rows.popitem(last=False)[1])
        return [self._empty[i] if drop else rows[caption] for caption, drop in pairs]


def _check(caption: str) -> None:
    check_unicode(caption, f"caption '{caption[:30]}'")
    if len(caption) > MAX_CAPTION:
        raise UserError(
            f"caption '{caption[:30]}...': {len(caption):,} characters, the most is "
            f"{MAX_CAPTION:,}; shorten it"
        )


def _device(row: Condition) -> torch.device:
    part = row.pooled if row.text is None else row.text
    assert part is not None
    return part.device


def _memory(device: torch.device) -> int:
    """Bytes of the device's memory, or of the machine's."""
    if device.type == "cuda" and torch.cuda.is_initialized():
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _in_fp32(condition: Condition) -> Condition:
    return condition.to(_device(condition), torch.float32)


def _bytes(row: Condition) -> int:
    return sum(0 if part is None else part.nbytes for part in (row.text, row.pooled))
