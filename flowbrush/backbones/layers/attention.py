"""Self-attention, and rotary positions in two dimensions (Su et al. 2021; Heo et al. 2024)."""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import rms_norm, scaled_dot_product_attention

from flowbrush.backbones.layers.linear import Linear

# The most keys with which a CPU's attention in bf16 is computed in fp32. That is faster: the
# backward pass of torch 2.13 takes up to ten times as long in bf16. Tiles (AMX) win at more keys.
FP32_KEYS = 512 if torch.cpu._is_amx_tile_supported() else 2**31


class RMSNorm(nn.RMSNorm):
    """Root-mean-square norm with eps 1e-6, computed in fp32 also under autocast."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x.float(), self.normalized_shape, self.weight.float(), self.eps).to(x.dtype)


class Rotary(NamedTuple):
    """Cosines and sines of each token's angles, one angle for a pair of channels."""

    cos: Float[Tensor, "n half"]
    sin: Float[Tensor, "n half"]


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # or a table from a preview could not be trained with
def rotary_2d(
    h: int, w: int, head_width: int, still: int, device: torch.device, theta: float = 10000.0
) -> Rotary:
    """Angles for h * w tokens in row order, after `still` leading tokens that are not turned.

    The first half of the pairs turns with the row, the second with the column.
    """
    pairs = head_width // 4
    frequency = theta ** -(torch.arange(pairs, dtype=torch.float64) / pairs)
    row = torch.arange(h).repeat_interleave(w)[:, None] * frequency
    column = torch.arange(w).repeat(h)[:, None] * frequency
    angles = torch.cat([row, column], dim=1)
    angles = torch.cat([angles.new_zeros(still, 2 * pairs), angles])
    return Rotary(angles.cos().float().to(device), angles.sin().float().to(device))


def rotate(x: Float[Tensor, "b k n e"], rotary: Rotary) -> Float[Tensor, "b k n e"]:
    """Turn channels i and i + e/2 of a head together: halves, which are faster than neighbours."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = rotary.cos.to(x.dtype), rotary.sin.to(x.dtype)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class SelfAttention(nn.Module):
    """Multi-head self-attention. qk_norm: from a head's width, the norm of queries and keys."""

    def __init__(
        self, width: int, heads: int, qk_norm: Callable[[int], nn.Module] = nn.Identity
    ) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width)
        self.q_norm, self.k_norm = qk_norm(width // heads), qk_norm(width // heads)
        self.proj = Linear(width, width)

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        rotary: Rotary | None = None,
        mask: Bool[Tensor, "b 1 1 n"] | None = None,
    ) -> Float[Tensor, "b n d"]:
        """mask: True where a token may be attended to."""
        q, k, v = rearrange(self.qkv(x), "b n (s k e) -> s b k n e", s=3, k=self.heads)
        q, k = self.q_norm(q), self.k_norm(k)
        if rotary is not None:
            q, k = rotate(q, rotary), rotate(k, rotary)
        return self.proj(attend(q.to(v.dtype), k.to(v.dtype), v, mask))


class CrossAttention(nn.Module):
    """Multi-head attention of one sequence to another of the same width."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.kv = Linear(width, width), Linear(width, 2 * width)
        self.proj = Linear(width, width)

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        context: Float[Tensor, "b m d"],
        mask: Bool[Tensor, "b 1 1 m"] | None = None,
    ) -> Float[Tensor, "b n d"]:
        """mask: True where a token of the context may be attended to."""
        q = rearrange(self.q(x), "b n (k e) -> b k n e", k=self.heads)
        k, v = rearrange(self.kv(context), "b m (s k e) -> s b k m e", s=2, k=self.heads)
        return self.proj(attend(q, k, v, mask))


class Heads(NamedTuple):
    """Queries, keys and values."""

    q: Float[Tensor, "b k n e"]
    k: Float[Tensor, "b k n e"]
    v: Float[Tensor, "b k n e"]


class ToHeads(nn.Module):
    """Queries, keys and values of tokens, for an attention that takes them from several places.

    qk_norm: called with the width of a head, the norm of queries and keys.
    """

    def __init__(
        self, width: int, heads: int, qk_norm: Callable[[int], nn.Module] = nn.Identity
    ) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width)
        self.q_norm, self.k_norm = qk_norm(width // heads), qk_norm(width // heads)

    def forward(self, x: Float[Tensor, "b n d"]) -> Heads:
        q, k, v = rearrange(self.qkv(x), "b n (s k e) -> s b k n e", s=3, k=self.heads)
        return Heads(self.q_norm(q), self.k_norm(k), v)


def attend(
    q: Float[Tensor, "b k n e"],
    k: Float[Tensor, "b k m e"],
    v: Float[Tensor, "b k m e"],
    mask: Bool[Tensor, "b 1 1 m"] | None = None,
) -> Float[Tensor, "b n d"]:
    """What each query finds, heads side by side. mask: True where a token may be attended to."""
    if v.device.type == "cpu" and v.dtype == torch.bfloat16 and k.shape[2] <= FP32_KEYS:
        with torch.autocast("cpu", enabled=False):
            out = scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=mask)
        out = out.to(v.dtype)
    else:
        out = scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return rearrange(out, "b k n e -> b n (k e)")


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # or a table from a preview could not be trained with
def rotary_axes(
    h: int,
    w: int,
    axes: tuple[int, int, int],
    still: int,
    device: torch.device,
    theta: float = 10000.0,
) -> Rotary:
    """Angles for h * w tokens in row order, after `still` leading tokens that are not turned.

    Of a head's channels axes[0] stay, axes[1] turn by row, axes[2] by column; pairs in this order.
    """

    def turned(places: Tensor, channels: int) -> Tensor:
        exponent = torch.arange(0, channels, 2, dtype=torch.float64) / channels
        return places[:, None] * theta**-exponent

    row, column = torch.arange(h).repeat_interleave(w), torch.arange(w).repeat(h)
    stays = torch.zeros(h * w, axes[0] // 2, dtype=torch.float64)
    angles = torch.cat([stays, turned(row, axes[1]), turned(column, axes[2])], dim=1)
    angles = torch.cat([angles.new_zeros(still, angles.shape[1]), angles])
    return Rotary(angles.cos().float().to(device), angles.sin().float().to(device))
