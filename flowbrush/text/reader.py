"""Captions to tokens. What a text model cannot read is cut, and never without a word."""

import sys
from typing import Any, Literal

from jaxtyping import Int
from torch import Tensor

from flowbrush.errors import UserError

# Padding is left out; or it is there up to the most tokens, and counts as any other token.
Padding = Literal["masked", "attended"]


class Reader:
    """A tokenizer that cuts at `tokens`. `cut` counts the captions it cut; the first is shown."""

    def __init__(self, name: str, model: Any, tokenizer: Any, tokens: int, padding: Padding):
        """Raises UserError where the tokenizer has tokens that the model does not know."""
        known = model.get_input_embeddings().num_embeddings
        if len(tokenizer) > known:
            raise UserError(
                f"text: a tokenizer of {len(tokenizer):,} tokens does not belong to a {name} of "
                f"{known:,}; give the one it was trained with"
            )
        self.name, self.tokens, self.cut = name, tokens, 0
        self._tokenizer, self._device = tokenizer, model.device
        self._padding = "max_length" if padding == "attended" else False

    def __call__(self, caption: str) -> Int[Tensor, "1 n"]:
        """The tokens' numbers, on the model's device; the special ones are kept in any case."""
        length = len(self._tokenizer(caption, verbose=False).input_ids)
        if length > self.tokens:
            self._count(caption, length)
        pieces = self._tokenizer(
            caption,
            padding=self._padding,
            truncation=True,
            max_length=self.tokens,
            return_tensors="pt",
        )
        return pieces.input_ids.to(self._device)

    def _count(self, caption: str, length: int) -> None:
        if not self.cut:
            print(
                f"caption '{caption[:30]}...' has {length} tokens; {self.name} reads the first "
                f"{self.tokens}, of this and of any longer one",
                file=sys.stderr,
            )
        self.cut += 1
