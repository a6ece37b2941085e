"""Classifier-free guidance (Ho & Salimans 2022) within an interval of times (Kynkäänniemi 2024).

velocity = v_null + scale * (v_condition - v_null)
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from flowbrush.condition import Condition
from flowbrush.flow.denoiser import VelocityField
from flowbrush.flow.path import Pictures


@dataclass
class Guided:
    """A VelocityField around another: both passes in one batch, one pass outside the interval.

    null: the condition of no caption, a batch of one.
    interval: guidance acts while low <= t < high.
    channels: only so many first ones are guided; None = all.

    `t` is one time for the whole batch. Keep it on the CPU: a look then costs no synchronisation.
    """

    field: VelocityField
    null: Condition
    scale: float
    interval: tuple[float, float] = (0.0, 1.0)
    channels: int | None = None

    def __post_init__(self) -> None:
        self._joined: tuple[Condition, Condition] | None = None

    def __call__(self, x_t: Pictures, t: Float[Tensor, " b"], condition: Condition) -> Pictures:
        low, high = self.interval
        if self.scale == 1 or not low <= float(t[0]) < high:
            return self.field(x_t, t, condition)
        both = self._followed_by_null(condition, len(x_t))
        given, unguided = self.field(torch.cat([x_t, x_t]), torch.cat([t, t]), both).chunk(2)
        guided = unguided + self.scale * (given - unguided)
        if self.channels is None:
            return guided
        return torch.cat([guided[:, : self.channels], given[:, self.channels :]], dim=1)

    def _followed_by_null(self, condition: Condition, b: int) -> Condition:
        """The same object at every step of a solver, so that work on it can be done once."""
        if self._joined is None or self._joined[0] is not condition:
            self._joined = condition, condition.followed_by(self.null.expanded(b))
        return self._joined[1]
