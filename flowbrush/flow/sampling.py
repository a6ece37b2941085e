"""From noise to data along a velocity field, as one function of tensors."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from flowbrush.condition import Condition
from flowbrush.errors import UserError
from flowbrush.flow.denoiser import Denoiser, FlowConfig, VelocityField
from flowbrush.flow.guidance import Guided
from flowbrush.flow.multistep import DPMSolver2M
from flowbrush.flow.path import Pictures
from flowbrush.flow.solvers import STEPS, RowTimes, Slope, as_rows, dopri5, euler
from flowbrush.flow.stochastic import DiffusionForm, Fresh, ReverseSDE, ddpm
from flowbrush.flow.times import grid

Method = Literal[
    "euler", "heun", "midpoint", "rk4", "dopri5", "dpmsolver++", "sde_euler", "sde_heun", "ddpm"
]
STOCHASTIC = ("sde_euler", "sde_heun", "ddpm")
Step = Callable[[Tensor, float, float, int], Tensor]  # x, t, the time after it, the step's number
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
    diffusion_form: DiffusionForm = "sigma"  # of the SDE that sde_euler and sde_heun solve: w(t)
    diffusion_norm: float = 1.0  # w(t) is multiplied by this; 0 adds no noise

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"sampling: steps {self.steps} must be 1 or more")
        if self.last_gap is not None and not 0 < self.last_gap < 1:
            raise UserError(f"sampling: last_gap {self.last_gap} must be between 0 and 1")
        if not 0 <= self.diffusion_norm < math.inf:
            raise UserError(f"sampling: diffusion_norm {self.diffusion_norm} must be 0 or more")
        if not 0 <= self.interval[0] <= self.interval[1] <= 1:
            raise UserError(
                f"sampling: interval {self.interval} must be two times, 0 <= low <= high <= 1"
            )

    def times(self, flow: FlowConfig) -> list[float]:
        """Where the solver stops, up to 1.

        From 0; for a diffusion from its first time, in steps that are even in its own.
        Raises UserError for more steps than the diffusion has, or shifted ones.
        """
        adaptive = self.method == "dopri5"
        if flow.diffusion is not None:
            if self.shift != 1 or self.last_gap is not None:
                raise UserError(
                    f"sampling: shift {self.shift}, last_gap {self.last_gap}; the weights are a "
                    "diffusion's, whose steps are fixed: set shift to 1 and last_gap to none"
                )
            through_zero = self.method != "dpmsolver++"
            return flow.diffusion.times(2 if adaptive else self.steps, through_zero)
        if adaptive:
            return [0.0, 1 - flow.t_eps, 1.0] if flow.ends_at_prediction else [0.0, 1.0]
        return grid(self.steps, self.shift, self.last_gap)


def sampling_denoiser(backbone: nn.Module, flow: FlowConfig, config: SamplingConfig) -> Denoiser:
    """The network of `flow` to sample from.

    Data-prediction with a clean end needs no clamp: the last step ends at the prediction.
    """
    clean = config.clean_end and flow.prediction == "data"
    return Denoiser(backbone, flow.prediction, 0.0 if clean else flow.t_eps, flow.diffusion)


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
    fresh: Fresh | None = None,
) -> Pictures:
    """The data at t = 1 that `noise` at t = 0 flows to.

    flow: what the network behind `field` predicts. Where it is data, or the noise of a diffusion,
    the last step is Euler's: its gap is exactly the step, so that it ends at the predicted data.
    dopri5 begins this step at 1 - flow.t_eps, a solver of fixed steps at its last time before 1.
    fresh: the noise of each step of a STOCHASTIC method.
    """

    def slope(t: RowTimes, x: Tensor) -> Tensor:
        return field(x, as_rows(t, len(x)), condition)

    step, times = _step(slope, config, fresh), config.times(flow)
    x = noise * math.hypot(times[0], 1 - times[0])  # a diffusion begins with noise alone
    for number, (t, after) in enumerate(pairwise(times)):
        if after == 1 and flow.ends_at_prediction and config.method != "ddpm":
            x = euler(slope, x, t, after - t)
        else:
            x = step(x, t, after, number)
    return x


def _step(slope: Slope, config: SamplingConfig, fresh: Fresh | None) -> Step:
    """A step of the configured method."""
    if config.method == "dopri5":
        return lambda x, t, after, _: dopri5(slope, x, t, after, config.rtol, config.atol)
    if config.method == "dpmsolver++":
        multistep = DPMSolver2M(slope)
        return lambda x, t, after, _: multistep(x, t, after)
    if config.method not in STOCHASTIC:
        plain = STEPS[config.method]
        return lambda x, t, after, _: plain(slope, x, t, after - t)
    assert fresh is not None, f"{config.method} needs fresh noise"
    if config.method == "ddpm":
        return lambda x, t, after, number: ddpm(slope, x, t, after, fresh(number))
    sde = ReverseSDE(slope, config.diffusion_form, config.diffusion_norm)
    drawn = sde.heun if config.method == "sde_heun" else sde.euler
    return lambda x, t, after, number: drawn(x, t, after, fresh(number))
