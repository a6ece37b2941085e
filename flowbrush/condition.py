"""What a picture is conditioned on: a label, text tokens, a pooled text vector, or several."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

MAX_CAPTION = 2000  # characters; more is a mistake, not a caption


@dataclass(frozen=True)
class Condition:
    """A batch of conditions. `None` means that this model does not use the field.

    A `text_mask` of `None` beside a `text` means that every token is real.
    """

    label: Int[Tensor, " b"] | None = None
    text: Float[Tensor, "b n d"] | None = None
    text_mask: Bool[Tensor, "b n"] | None = None  # True = a real token
    pooled: Float[Tensor, "b p"] | None = None

    def map(self, fn: Callable[[Tensor], Tensor]) -> "Condition":
        """The condition with `fn` applied to each tensor that is there."""
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        return Condition(**{k: None if v is None else fn(v) for k, v in own.items()})

    def rows(self, chosen: Int[Tensor, " k"]) -> "Condition":
        return self.map(lambda part: part[chosen])

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> "Condition":
        """dtype: of the parts that are not whole numbers or masks; None = as they are."""
        return self.map(lambda part: part.to(device, dtype if part.is_floating_point() else None))

    def expanded(self, b: int) -> "Condition":
        """One condition, repeated for a batch of `b`."""
        return self.map(lambda part: part.expand(b, *part.shape[1:]))

    def replaced_where(self, dropped: Bool[Tensor, " b"], null: "Condition") -> "Condition":
        """The null condition (a batch of one) in the `dropped` rows: dropout for guidance."""
        own, other = _alike([self, null.expanded(len(dropped))])

        def choose(name: str) -> Tensor | None:
            mine, nulls = getattr(own, name), getattr(other, name)
            if mine is None:
                return None
            return torch.where(dropped.view(-1, *[1] * (mine.ndim - 1)), nulls, mine)

        return Condition(**{f.name: choose(f.name) for f in fields(self)})

    def followed_by(self, other: "Condition") -> "Condition":
        """Both batches as one, `other` after this one."""
        return joined([self, other])


def joined(conditions: Sequence[Condition]) -> Condition:
    """Batches as one, in their order, their texts padded to the longest."""
    alike = _alike(conditions)

    def join(name: str) -> Tensor | None:
        parts = [getattr(condition, name) for condition in alike]
        return None if parts[0] is None else torch.cat(parts)

    return Condition(**{f.name: join(f.name) for f in fields(Condition)})


def _alike(conditions: Sequence[Condition]) -> list[Condition]:
    """The conditions with the same number of tokens, and with a mask where any of them has one."""
    texts = [condition.text for condition in conditions if condition.text is not None]
    if len(texts) < len(conditions):
        return list(conditions)
    lengths = {text.shape[1] for text in texts}
    if len(lengths) == 1 and all(condition.text_mask is None for condition in conditions):
        return list(conditions)
    return [_padded(condition, max(lengths)) for condition in conditions]


def _padded(condition: Condition, n: int) -> Condition:
    text = condition.text
    assert text is not None
    mask = condition.text_mask
    if mask is None:
        mask = torch.ones(text.shape[:2], dtype=torch.bool, device=text.device)
    missing = n - text.shape[1]
    return replace(
        condition,
        text=torch.nn.functional.pad(text, (0, 0, 0, missing)),
        text_mask=torch.nn.functional.pad(mask, (0, missing), value=False),
    )
