"""Steps that would spoil the weights are not taken."""

import torch
from torch import Tensor

from flowbrush.errors import UserError
from flowbrush.experiment import TrainConfig

YOUNG = 100  # steps before a gradient can be called long
SHARE = 0.01  # of a step in the usual length


class Guard:
    """Skips a step whose gradient is not finite, or `skip_above` times as long as usual.

    It is the optimizer's kernel that leaves the weights and moments as they are: nothing waits for
    the device. Kept there: the steps taken and skipped, the usual length, the row of those skipped
    up to now, and the longest row since the last check.
    """

    def __init__(self, optimizer: torch.optim.AdamW, config: TrainConfig, device: torch.device):
        self._optimizer, self._config = optimizer, config
        self._taken, self._skipped, self._usual, self._row, self._longest = (
            torch.zeros((), device=device) for _ in range(5)
        )

    def step(self, norm: Tensor) -> Tensor:
        """The optimizer's step, unless the gradient of that norm is bad; whether it was, 0 or 1."""
        bad = ~norm.isfinite()
        if self._config.skip_above:
            long = norm > self._config.skip_above * self._usual
            bad |= long & (self._taken >= YOUNG)
        skipped = bad.float()
        self._optimizer.found_inf = skipped  # type: ignore[attr-defined]
        self._optimizer.step()
        self._row.copy_((self._row + 1) * skipped)
        self._longest.copy_(torch.maximum(self._longest, self._row))
        # The mean of all at first, then a moving one.
        share = torch.clamp(1 / (self._taken + 1), min=SHARE)
        self._usual.copy_(torch.where(bad, self._usual, self._usual.lerp(norm, share)))
        self._taken += 1 - skipped
        self._skipped += skipped
        return skipped

    def check(self) -> None:
        """Raises UserError once too many steps in a row were skipped; the weights are good."""
        row = int(self._longest)
        self._longest.zero_()
        if row >= self._config.most_skipped:
            raise UserError(
                f"{row} steps in a row were skipped, their gradients not finite or more than "
                f"{self._config.skip_above:g} times as long as usual; the last checkpoint is good. "
                "Go on from it with a lower --train.lr or with --train.precision fp32"
            )

    def check_any_taken(self) -> None:
        """Raises UserError where every step up to now was skipped: nothing was learned."""
        if self._skipped and not self._taken:
            raise UserError(
                f"all {int(self._skipped):,} steps were skipped, their gradients not finite; begin "
                "again with a lower --train.lr or with --train.precision fp32"
            )

    def summary(self) -> str:
        """One line for the user; empty if every step was taken."""
        if not self._skipped:
            return ""
        return f"steps skipped, their gradients not finite or too long: {int(self._skipped):,}"

    def state_dict(self) -> dict[str, Tensor]:
        """The state itself: filled, it goes on."""
        return {
            "taken": self._taken,
            "skipped": self._skipped,
            "usual": self._usual,
            "row": self._row,
        }
