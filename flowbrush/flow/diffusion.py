"""Weights that were trained as a discrete diffusion (DDPM: Ho et al. 2020), seen as a flow.

    sqrt(a) data + sqrt(1 - a) noise = x_t / hypot(t, 1 - t)     at t / (1 - t) = sqrt(a / (1 - a))

Its noisy pictures are those of the straight path up to a factor, so an Euler step is a DDIM step.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from flowbrush.errors import UserError


class Seen(NamedTuple):
    """What such a network is given."""

    x: Float[Tensor, "b c h w"]
    t: Float[Tensor, " b"]  # 1 - step / steps: a network of time_scale -steps embeds its step


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig:
    """The steps of the diffusion: how much noise each adds."""

    steps: int = 1000
    first_beta: float = 1e-4
    last_beta: float = 0.02
    betas: Literal["linear", "scaled_linear"] = "linear"  # scaled: linear in their roots
    # Of a DDPM step: the least that it may be, or what the second half of a double output says.
    variance: Literal["fixed_small", "learned_range"] = "fixed_small"

    def __post_init__(self) -> None:
        if self.steps < 2 or not 0 < self.first_beta <= self.last_beta < 1:
            raise UserError("flow.diffusion: 2 steps or more, 0 < first_beta <= last_beta < 1")

    @property
    def first_time(self) -> float:
        """The flow's time of the last step: nearer to the noise there is nothing that was seen."""
        return self.time(self.steps - 1)

    def time(self, step: int) -> float:
        """The flow's time of a step; rises as the step falls."""
        return float(torch.sigmoid(_log_ratios(self)[step]))

    def quantile(self, u: Float64[Tensor, " b"]) -> Float64[Tensor, " b"]:
        """The times of steps that are as likely each, from uniform numbers; they rise with them."""
        return torch.sigmoid(_log_ratios(self).flip(0))[
            (u * self.steps).long().clamp(max=self.steps - 1)
        ]

    def times(self, evaluations: int, through_zero: bool = False) -> list[float]:
        """Where a solver of so many evaluations stops: times even in the steps, then the data.

        They begin at the last step. Step 0 is passed over, as DPM-Solver does, or is the last to
        be evaluated (`through_zero`), as in DDPM's respaced steps.
        Raises UserError for more evaluations than steps.
        """
        if evaluations > self.steps:
            raise UserError(
                f"sampling: steps {evaluations}; the diffusion of these weights has {self.steps}"
            )
        pieces = max(1, evaluations - 1) if through_zero else evaluations
        last = self.steps - 1
        visited = [round(last * (pieces - i) / pieces) for i in range(evaluations)]
        return [*(self.time(step) for step in visited), 1.0]

    def seen(self, x_t: Float[Tensor, "b c h w"], t: Float[Tensor, " b"]) -> Seen:
        """`x_t` and `t` as the network knows them."""
        size = torch.hypot(t, 1 - t).to(x_t).view(-1, 1, 1, 1)
        return Seen(x_t / size, self.seen_time(t))

    def seen_time(self, t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """`t` as the network knows it; steps between two are interpolated."""
        wanted = torch.special.logit(t.double()).cpu()
        falling = _log_ratios(self)  # over the steps
        after = torch.searchsorted(-falling, -wanted).clamp(1, self.steps - 1)
        left, right = falling[after - 1], falling[after]
        step = (after - 1 + (left - wanted) / (left - right)).clamp(0, self.steps - 1)
        return (1 - step / self.steps).to(t)


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def _log_ratios(config: DiffusionConfig) -> Float[Tensor, " s"]:
    """log sqrt(a / (1 - a)) after each step, fp64."""
    power = 2 if config.betas == "scaled_linear" else 1
    ends = config.first_beta ** (1 / power), config.last_beta ** (1 / power)
    betas = torch.linspace(*ends, config.steps, dtype=torch.float64) ** power
    kept = torch.cumprod(1 - betas, dim=0)
    return torch.special.logit(kept) / 2
