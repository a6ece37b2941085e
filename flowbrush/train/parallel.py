"""What is done to a network from outside: gradients shared by processes, blocks compiled."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, distributed, nn

from flowbrush.errors import UserError
from flowbrush.processes import Processes, together

BUCKET = 6_000_000  # numbers that travel together, 24 MB


class MeanGradients:
    """A network's gradients, as means over the processes, in buckets, while backward goes on.

    Buckets are summed in one order, from the last weights to the first, whatever backward finishes
    first: all processes meet at the same bucket, and a run that goes on rounds as if it had never
    stopped. A weight that has no gradient in a process counts as zero there.
    """

    def __init__(self, network: nn.Module, processes: Processes) -> None:
        """Every process starts from the same weights: those of the seed, or of a checkpoint."""
        self._world, self._sharing = processes.world, False
        self._buckets = _buckets(network) if self._world > 1 else []
        self._missing = [0] * len(self._buckets)  # gradients that a bucket waits for
        self._sent: list[distributed.Work] = []  # one a bucket, in their order
        for number, weights in enumerate(self._buckets):
            for weight in weights:
                weight.register_post_accumulate_grad_hook(partial(self._arrived, number))

    @contextmanager
    def shared(self, last: bool) -> Iterator[None]:
        """Around backward. After that of the batch's `last` part all processes have the means.

        Raises LostProcess where another process has ended.
        """
        self._sharing = last and self._world > 1
        self._missing, self._sent = [len(bucket) for bucket in self._buckets], []
        yield
        if self._sharing:
            self._send(len(self._buckets))
            with together():
                for work in self._sent:
                    work.wait()

    def _arrived(self, number: int, weight: Tensor) -> None:
        self._missing[number] -= 1
        if self._sharing:
            whole = (i for i, missing in enumerate(self._missing) if missing)
            self._send(next(whole, len(self._buckets)))

    def _send(self, until: int) -> None:
        """Send the buckets before that one, as far as they are not sent."""
        for weights in self._buckets[len(self._sent) : until]:
            grads = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
            flat = torch.cat([grad.flatten() for grad in grads]).div_(self._world)
            for weight, mean in zip(weights, flat.split([w.numel() for w in weights]), strict=True):
                weight.grad = mean.view_as(weight)
            with together():
                self._sent.append(distributed.all_reduce(flat, async_op=True))


def _buckets(network: nn.Module) -> list[list[nn.Parameter]]:
    """The weights that are learned, from the last to the first, some `BUCKET` numbers together."""
    buckets: list[list[nn.Parameter]] = []
    size = BUCKET
    for weight in reversed([w for w in network.parameters() if w.requires_grad]):
        if size >= BUCKET:
            buckets.append([])
            size = 0
        buckets[-1].append(weight)
        size += weight.numel()
    return buckets


def compile_blocks(network: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
    """`torch.compile` each block.

    Raises UserError for bf16 on a CPU: torch 2.13 silently computes gradients that are not finite.
    """
    if device.type == "cpu" and dtype == torch.bfloat16:
        raise UserError(
            "train.compile: with bf16 on a CPU the gradients come out as NaN; add "
            "--train.precision fp32"
        )
    for module in network.modules():
        if isinstance(module, nn.ModuleList):
            for block in module:
                block.compile()
