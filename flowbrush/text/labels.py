"""Class labels: captions out of a closed list."""

from dataclasses import dataclass

import torch

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

    def __call__(self, captions: list[str]) -> Condition:
        """Raises UserError for a caption that is no class."""
        for caption in captions:
            if caption not in self._numbers:
                known = list(self._numbers)
                listed = ", ".join([*known[:10], "..."] if len(known) > 10 else known)
                close = nearest(caption, known)
                raise UserError(f"'{caption}' is not a class of this model ({listed}){close}")
        return Condition(label=torch.tensor([self._numbers[caption] for caption in captions]))
