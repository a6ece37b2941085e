"""What is done to a network from outside: shared by processes, compiled."""

import math
import os
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from flowbrush.blocks import blocks
from flowbrush.errors import UserError
from flowbrush.experiment import Sharding
from flowbrush.processes import Processes, together

BUCKET = 6_000_000  # numbers that travel together, 24 MB


@runtime_checkable
class Gradients(Protocol):
    """How processes come to have the same gradients."""

    def shared(self, last: bool) -> AbstractContextManager[None]:
        """Around forward and backward of a part of the batch.

        After those of the `last` part every process has the means of its weights' gradients.
        Raises LostProcess where another process has ended.
        """
        ...


def share(network: nn.Module, processes: Processes, sharding: Sharding) -> Gradients:
    """Spread the network over the processes; one alone has all of it, whatever `sharding` says."""
    if sharding == "none" or processes.world == 1:
        return MeanGradients(network, processes)
    return Shards(network, _mesh(processes, sharding))


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
        """As of `Gradients`."""
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


class Shards:
    """A network in shards (FSDP2): each process has rows of weights, gradients, moments, averages.

    A block's weights are gathered before it is computed, in fp32, and given up after it: computing
    is what it is in one process. The gradients' means are shared out over the processes in fp32.
    """

    def __init__(self, network: nn.Module, mesh: DeviceMesh) -> None:
        """Every process starts from the same weights: those of the seed, or of a checkpoint."""
        # It warns of in-place changes to what a network gives; nobody makes any.
        warnings.filterwarnings("ignore", message=r"FSDP2-wrapped module .* returned a view")
        # A cache of the weights in bf16 would keep what is given up.
        torch.set_autocast_cache_enabled(False)
        for block in blocks(network):
            fully_shard(block, mesh=mesh)
        # Also the rest is given up, or painting with averages would find it as it was before.
        fully_shard(network, mesh=mesh, reshard_after_forward=True)
        assert isinstance(network, FSDPModule)
        self._network = network

    @contextmanager
    def shared(self, last: bool) -> Iterator[None]:
        """As of `Gradients`."""
        self._network.set_requires_gradient_sync(last)
        with together():
            yield


def _mesh(processes: Processes, sharding: Sharding) -> DeviceMesh:
    """All processes in a row; in hybrid sharding a row for each machine."""
    kind, world = processes.device.type, processes.world
    if sharding == "full":
        return init_device_mesh(kind, (world,))
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    return init_device_mesh(kind, (world // here, here), mesh_dim_names=("copies", "parts"))


def clipped(network: nn.Module, most: float) -> Tensor:
    """The norm of all gradients together, before they are scaled down to no more than `most`.

    most: 0 leaves them as they are.
    """
    with together():
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), most or math.inf)
        return norm.full_tensor() if isinstance(norm, DTensor) else norm


def compile_blocks(network: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
    """`torch.compile` each block.

    Raises UserError for bf16 on a CPU: torch 2.13 silently computes gradients that are not finite.
    """
    if device.type == "cpu" and dtype == torch.bfloat16:
        raise UserError(
            "train.compile: with bf16 on a CPU the gradients come out as NaN; add "
            "--train.precision fp32"
        )
    for block in blocks(network):
        block.compile()
