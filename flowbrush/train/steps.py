"""What a step changes: the weights, the optimizer's moments, every average."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from flowbrush import checkpoint
from flowbrush.averages import POWER
from flowbrush.errors import UserError
from flowbrush.experiment import TrainConfig
from flowbrush.sharding import own
from flowbrush.train.ema import EMA, exponential, power, warmed_up
from flowbrush.train.guard import Guard
from flowbrush.train.optimizer import build_optimizer, learning_rate, moments
from flowbrush.train.parallel import clipped


class Step(NamedTuple):
    """norm: of the gradient before it was clipped. skipped: 0 or 1. Both are on the device."""

    lr: float
    norm: Tensor
    skipped: Tensor


class Steps:
    """A network's steps. Its tensors and theirs are in `states`: filled, they go on."""

    def __init__(self, network: nn.Module, config: TrainConfig, device: torch.device) -> None:
        self._network, self._config = network, config
        self._optimizer = build_optimizer(network, config)
        self.guard = Guard(self._optimizer, config, device)
        rule = exponential if config.ema_warmup is False else warmed_up
        emas = {f"ema_{decay}": EMA(network, rule(decay)) for decay in config.ema}
        powers = {f"{POWER}{length}": EMA(network, power(length)) for length in config.power_ema}
        self._emas, self._averages = emas, emas | powers
        self._first = next(iter(emas.values()), None)
        self.powers = {name: average.state_dict() for name, average in powers.items()}
        self.states = {
            "model": network.state_dict(),
            "optimizer": moments(network, self._optimizer),
            "guard": self.guard.state_dict(),
            **{name: average.state_dict() for name, average in self._averages.items()},
        }

    def fill(self, found: Path, told: str) -> None:
        """Resume from a checkpoint. An average that is not in it begins as the first that is.

        Other states that are not in it, as of an import, stay new.
        Raises UserError, which begins with `told`, where a name or a shape is another one.
        """
        there = checkpoint.names(found)
        for name, state in self.states.items():
            if name in there:
                checkpoint.fill(found, name, state, told)
            elif name in self._averages:
                kept = checkpoint.load(found, "config")["train"]["ema"]
                checkpoint.fill(found, f"ema_{kept[0]}" if kept else "model", state, told)

    def begin_as_averages(self) -> None:
        """The first weights are averages already: those kept do not forget them."""
        if self._config.ema_warmup is None:
            for decay, average in zip(self._config.ema, self._emas.values(), strict=True):
                average.decay = exponential(decay)

    def take(self, seen: int, b: int) -> Step:
        """The step from `seen` pictures on, by a batch of `b`; the gradients are gone after it."""
        lr = learning_rate(self._config, seen + b)
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        norm = clipped(self._network, self._config.clip)
        skipped = self.guard.step(norm)
        self._optimizer.zero_grad()
        for average in self._averages.values():
            average.update(seen // b)
        return Step(lr, norm, skipped)

    def check_finite(self) -> None:
        """Before the weights are saved: raises UserError where they are spoilt, or no step was
        ever taken."""
        finite = [own(weight).isfinite().all() for weight in self._network.parameters()]
        if not torch.stack(finite).all():
            raise UserError(
                "the weights have become nan or infinity; the last checkpoint is good. Go on from "
                "it with a lower --train.lr, or begin again with one"
            )
        self.guard.check_any_taken()

    def averaged(self) -> AbstractContextManager[None]:
        """The network has its first average inside the `with`; its weights come back to the bit."""
        return self._first.in_place() if self._first else nullcontext()

    @property
    def first_average(self) -> dict[str, Tensor]:
        """The weights to paint with: the first average, or else the weights themselves."""
        return self._first.state_dict() if self._first else self.states["model"]
