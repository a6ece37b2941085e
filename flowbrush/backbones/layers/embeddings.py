"""Patches, their positions, and the time, as vectors."""

import math
from functools import lru_cache

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from flowbrush.backbones.layers.linear import Linear


def patchify(x: Float[Tensor, "b c h w"], patch: int) -> Float[Tensor, "b n v"]:
    """Square patches in row order, each as (channel, row, column)."""
    return rearrange(x, "b c (h p) (w q) -> b (h w) (c p q)", p=patch, q=patch)


def unpatchify(tokens: Float[Tensor, "b n v"], patch: int, rows: int) -> Float[Tensor, "b c h w"]:
    """Pictures from `rows` rows of patches, each as (row, column, channel)."""
    return rearrange(tokens, "b (h w) (p q c) -> b c (h p) (w q)", h=rows, p=patch, q=patch)


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # or a table from a preview could not be trained with
def sincos_2d(h: int, w: int, width: int, device: torch.device) -> Float[Tensor, "n d"]:
    """Fixed positions of h * w tokens as in MAE: the column's half first, sines before cosines."""
    frequency = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    column = torch.arange(w).repeat(h)[:, None] * frequency
    row = torch.arange(h).repeat_interleave(w)[:, None] * frequency
    table = torch.cat([column.sin(), column.cos(), row.sin(), row.cos()], dim=1)
    return table.float().to(device)


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # or a table from a preview could not be trained with
def sincos_2d_crop(
    h: int, w: int, side: int, span: float, width: int, device: torch.device
) -> Float[Tensor, "n d"]:
    """As `sincos_2d`, for the middle h * w of `side` * `side` tokens at positions 0 to `span`."""
    frequency = 1 / 10000.0 ** (torch.arange(width // 4, dtype=torch.float64) / (width // 4))

    def along(length: int) -> Tensor:
        places = torch.arange(length, dtype=torch.float32) + (side - length) // 2
        angles = (places / (side / span))[:, None] * frequency
        return torch.cat([angles.sin(), angles.cos()], dim=1).float()

    table = torch.cat([along(w).repeat(h, 1), along(h).repeat_interleave(w, dim=0)], dim=1)
    return table.to(device)


class TimeEmbedding(nn.Module):
    """Sinusoids of `scale * t`, of wavelengths 2 pi to 10,000 times that, then a small network.

    A negative scale embeds the noise time, `-scale * (1 - t)`, for weights raised with noise at 1.
    """

    def __init__(self, width: int, scale: float, frequencies: int = 128) -> None:
        super().__init__()
        self.scale, self.frequencies = scale, frequencies
        first, second = Linear(2 * frequencies, width), Linear(width, width)
        for layer in (first, second):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        self.mlp = nn.Sequential(first, nn.SiLU(), second)

    def forward(self, t: Float[Tensor, " b"]) -> Float[Tensor, "b d"]:
        weight = next(self.mlp.parameters())
        t = t.to(weight.device, torch.float32)  # a solver keeps its times on the CPU
        exponent = torch.arange(self.frequencies, dtype=torch.float32, device=t.device)
        seen = self.scale * (t if self.scale > 0 else t - 1)
        angles = seen[:, None] * torch.exp(-math.log(10000.0) / self.frequencies * exponent)
        waves = torch.cat([angles.cos(), angles.sin()], dim=1)
        return self.mlp(waves.to(weight.dtype))
