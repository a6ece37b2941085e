"""From noise to data along a velocity field, as one function of tensors."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from flowbrush.condition import Condition
from flowbrush.errors import UserError
from flowbrush.flow.denoiser import FlowConfig, VelocityField
from flowbrush.flow.guidance import Guided
from flowbrush.flow.path import Pictures
from flowbrush.flow.solvers import RowTimes, as_rows, euler, solve
from flowbrush.flow.times import grid

Method = Literal["euler", "heun", "midpoint", "rk4", "dopri5"]
VELOCITY = FlowConfig(prediction="velocity")


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How a picture is painted."""

    method: Method = "heun"
    steps: int = 25  # dopri5 has its own, whatever steps, shift and last_gap say
    shift: float = 1.0  # of the solver's times; above 1 spends more steps near the noise
    last_gap: float | None = None  # of the last step before the shift; None = as the others
    scale: float = 2.5  # of guidance; 1 = none
    interval: tuple[float, float] = (0.0, 1.0)  # guidance acts while low <= t < high
    interval_open_low: bool = False  # True: low < t, unless low is 0, as JiT publishes
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
        """Where a solver of fixed steps stops, from 0 to 1."""
        return grid(self.steps, self.shift, self.last_gap)


def guided(field: VelocityField, null: Condition, config: SamplingConfig) -> Guided:
    """`field` with the guidance of `config`; null: the condition of no caption, a batch of one."""
    return Guided(
        field, null, config.scale, config.interval, config.guided_channels, config.interval_open_low
    )


def transport(
    field: VelocityField,
    noise: Pictures,
    condition: Condition,
    config: SamplingConfig,
    flow: FlowConfig = VELOCITY,
) -> Pictures:
    """The data at t = 1 that `noise` at t = 0 flows to.

    flow: what the network behind `field` predicts. Where it is data, the last step is Euler's: its
    gap is exactly the step, so that it ends at the prediction. dopri5 begins this step at
    1 - flow.t_eps, a solver of fixed steps at its last time before 1.
    """

    def slope(t: RowTimes, x: Tensor) -> Tensor:
        return field(x, as_rows(t, len(x)), condition)

    times = config.times
    if config.method == "dopri5":
        times = [0.0, 1 - flow.t_eps, 1.0]
    if not flow.ends_at_prediction:
        return solve(slope, noise, times, config.method, config.rtol, config.atol)
    x = solve(slope, noise, times[:-1], config.method, config.rtol, config.atol)
    return euler(slope, x, times[-2], times[-1] - times[-2])
