"""DPM-Solver++(2M) along the straight path: order 2 from one evaluation a step (Lu et al. 2022).

With x = t data + (1 - t) noise and r = t / (1 - t), the equation d(x / (1 - t)) = data dr holds, so
a step in which the data's prediction D stays the same is exact:

    x' / (1 - t') = x / (1 - t) + D (r' - r)

D is what the last two predictions, a line in log r, give for the middle of the step. The paper's
variables differ from these by the factor hypot(t, 1 - t), which cancels.
"""

import math

from torch import Tensor

from flowbrush.flow.solvers import Slope


class DPMSolver2M:
    """A step of a solve from the noise to the data; it remembers the prediction before."""

    def __init__(self, slope: Slope) -> None:
        self._slope = slope
        self._before: tuple[float, Tensor] | None = None  # log r, and the data predicted there

    def __call__(self, x: Tensor, t: float, after: float) -> Tensor:
        """x at `after`, from x at `t`."""
        data = x + (1 - t) * self._slope(t, x)
        now, later = _log_ratio(t), _log_ratio(after)
        middle = data
        # Where log r is infinite, before the first and after the last step, the order is 1.
        if self._before is not None and later < math.inf:
            past, data_before = self._before
            middle = data + (later - now) / (2 * (now - past)) * (data - data_before)
        self._before = now, data
        kept = (1 - after) / (1 - t)
        return kept * x + (after - kept * t) * middle


def _log_ratio(t: float) -> float:
    if t <= 0 or t >= 1:
        return -math.inf if t <= 0 else math.inf
    return math.log(t / (1 - t))
