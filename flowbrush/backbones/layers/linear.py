"""Linear layers, as fast in fp32 on an AMD CPU as on any other.

torch multiplies fp32 matrices with Intel's MKL, which takes twice the time that it could on AMD's
processors. oneDNN, which is part of torch as well, does not.
"""

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


class Linear(nn.Linear):
    """torch's, with the same weights and, up to rounding, the same output."""

    def forward(self, x: Tensor) -> Tensor:
        if (
            x.dtype == torch.float32 == self.weight.dtype
            and x.device.type == "cpu"
            and _on_amd()
            and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_compiling()
        ):
            return _Product.apply(x, self.weight, self.bias)
        return super().forward(x)


class _Product(torch.autograd.Function):
    """x weight^T + bias, with its gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        rows = gradients[0].flatten(0, -2)
        return (
            _product(rows, weight.t()).view(x.shape) if of_x else None,
            _product(rows.t(), x.flatten(0, -2).t()) if of_weight else None,
            rows.sum(dim=0) if of_bias else None,
        )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


@cache
def _on_amd() -> bool:
    """A property of the machine, not a measurement: a run's bits must not depend on the moment."""
    known = Path("/proc/cpuinfo")
    return (
        torch.backends.mkldnn.is_available()
        and known.is_file()
        and "AuthenticAMD" in known.read_text()
    )
