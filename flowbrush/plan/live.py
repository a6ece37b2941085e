"""How much memory a step needs, followed tensor by tensor while nothing is allocated.

Fake tensors have shapes, types and an autograd graph, but no numbers; whatever an operation makes
counts until nobody holds it any more. What torch's allocator and kernels need inside is not seen.
"""

import functools
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import layer_norm
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from flowbrush.blocks import recompute_blocks
from flowbrush.experiment import ExperimentConfig
from flowbrush.flow.denoiser import Denoiser
from flowbrush.flow.loss import flow_loss
from flowbrush.plan.flops import condition_of
from flowbrush.processes import autocast
from flowbrush.shapes import Shapes


@dataclass(frozen=True)
class StepMemory:
    """Bytes of forward and backward beside weights and batch."""

    kept: int  # for backward, as it begins: activations, and weights cast to another type
    temporary: int  # beside those at the worst moment, gradients of weights apart
    most: int  # at once, where gradients of weights come while activations go


class Live(TorchDispatchMode):
    """Follows the bytes of every storage made inside it: `now`, and the `most` so far."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        made = operation(*args, **(kwargs or {}))
        given = {id(t.untyped_storage()) for t in tree_leaves(args) if isinstance(t, Tensor)}
        for tensor in tree_leaves(made):
            if not isinstance(tensor, Tensor):
                continue
            storage = tensor.untyped_storage()
            if storage not in self._known and id(storage) not in given:  # or it is a view of those
                self._known.add(storage)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._gone, storage.nbytes())
        self.most = max(self.most, self.now)
        return made

    def _gone(self, size: int) -> None:
        self.now -= size


def followed(loss: Callable[[], Tensor], network: nn.Module) -> StepMemory:
    """Of the backward pass of `loss` into the network. Call it under a FakeTensorMode."""

    def run() -> tuple[int, int]:
        network.zero_grad()
        with Live() as live:
            found = loss()
            kept = live.now
            found.backward()
            return kept, live.most

    kept, most = run()
    hooks = [w.register_post_accumulate_grad_hook(_forget) for w in _trained(network)]
    _, without = run()
    for hook in hooks:
        hook.remove()
    return StepMemory(kept, without - kept, most)


def step_memory(
    config: ExperimentConfig,
    shapes: Shapes,
    b: int,
    dtype: torch.dtype,
    recompute: bool,
    cuda: bool,
) -> StepMemory:
    """Of `b` pictures that go through the network together.

    cuda: with the types that CUDA's autocast takes where they differ from a CPU's.
    """
    flow, cpu = config.flow, torch.device("cpu")
    with _tables_apart(), FakeTensorMode():
        backbone = config.backbone.build(shapes)
        denoiser = Denoiser(backbone, flow.prediction, flow.t_eps, flow.diffusion)
        if recompute:
            recompute_blocks(denoiser)
        data = torch.zeros(b, shapes.channels, shapes.height, shapes.width)
        noise, t = torch.zeros_like(data), torch.zeros(b)
        given, rows = condition_of(shapes.condition, b, cpu), torch.arange(b)

        def loss() -> Tensor:
            part = data[rows], noise[rows], t[rows], given.rows(rows)
            types = _CudaTypes() if cuda and dtype != torch.float32 else nullcontext()
            with autocast(dtype, cpu), types:
                return flow_loss(denoiser, *part, flow.loss_space).float().sum()

        return followed(loss, denoiser)


class _CudaTypes(TorchFunctionMode):
    """CUDA's autocast takes layer norms in fp32, a CPU's as they come."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is layer_norm:
            args = (args[0].float(), *args[1:])
        return function(*args, **(kwargs or {}))


@contextmanager
def _tables_apart() -> Iterator[None]:
    """Tables that the networks remember are real outside and fake inside, and must not meet."""
    _forget_tables()
    try:
        yield
    finally:
        _forget_tables()


def _forget_tables() -> None:
    for name, module in list(sys.modules.items()):
        if name.startswith(("flowbrush.backbones", "flowbrush.flow")):
            for value in vars(module).values():
                if isinstance(value, functools._lru_cache_wrapper):
                    value.cache_clear()


def _trained(network: nn.Module) -> list[nn.Parameter]:
    return [weight for weight in network.parameters() if weight.requires_grad]


def _forget(weight: Tensor) -> None:
    weight.grad = None
