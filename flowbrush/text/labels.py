"""Class labels: captions out of a closed list."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from flowbrush.condition import Condition
from flowbrush.errors import UserError, nearest
from flowbrush.shapes import ConditionShapes


@dataclass(frozen=True, kw_only=True)
class LabelsConfig:
    """The classes' names, in the order of their numbers; empty = as the source names them."""

    names: tuple[str, ...] = ()

    def build(self, device: torch.device) -> "Labels":
        return Labels(self.names)


class Labels:
    """A TextEncoder with class names as captions. The null label is the number after the last."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._numbers = {name: i for i, name in enumerate(names)}

    @property
    def shapes(self) -> ConditionShapes:
        return ConditionShapes(labels=len(self._numbers))

    @property
    def null(self) -> Condition:
        return Condition(label=torch.tensor([len(self._numbers)]))

    @property
    def parts(self) -> int:
        return 1

    @property
    def cut(self) -> int:
        return 0

    def __call__(self, captions: list[str], silent: Bool[Tensor, "b 1"] | None = None) -> Condition:
        """Raises UserError for a caption that is no class."""
        for caption in captions:
            if caption not in self._numbers:
                known = list(self._numbers)
                listed = ", ".join([*known[:10], "..."] if len(known) > 10 else known)
                close = nearest(caption, known)
                raise UserError(f"'{caption}' is not a class of this model ({listed}){close}")
        own = Condition(label=torch.tensor([self._numbers[caption] for caption in captions]))
        return own if silent is None else own.replaced_where(silent[:, 0], self.null)

    def encode_many(self, captions: list[str], batch: int) -> list[Condition]:
        return [self([caption]) for caption in captions]
