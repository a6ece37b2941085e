"""Captions to tokens. What a text model cannot read is cut, and never without a word."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from flowbrush.condition import Condition
from flowbrush.errors import UserError

# Padding is left out; or it is there up to the most tokens, and counts as any other token.
Padding = Literal["masked", "attended"]
SHORTEST = 16  # tokens of a row in a batch of fixed shape


@dataclass(frozen=True)
class Tokens:
    """A batch of captions, padded behind their ends."""

    numbers: Int[Tensor, "b n"]
    real: Int[Tensor, "b n"]  # 1 = a token, 0 = padding

    def conditions(
        self, text: Float[Tensor, "b n d"], pooled: Float[Tensor, "b p"] | None = None
    ) -> list[Condition]:
        """What a model made of them: a Condition a caption, without padding."""
        lengths = self.real.sum(dim=1).tolist()
        batch = Condition(text=text, pooled=pooled)
        rows = [batch.rows(i) for i in torch.arange(len(text), device=text.device).split(1)]
        return [_first(n, row) for n, row in zip(lengths, rows, strict=True)]


def _first(n: int, row: Condition) -> Condition:
    """The first `n` tokens; a copy, as a view would keep the padding in memory."""
    assert row.text is not None
    return replace(row, text=row.text[:, :n].clone())


def with_mean(row: Condition) -> Condition:
    """The mean of its tokens as the pooled vector, in fp32."""
    assert row.text is not None
    return replace(row, pooled=row.text.float().mean(dim=1))


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

    def __call__(self, captions: list[str], length: int = 0) -> Tokens:
        """On the model's device; special tokens are kept in any case.

        length: tokens that a row has at least, with its padding.
        """
        return self._padded([torch.tensor(self._numbers(caption)) for caption in captions], length)

    def in_batches(
        self, captions: list[str], batch: int, compute: Callable[[Tokens], list[Condition]]
    ) -> list[Condition]:
        """What `compute` makes of each caption, in batches whose shape no other caption changes.

        Each is `batch` rows of a length that is a power of two. The last row is an empty caption:
        a model never meets a batch without padding, for which transformers has other kernels.
        Up to 1 each caption is computed alone, without padding.
        """
        if batch <= 1:
            return [row for caption in captions for row in compute(self([caption]))]
        tokens = [torch.tensor(self._numbers(caption)) for caption in captions]
        empty = torch.tensor(self._numbers(""))
        by_length: dict[int, list[int]] = {}  # indices of captions
        for index, row in enumerate(tokens):
            length = min(self.tokens, max(SHORTEST, 1 << (len(row) - 1).bit_length()))
            by_length.setdefault(length, []).append(index)
        found: dict[int, Condition] = {}
        for length, alike in by_length.items():
            for i in range(0, len(alike), batch - 1):
                chunk = alike[i : i + batch - 1]
                rows = [tokens[index] for index in chunk] + [empty] * (batch - len(chunk))
                found |= zip(chunk, compute(self._padded(rows, length)), strict=False)
        return [found[index] for index in range(len(captions))]

    def _padded(self, rows: list[Int[Tensor, " _"]], length: int) -> Tokens:
        real = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        numbers = pad_sequence(rows, batch_first=True)
        missing = max(0, length - numbers.shape[1])
        both = [pad(part, (0, missing)).to(self._device) for part in (numbers, real)]
        return Tokens(*both)

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
