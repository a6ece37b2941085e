"""Captions to tokens. What a text model cannot read is cut, and never without a word."""

import sys
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from flowbrush.condition import Condition
from flowbrush.errors import UserError

# Padding is left out; or it is there up to the most tokens, and counts as any other token.
Padding = Literal["masked", "attended"]


@dataclass(frozen=True)
class Tokens:
    """A batch of captions, padded behind their ends."""

    numbers: Int[Tensor, "b n"]
    real: Int[Tensor, "b n"]  # 1 = a token, 0 = padding

    def conditions(
        self, text: Float[Tensor, "b n d"], pooled: Float[Tensor, "b p"] | None = None
    ) -> list[Condition]:
        """What a model made of them: a Condition a caption, without padding, on the CPU."""
        batch = Condition(text=text, pooled=pooled).to(torch.device("cpu"), torch.float32)
        rows = [batch.rows(i) for i in torch.arange(len(text)).split(1)]
        return [_first(n, row) for n, row in zip(self.real.sum(dim=1).tolist(), rows, strict=True)]


def _first(n: int, row: Condition) -> Condition:
    assert row.text is not None
    return replace(row, text=row.text[:, :n])


def with_mean(row: Condition) -> Condition:
    """The mean of its tokens as the pooled vector."""
    assert row.text is not None
    return replace(row, pooled=row.text.mean(dim=1))


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

    def __call__(self, captions: list[str]) -> Tokens:
        """On the model's device; special tokens are kept in any case."""
        rows = [torch.tensor(self._numbers(caption)) for caption in captions]
        real = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        numbers = pad_sequence(rows, batch_first=True)
        return Tokens(numbers.to(self._device), real.to(self._device))

    def _numbers(self, caption: str) -> list[int]:
        length = len(self._tokenizer(caption, verbose=False).input_ids)
        if length > self.tokens:
            self._count(caption, length)
        pieces = self._tokenizer(
            caption, padding=self._padding, truncation=True, max_length=self.tokens
        )
        return pieces.input_ids or self._nothing()

    def _nothing(self) -> list[int]:
        """Where a tokenizer puts nothing around a caption, an empty one is what begins a text."""
        words = self._tokenizer
        first = words.eos_token_id if words.bos_token_id is None else words.bos_token_id
        if first is None:
            raise UserError(f"text: {self.name}'s tokenizer has no token for an empty caption")
        return [first]

    def _count(self, caption: str, length: int) -> None:
        if not self.cut:
            print(
                f"caption '{caption[:30]}...' has {length} tokens; {self.name} reads the first "
                f"{self.tokens}, of this and of any longer one",
                file=sys.stderr,
            )
        self.cut += 1
