"""Adaptive layer norm (Perez et al. 2018; adaLN-Zero: Peebles & Xie 2023)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from flowbrush.backbones.layers.linear import Linear


def modulate(
    x: Float[Tensor, "b n d"], shift: Float[Tensor, "b d"], scale: Float[Tensor, "b d"]
) -> Float[Tensor, "b n d"]:
    return torch.addcmul(shift[:, None], x, 1 + scale[:, None])


class Modulation(nn.Module):
    """`count` vectors (shifts, scales, gates) from the condition."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.count = count
        self.linear = Linear(width, count * width)

    def forward(self, c: Float[Tensor, "b d"]) -> tuple[Float[Tensor, "b d"], ...]:
        return self.linear(nn.functional.silu(c)).chunk(self.count, dim=1)
