"""Token vectors of a caption from a language model that reads forward: LLM-jp, Qwen, Gemma, ..."""

from dataclasses import dataclass
from typing import Any, Literal

import torch

from flowbrush.condition import Condition
from flowbrush.errors import UserError
from flowbrush.shapes import ConditionShapes
from flowbrush.text.cached import CachedEncoder, Null
from flowbrush.text.pretrained import (
    Precision,
    import_transformers,
    load_model,
    load_tokenizer,
    model_type,
)
from flowbrush.text.reader import Reader, Tokens, with_mean

KINDS = (
    "llama",  # LLM-jp's as well
    "mistral",
    "qwen2",
    "qwen3",
    "gemma",
    "gemma2",
    "gemma3_text",
    "gpt_neox",
)


@dataclass(frozen=True, kw_only=True)
class LLMConfig:
    """A decoder in transformers' format, without its head; no token sees those behind it."""

    model: str = "llm-jp/llm-jp-3-1.8b"  # a name on the hub, or a folder
    tokenizer: str = ""  # the same for the tokenizer; empty = beside the model
    tokens: int = 256  # the most that are read
    layer: int = -1  # whose vectors; -1 = the last, normalized; -2 = the one before it, ...
    pooled: Literal["none", "mean"] = "none"  # mean: that of the tokens, beside them
    null: Null = "empty"
    dtype: Precision = "fp32"

    def load(self, device: torch.device) -> tuple[Any, Any]:
        """The frozen model and its tokenizer. Raises UserError where they cannot be had."""
        transformers = import_transformers()
        if (kind := model_type(self.model)) not in KINDS:
            raise UserError(f"text: {self.model} is a {kind}, not one of {', '.join(KINDS)}")
        tokenizer = load_tokenizer(self.tokenizer or self.model)
        read = transformers.AutoModel.from_pretrained
        return load_model(read, self.model, self.dtype, device), tokenizer

    def build(self, device: torch.device) -> CachedEncoder:
        """Raises UserError where the model cannot be had, or does not fit the fields."""
        return llm_encoder(*self.load(device), self)


def llm_encoder(model: Any, tokenizer: Any, config: LLMConfig) -> CachedEncoder:
    text = LLMText(model, tokenizer, config)
    return CachedEncoder([text], text.shapes, null=config.null)


class LLMText:
    """A TextModel of tokens and, if it is asked for, their mean."""

    def __init__(self, model: Any, tokenizer: Any, config: LLMConfig) -> None:
        """Raises UserError for a layer or tokens beyond the model's, or another's tokenizer."""
        kind, layers = model.config.model_type, model.config.num_hidden_layers
        if not -layers <= config.layer <= -1:
            raise UserError(f"text.layer: {config.layer}; this {kind} has -1 ... -{layers}")
        if config.tokens > (most := model.config.max_position_embeddings):
            raise UserError(f"text.tokens: {config.tokens}; this {kind} reads at most {most}")
        self.reader = Reader(kind, model, tokenizer, config.tokens, "masked")
        self._model, self._config = model, config
        self.tokens, self.width = config.tokens, model.config.hidden_size

    @property
    def shapes(self) -> ConditionShapes:
        pooled = self.width if self._config.pooled == "mean" else None
        return ConditionShapes(text_width=self.width, text_tokens=self.tokens, pooled_width=pooled)

    @property
    def cut(self) -> int:
        return self.reader.cut

    def __call__(self, captions: list[str]) -> list[Condition]:
        return self._compute(self.reader(captions))

    def in_batches(self, captions: list[str], batch: int) -> list[Condition]:
        return self.reader.in_batches(captions, batch, self._compute)

    @torch.no_grad()
    def _compute(self, read: Tokens) -> list[Condition]:
        last = self._config.layer == -1
        out = self._model(
            input_ids=read.numbers,
            attention_mask=read.real,
            output_hidden_states=not last,
            use_cache=False,
        )
        text = out.last_hidden_state if last else out.hidden_states[self._config.layer]
        rows = read.conditions(text)
        return [with_mean(row) for row in rows] if self._config.pooled == "mean" else rows
