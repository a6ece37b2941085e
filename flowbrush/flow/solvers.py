"""Solvers of dx/dt = slope(t, x). A fixed-step method: (slope, x, t, dt) -> x at t + dt.

Times are doubles, so that every step of every solver is where it is meant to be.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float64
from torch import Tensor

from flowbrush.errors import UserError, nearest

RowTimes = float | Float64[Tensor, " b"]  # one for all rows of x, or one for each
Slope = Callable[[RowTimes, Tensor], Tensor]


def as_rows(t: RowTimes, b: int) -> Float64[Tensor, " b"]:
    """The time of each of `b` rows, on the CPU."""
    return t if isinstance(t, Tensor) else torch.full((b,), t, dtype=torch.float64)


def euler(slope: Slope, x: Tensor, t: float, dt: float) -> Tensor:
    """Order 1, one evaluation a step."""
    return x + dt * slope(t, x)


def heun(slope: Slope, x: Tensor, t: float, dt: float) -> Tensor:
    """Order 2, two evaluations: the mean of the slopes at both ends."""
    k1 = slope(t, x)
    k2 = slope(t + dt, x + dt * k1)
    return x + dt / 2 * (k1 + k2)


def midpoint(slope: Slope, x: Tensor, t: float, dt: float) -> Tensor:
    """Order 2, two evaluations: the slope in the middle."""
    k1 = slope(t, x)
    return x + dt * slope(t + dt / 2, x + dt / 2 * k1)


def rk4(slope: Slope, x: Tensor, t: float, dt: float) -> Tensor:
    """Order 4, four evaluations: the classical Runge-Kutta method."""
    k1 = slope(t, x)
    k2 = slope(t + dt / 2, x + dt / 2 * k1)
    k3 = slope(t + dt / 2, x + dt / 2 * k2)
    k4 = slope(t + dt, x + dt * k3)
    return x + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


STEPS = {"euler": euler, "heun": heun, "midpoint": midpoint, "rk4": rk4}
METHODS = (*STEPS, "dopri5")

# Dormand & Prince (1980), 5(4): the last row of A is the fifth-order solution; E is what sets the
# fourth-order one apart from it.
_C = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_A = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_E = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


def solve(
    slope: Slope,
    x: Tensor,
    times: Sequence[float],
    method: str,
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> Tensor:
    """x at times[-1], from x at times[0].

    A fixed-step method steps from each time to the next; `dopri5` chooses its own steps within the
    tolerances. The times rise. Raises UserError for an unknown method.
    """
    if method == "dopri5":
        return dopri5(slope, x, times[0], times[-1], rtol, atol)
    if method not in STEPS:
        raise UserError(
            f"method: '{method}' is not one of {', '.join(METHODS)}{nearest(method, METHODS)}"
        )
    for t, after in pairwise(times):
        x = STEPS[method](slope, x, t, after - t)
    return x


def dopri5(slope: Slope, x: Tensor, t: float, end: float, rtol: float, atol: float) -> Tensor:
    """Dormand-Prince 5(4); each row's error stays under `atol + rtol * |x|` (root mean square).

    Each row takes its own steps: what becomes of it does not depend on the others. A row that is
    at the end waits there. Step control: Hairer, Nørsett & Wanner, II.4, but a step changes by
    whole fourths of an octave, so that the rounding of a batch's sums does not move the times.
    """
    now = as_rows(t, len(x))
    dt = (end - now).clamp(max=0.05)
    k1 = slope(now, x)
    while bool((going := now < end).any()):
        dt = torch.minimum(dt, end - now)
        h = _column(dt.to(x), x)
        slopes, after = [k1], x
        for c, weights in zip(_C[1:], _A[1:], strict=True):
            after = x + h * _weighted(slopes, weights)
            slopes.append(slope(now + c * dt, after))
        allowed = atol + rtol * torch.maximum(x.abs(), after.abs())
        error = h * _weighted(slopes, _E) / allowed
        error = error.flatten(1).square().mean(dim=1).sqrt().cpu().double().nan_to_num(math.inf)
        taken = going & (error <= 1)
        if (stuck := going & ~taken & (dt < 1e-7)).any():
            raise UserError(
                "dopri5: the error stays above the tolerance at "
                f"t = {float(now[stuck][0]):.4f}; raise rtol and atol"
            )
        column = _column(taken.to(x.device), x)
        x, k1 = torch.where(column, after, x), torch.where(column, slopes[-1], k1)
        now = torch.where(taken, now + dt, now)
        now = torch.where(end - now < 1e-12, end, now)
        factor = (0.9 * error.clamp(min=1e-10) ** -0.2).clamp(0.2, 5.0)
        dt = dt * torch.exp2((4 * torch.log2(factor)).floor() / 4)
    return x


def _column(rows: Tensor, like: Tensor) -> Tensor:
    """A number for each row, to be multiplied with all of its row."""
    return rows.view(-1, *[1] * (like.ndim - 1))


def _weighted(slopes: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    total = weights[0] * slopes[0]
    for weight, k in zip(weights[1:], slopes[1:], strict=True):
        total = total + weight * k if weight else total
    return total
