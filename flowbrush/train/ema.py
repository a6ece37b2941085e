"""Moving averages of the weights, one pass over memory for each."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from flowbrush.averages import exponent

Decay = Callable[[int], float]  # of the average, at so many steps after the first


def exponential(decay: float) -> Decay:
    """At step n at most (1 + n) / (10 + n): a young average forgets its untrained start."""
    return lambda step: min(decay, (1 + step) / (10 + step))


def power(length: float) -> Decay:
    """(1 - 1 / t)^(γ + 1) at step t = n + 1 (Karras et al. 2024, eq. 127).

    Step τ then weighs (τ^(γ + 1) - (τ - 1)^(γ + 1)) / t^(γ + 1), the profile's integral over it.
    length: standard deviation of the profile, relative to the run so far.
    """
    gamma = exponent(length)
    return lambda step: (step / (step + 1)) ** (gamma + 1)


class EMA:
    """average <- decay * average + (1 - decay) * weight, after every step."""

    def __init__(self, network: nn.Module, decay: Decay) -> None:
        self._decay = decay
        self._weights = dict(network.named_parameters())
        self._averages = {name: w.detach().clone() for name, w in self._weights.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take the weights in, `step` steps after the first."""
        torch._foreach_lerp_(
            list(self._averages.values()),
            list(self._weights.values()),
            weight=1 - self._decay(step),
        )

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The network has the averages inside the `with`; its weights come back to the bit."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for name, weight in self._weights.items():
            weight.data, self._averages[name] = self._averages[name], weight.data

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self._averages)

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, average in self._averages.items():
            average.copy_(state[name])
