"""Samplers that add fresh noise at each step: the SDEs of SiT, and DDPM's ancestral sampling.

Each step is (x, t, after, fresh) -> x at `after`, with `fresh` the step's own noise, of the same
standard deviation as the noise at t = 0. The last step, to t = 1, adds none.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from flowbrush.flow.solvers import Slope

DiffusionForm = Literal["sigma", "constant", "sbdm", "decreasing", "increasing-decreasing"]
Fresh = Callable[[int], Tensor]  # the number of a step -> its noise, of the shape of x

_FORMS: dict[DiffusionForm, Callable[[float], float]] = {
    "sigma": lambda t: 1 - t,
    "constant": lambda t: 1.0,
    # Infinite at t = 0, where x is noise already and needs no more.
    "sbdm": lambda t: (1 - t) / t if t > 0 else 0.0,
    "decreasing": lambda t: (math.cos(math.pi * t) + 1) ** 2 / 4,
    "increasing-decreasing": lambda t: math.sin(math.pi * t) ** 2,
}


class ReverseSDE:
    """dx = (velocity + w score) dt + sqrt(2 w) dW, with the flow's own densities at any w(t) >= 0.

    On the straight path the score is (t velocity - x) / (1 - t). (Ma et al. 2024, eq. 5 and 9)
    """

    def __init__(self, slope: Slope, form: DiffusionForm, norm: float) -> None:
        self._slope, self._form, self._norm = slope, _FORMS[form], norm

    def euler(self, x: Tensor, t: float, after: float, fresh: Tensor) -> Tensor:
        """Euler-Maruyama, one evaluation; the last step is its mean."""
        x_after = x + (after - t) * self._drift(x, t)
        return x_after if after == 1 else x_after + self._spread(t, after) * fresh

    def heun(self, x: Tensor, t: float, after: float, fresh: Tensor) -> Tensor:
        """Noise first, then Heun along the drift, two evaluations; the last step is Euler's."""
        if after == 1:
            return self.euler(x, t, after, fresh)
        noisy, dt = x + self._spread(t, after) * fresh, after - t
        k1 = self._drift(noisy, t)
        return noisy + dt / 2 * (k1 + self._drift(noisy + dt * k1, after))

    def _drift(self, x: Tensor, t: float) -> Tensor:
        velocity, w = self._slope(t, x), self._w(t)
        return velocity + w / (1 - t) * (t * velocity - x)

    def _spread(self, t: float, after: float) -> float:
        return math.sqrt(2 * self._w(t) * (after - t))

    def _w(self, t: float) -> float:
        return self._norm * self._form(t)


def ddpm(slope: Slope, x: Tensor, t: float, after: float, fresh: Tensor) -> Tensor:
    """A draw of x at `after`, given x at `t` and the predicted data (Ho et al. 2020, eq. 6 and 7).

    In the paper's variables, x / hypot(t, 1 - t). Channels of the slope beyond those of x are a
    learned variance: where its logarithm lies, from -1 to 1, between those of the least and the
    greatest that it may be (Nichol & Dhariwal 2021, eq. 15). Without them it is the least.
    """
    velocity, share = slope(t, x).tensor_split([x.shape[1]], dim=1)
    data = x + (1 - t) * velocity
    size, size_after = math.hypot(t, 1 - t), math.hypot(after, 1 - after)
    kept, kept_after = (t / size) ** 2, (after / size_after) ** 2  # alpha-bar
    beta = 1 - kept / kept_after
    of_data = math.sqrt(kept_after) * beta / (1 - kept)
    of_x = math.sqrt(kept / kept_after) * (1 - kept_after) / (1 - kept)
    mean = of_data * data + of_x / size * x
    if after == 1:
        return mean
    least, greatest = math.log(beta * (1 - kept_after) / (1 - kept)), math.log(beta)
    if share.shape[1] == 0:
        return size_after * (mean + math.exp(least / 2) * fresh)
    log_variance = least + (share + 1) / 2 * (greatest - least)
    return size_after * (mean + torch.exp(log_variance / 2) * fresh)
