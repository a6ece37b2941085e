"""Classifier-free guidance (Ho & Salimans 2022) within an interval of times (Kynkäänniemi 2024).

velocity = v_null + scale * (v_condition - v_null)
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from flowbrush.condition import Condition
from flowbrush.flow.denoiser import VelocityField
from flowbrush.flow.path import Pictures


def guided_at(
    t: Float[Tensor, " b"], interval: tuple[float, float], open_low: bool = False
) -> Bool[Tensor, " b"]:
    """Whether guidance acts at each time: low <= t < high, and at t = 1 where high = 1.

    open_low: low < t, unless low = 0 (Li & He 2025).

    A time is the rounded sum of a solver's steps. One that is within a few units of its dtype's
    last place of an end is at that end: step 7 of 10 is at 0.7, and so is 0.6 + 0.1.
    """
    low, high = interval
    near = 16 * torch.finfo(t.dtype).eps
    begun = t > low + near if open_low and low > 0 else t > low - near
    return begun & (t < (math.inf if low < high == 1 else high - near))


@dataclass
class Guided:
    """A VelocityField around another: both passes in one batch, one pass outside the interval.

    null: the condition of no caption, a batch of one.
    interval, open_low: when guidance acts; see `guided_at`.
    channels: only so many first ones are guided; None = as many as x_t has. A learned variance,
    which comes after them, is that of the condition.

    Keep `t` on the CPU: a look at it then costs no synchronization. Give it in float64, or the
    ends of the interval are as coarse as its dtype.
    """

    field: VelocityField
    null: Condition
    scale: float
    interval: tuple[float, float] = (0.0, 1.0)
    channels: int | None = None
    open_low: bool = False

    def __post_init__(self) -> None:
        self._joined: tuple[Condition, Condition] | None = None

    def __call__(
        self, x_t: Pictures, t: Float[Tensor, " b"], condition: Condition
    ) -> Float[Tensor, "b out h w"]:
        acts = guided_at(t, self.interval, self.open_low)
        if self.scale == 1 or not acts.any():
            return self.field(x_t, t, condition)
        both = self._followed_by_null(condition, len(x_t))
        given, unguided = self.field(torch.cat([x_t, x_t]), torch.cat([t, t]), both).chunk(2)
        guided = unguided + self.scale * (given - unguided)
        if not acts.all():
            guided = torch.where(acts.to(x_t.device).view(-1, 1, 1, 1), guided, given)
        first = x_t.shape[1] if self.channels is None else self.channels
        if first == given.shape[1]:
            return guided
        return torch.cat([guided[:, :first], given[:, first:]], dim=1)

    def _followed_by_null(self, condition: Condition, b: int) -> Condition:
        """The same object at every step of a solver, so that work on it can be done once."""
        if self._joined is None or self._joined[0] is not condition:
            self._joined = condition, condition.followed_by(self.null.expanded(b))
        return self._joined[1]
