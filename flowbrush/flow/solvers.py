"""Solvers of dx/dt = slope(t, x). A fixed-step method: (slope, x, t, dt) -> x at t + dt."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from flowbrush.errors import UserError, nearest

Slope = Callable[[float, Tensor], Tensor]


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

    The rows share their steps: the worst decides. Step control: Hairer, Nørsett & Wanner, II.4.
    """
    dt = min(0.05, end - t)
    k1 = slope(t, x)
    while t < end:
        dt = min(dt, end - t)
        slopes = [k1]
        after = x
        for c, weights in zip(_C[1:], _A[1:], strict=True):
            after = x + dt * _weighted(slopes, weights)
            slopes.append(slope(t + c * dt, after))
        error = dt * _weighted(slopes, _E)
        allowed = atol + rtol * torch.maximum(x.abs(), after.abs())
        worst = float((error / allowed).flatten(1).square().mean(dim=1).sqrt().max())
        if worst <= 1:
            t, x, k1 = t + dt, after, slopes[-1]
            if end - t < 1e-12:
                break
        elif dt < 1e-7:
            raise UserError(
                f"dopri5: the error stays above the tolerance at t = {t:.4f}; raise rtol and atol"
            )
        dt *= min(5.0, max(0.2, 0.9 * max(worst, 1e-10) ** -0.2))
    return x


def _weighted(slopes: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    total = weights[0] * slopes[0]
    for weight, k in zip(weights[1:], slopes[1:], strict=True):
        total = total + weight * k if weight else total
    return total
