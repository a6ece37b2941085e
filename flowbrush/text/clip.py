"""Token vectors and a pooled vector of a caption: CLIP's text transformer (Radford et al. 2021)."""

from dataclasses import dataclass
from typing import Any, Literal

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


@dataclass(frozen=True, kw_only=True)
class CLIPConfig:
    """A CLIP in transformers' format, and what is taken from it."""

    model: str = "openai/clip-vit-large-patch14"  # a name on the hub, or a folder
    tokenizer: str = ""  # the same for the tokenizer; empty = beside the model
    tokens: int = 77  # the most that are read
    layer: Literal["last", "penultimate"] = "last"  # last: normalized; penultimate: as SD3
    projected: bool = False  # the pooled vector after CLIP's text projection (SD3), or before it
    padding: Padding = "masked"  # attended: always `tokens` of them, all real (SD3)
    dtype: Precision = "fp32"

    def load(self, device: torch.device) -> tuple[Any, Any]:
        """The frozen model and its tokenizer. Raises UserError where they cannot be had."""
        transformers = import_transformers()
        if (kind := model_type(self.model)) not in ("clip", "clip_text_model"):
            raise UserError(f"text: {self.model} is a {kind}, not a CLIP")
        cls = "CLIPTextModelWithProjection" if self.projected else "CLIPTextModel"
        read = getattr(transformers, cls).from_pretrained
        tokenizer = load_tokenizer(self.tokenizer or self.model)
        return load_model(read, self.model, self.dtype, device), tokenizer

    def build(self, device: torch.device) -> CachedEncoder:
        """Raises UserError where the model cannot be had, or does not fit the fields."""
        return clip_encoder(*self.load(device), self)


def clip_encoder(model: Any, tokenizer: Any, config: CLIPConfig) -> CachedEncoder:
    text = CLIPText(model, tokenizer, config)
    return CachedEncoder([text], text.shapes)


class CLIPText:
    """A TextModel of tokens and a pooled vector.

    model: CLIPTextModelWithProjection where `config.projected`, else CLIPTextModel.
    """

    def __init__(self, model: Any, tokenizer: Any, config: CLIPConfig) -> None:
        """Raises UserError for too many tokens, or a tokenizer that is not this model's."""
        if config.tokens > (most := model.config.max_position_embeddings):
            raise UserError(f"text.tokens: {config.tokens}; this CLIP reads at most {most}")
        self.reader = Reader("CLIP", model, tokenizer, config.tokens, config.padding)
        # 2 is a slip in old configs: transformers then pools at the highest number there is.
        end = model.config.eos_token_id
        end = max(tokenizer.get_vocab().values()) if end == 2 else end
        if end != tokenizer.eos_token_id:
            raise UserError(
                f"text: this CLIP pools at token {end}, its tokenizer ends a caption with "
                f"{tokenizer.eos_token_id}; give the one it was trained with"
            )
        self._model, self._config = model, config
        self.tokens, self.width = config.tokens, model.config.hidden_size
        self.pooled_width = model.config.projection_dim if config.projected else self.width

    @property
    def shapes(self) -> ConditionShapes:
        return ConditionShapes(
            text_width=self.width, text_tokens=self.tokens, pooled_width=self.pooled_width
        )

    @property
    def cut(self) -> int:
        return self.reader.cut

    def __call__(self, captions: list[str]) -> list[Condition]:
        return self._compute(self.reader(captions))

    def in_batches(self, captions: list[str], batch: int) -> list[Condition]:
        return self.reader.in_batches(captions, batch, self._compute)

    @torch.no_grad()
    def _compute(self, read: Tokens) -> list[Condition]:
        out = self._model(read.numbers, attention_mask=read.real, output_hidden_states=True)
        penultimate = self._config.layer == "penultimate"
        text = out.hidden_states[-2] if penultimate else out.last_hidden_state
        pooled = out.text_embeds if self._config.projected else out.pooler_output
        return read.conditions(text, pooled)
