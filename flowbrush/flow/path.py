"""The straight path from noise (t = 0) to data (t = 1), and what a network may predict about it.

    x_t = t * data + (1 - t) * noise        velocity = dx_t/dt = data - noise

(Lipman et al. 2023, Liu et al. 2023)
"""

from typing import Literal

from jaxtyping import Float
from torch import Tensor

Prediction = Literal["velocity", "data", "noise"]
Pictures = Float[Tensor, "b c h w"]


def interpolate(data: Pictures, noise: Pictures, t: Float[Tensor, " b"]) -> Pictures:
    """x_t at the time of each row."""
    t = _as_column(t, data)
    return t * data + (1 - t) * noise


def to_velocity(
    value: Pictures, kind: Prediction, x_t: Pictures, t: Float[Tensor, " b"], t_eps: float
) -> Pictures:
    """The velocity that follows from a prediction of `kind`.

    The gap that is divided by, 1 - t for data and t for noise, is clamped from below at `t_eps`.
    Noise is divided only for the data that it implies: at t = 0 the velocity still leads away
    from the noise.
    """
    t = _as_column(t, x_t)
    if kind == "data":
        return (value - x_t) / (1 - t).clamp(min=t_eps)
    if kind == "noise":
        data = (x_t - (1 - t) * value) / t.clamp(min=t_eps)
        return data - value
    return value


def from_velocity(
    velocity: Pictures, kind: Prediction, x_t: Pictures, t: Float[Tensor, " b"]
) -> Pictures:
    """The data or noise that a velocity at (x_t, t) points at."""
    t = _as_column(t, x_t)
    if kind == "data":
        return x_t + (1 - t) * velocity
    if kind == "noise":
        return x_t - t * velocity
    return velocity


def convert(
    value: Pictures,
    kind: Prediction,
    wanted: Prediction,
    x_t: Pictures,
    t: Float[Tensor, " b"],
    t_eps: float,
) -> Pictures:
    """A prediction of `kind` said as one of the kind `wanted`."""
    if kind == wanted:
        return value
    return from_velocity(to_velocity(value, kind, x_t, t, t_eps), wanted, x_t, t)


def truth(kind: Prediction, data: Pictures, noise: Pictures) -> Pictures:
    """What a perfect network of that kind would say."""
    if kind == "data":
        return data
    return noise if kind == "noise" else data - noise


def _as_column(t: Float[Tensor, " b"], like: Tensor) -> Float[Tensor, "b 1 1 1"]:
    return t.to(like).view(-1, 1, 1, 1)
