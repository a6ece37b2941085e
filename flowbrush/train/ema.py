"""Moving averages of the weights, one pass over memory for each."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from flowbrush.averages import exponent
from flowbrush.checkpoint import own

Decay = Callable[[int], float]  # of the average, at so many steps after the first


def exponential(decay: float) -> Decay:
    """The same at every step: an average that begins as an average keeps it."""
    return lambda step: decay


def warmed_up(decay: float) -> Decay:
    """At step n at most (1 + n) / (10 + n): an average forgets the random weights it begins as."""
    return lambda step: min(decay, (1 + step) / (10 + step))


def power(length: float) -> Decay:
    """(1 - 1 / t)^(γ + 1) at step t = n + 1 (Karras et al. 2024, eq. 127).

    Step τ then weighs (τ^(γ + 1) - (τ - 1)^(γ + 1)) / t^(γ + 1), the profile's integral over it.
    length: standard deviation of the profile, relative to the run so far.
    """
    gamma = exponent(length)
    return lambda step: (step / (step + 1)) ** (gamma + 1)


class EMA:
    """average <- decay * average + (1 - decay) * weight, after every step.

    Of weights in shards each process averages its own: nothing is gathered.
    """

    def __init__(self, network: nn.Module, decay: Decay) -> None:
        self.decay = decay
        weights = {name: weight.detach() for name, weight in network.named_parameters()}
        self._averages = {name: weight.clone() for name, weight in weights.items()}
        self._pairs = [(own(a), own(weights[name])) for name, a in self._averages.items()]

    def update(self, step: int) -> None:
        """Take the weights in, `step` steps after the first."""
        averages, weights = map(list, zip(*self._pairs, strict=True))
        torch._foreach_lerp_(averages, weights, weight=1 - self.decay(step))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The network has the averages inside the `with`; its weights come back to the bit."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for average, weight in self._pairs:
            kept = weight.clone()
            weight.copy_(average)
            average.copy_(kept)

    def state_dict(self) -> dict[str, Tensor]:
        """The averages themselves: filled, they go on."""
        return self._averages
