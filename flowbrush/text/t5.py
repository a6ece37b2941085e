"""Token vectors of a caption: T5's encoder (Raffel et al. 2020), Flan-T5's, or T5Gemma's."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from flowbrush.condition import Condition
from flowbrush.errors import UserError
from flowbrush.shapes import ConditionShapes
from flowbrush.text.cached import CachedEncoder
from flowbrush.text.pretrained import (
    Precision,
    import_transformers,
    load_model,
    load_tokenizer,
    model_type,
)
from flowbrush.text.reader import Padding, Reader, Tokens

CLASSES = {
    "t5": "T5EncoderModel",
    "mt5": "MT5EncoderModel",
    "umt5": "UMT5EncoderModel",
    "t5gemma": "T5GemmaEncoderModel",
}


@dataclass(frozen=True, kw_only=True)
class T5Config:
    """A T5 in transformers' format; its decoder, where it has one, is not loaded."""

    model: str = "google/t5-v1_1-xxl"  # a name on the hub, or a folder
    tokenizer: str = ""  # the same for the tokenizer; empty = beside the model
    tokens: int = 512  # the most that are read
    padding: Padding = "masked"  # attended: always `tokens` of them, all real (SD3, Flux)
    lowercase: bool = False  # and without spaces around the caption (PixArt)
    dtype: Precision = "fp32"

    def load(self, device: torch.device) -> tuple[Any, Any]:
        """The frozen model and its tokenizer. Raises UserError where they cannot be had."""
        transformers = import_transformers()
        if (kind := model_type(self.model)) not in CLASSES:
            raise UserError(f"text: {self.model} is a {kind}, not one of {', '.join(CLASSES)}")
        cls = getattr(transformers, CLASSES[kind])
        read = partial(cls.from_pretrained, is_encoder_decoder=False)
        tokenizer = load_tokenizer(self.tokenizer or self.model)
        return load_model(read, self.model, self.dtype, device), tokenizer

    def build(self, device: torch.device) -> CachedEncoder:
        """Raises UserError where the model cannot be had, or its tokenizer is another's."""
        return t5_encoder(*self.load(device), self)


def t5_encoder(model: Any, tokenizer: Any, config: T5Config) -> CachedEncoder:
    text = T5Text(model, tokenizer, config)
    return CachedEncoder([text], text.shapes)


class T5Text:
    """A TextModel of tokens, without a pooled vector."""

    def __init__(self, model: Any, tokenizer: Any, config: T5Config) -> None:
        """Raises UserError for a tokenizer that is not this model's."""
        self.reader = Reader("T5", model, tokenizer, config.tokens, config.padding)
        self._model, self._lowercase = model, config.lowercase
        self.tokens, self.width = config.tokens, model.get_input_embeddings().embedding_dim

    @property
    def shapes(self) -> ConditionShapes:
        return ConditionShapes(text_width=self.width, text_tokens=self.tokens)

    @property
    def cut(self) -> int:
        return self.reader.cut

    def __call__(self, captions: list[str]) -> list[Condition]:
        return self._compute(self.reader(self._cleaned(captions)))

    def in_batches(self, captions: list[str], batch: int) -> list[Condition]:
        return self.reader.in_batches(self._cleaned(captions), batch, self._compute)

    def _cleaned(self, captions: list[str]) -> list[str]:
        return [caption.lower().strip() for caption in captions] if self._lowercase else captions

    @torch.no_grad()
    def _compute(self, read: Tokens) -> list[Condition]:
        # The mask is said outright: T5Gemma would leave out attended padding by itself.
        out = self._model(input_ids=read.numbers, attention_mask=read.real)
        return read.conditions(out.last_hidden_state)
