"""From noise to data along a velocity field, as one function of tensors."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from flowbrush.condition import Condition
from flowbrush.errors import UserError
from flowbrush.flow.denoiser import VelocityField
from flowbrush.flow.path import Pictures
from flowbrush.flow.solvers import euler, solve
from flowbrush.flow.times import grid

Method = Literal["euler", "heun", "midpoint", "rk4", "dopri5"]


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How a picture is painted."""

    method: Method = "heun"
    steps: int = 25
    shift: float = 1.0  # of the solver's times; above 1 spends more steps near the noise
    last_gap: float | None = None  # of the last step before the shift; None = as the others
    scale: float = 2.5  # of guidance; 1 = none
    interval: tuple[float, float] = (0.0, 1.0)  # of times in which guidance acts
    guided_channels: int | None = None  # only so many first ones: 3 as DiT and SiT publish
    clean_end: bool = True  # False clamps data-prediction at t_eps to the end, as JiT publishes
    rtol: float = 1e-3  # dopri5 only
    atol: float = 1e-3

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"sampling: steps {self.steps} must be 1 or more")
        if self.last_gap is not None and not 0 < self.last_gap < 1:
            raise UserError(f"sampling: last_gap {self.last_gap} must be between 0 and 1")
        if not 0 <= self.interval[0] <= self.interval[1] <= 1:
            raise UserError(
                f"sampling: interval {self.interval} must be two times, 0 <= low <= high <= 1"
            )

    @property
    def times(self) -> list[float]:
        """Where the solver stops, from 0 to 1."""
        return grid(self.steps, self.shift, self.last_gap)


def transport(
    field: VelocityField, noise: Pictures, condition: Condition, config: SamplingConfig
) -> Pictures:
    """The data at t = 1 that `noise` at t = 0 flows to.

    The last step is Euler's: its gap is exactly the step, so a network that predicts
    data ends at its prediction.
    """

    def slope(t: float, x: Tensor) -> Tensor:
        return field(x, torch.full((len(x),), t), condition)

    times = config.times
    x = solve(slope, noise, times[:-1], config.method, config.rtol, config.atol)
    return euler(slope, x, times[-2], times[-1] - times[-2])
