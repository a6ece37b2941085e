"""What a flow does on its way, kept at every time: for drawing."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from flowbrush.condition import Condition
from flowbrush.flow.denoiser import VelocityField
from flowbrush.flow.path import Pictures
from flowbrush.flow.solvers import RowTimes, as_rows, solve


@torch.no_grad()
def along(
    field: VelocityField,
    noise: Pictures,
    condition: Condition,
    times: Sequence[float],
    method: str = "heun",
) -> Float[Tensor, "s b c h w"]:
    """x at each of the times, of which the first is that of `noise`; one step from each to the
    next."""

    def slope(t: RowTimes, x: Tensor) -> Tensor:
        return field(x, as_rows(t, len(x)), condition)

    stops = [noise]
    for start, end in pairwise(times):
        stops.append(solve(slope, stops[-1], [start, end], method))
    return torch.stack(stops)
