"""JiT: Back to Basics: Let Denoising Generative Models Denoise (Li & He 2025), for diffusers.

A transformer on large patches of pixels, with the condition as tokens in context from a given
block on. This file is copied out beside the weights, so it stands alone: it imports torch and
diffusers, and nothing of Flowbrush, which trained them. Dropout stayed behind: it only trains.
"""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from torch import Tensor, nn


class Rotary(NamedTuple):
    """Cosines and sines of each token's angles, one angle for a pair of channels."""

    cos: Tensor  # (n, e / 2)
    sin: Tensor


def rotary(rows: int, columns: int, head_width: int, still: int, like: Tensor) -> Rotary:
    """Rotary positions (Su et al. 2021): half of the pairs turn with the row, half with the column.

    still: leading tokens that are not turned.
    """
    pairs = head_width // 4
    frequency = 10000.0 ** -(torch.arange(pairs, dtype=torch.float64) / pairs)
    row = torch.arange(rows).repeat_interleave(columns)[:, None] * frequency
    column = torch.arange(columns).repeat(rows)[:, None] * frequency
    angles = F.pad(torch.cat([row, column], dim=1), (0, 0, still, 0))
    return Rotary(angles.cos().to(like), angles.sin().to(like))


def rotate(x: Tensor, angles: Rotary) -> Tensor:
    """Turn channels i and i + e/2 of each head together."""
    first, second = x.chunk(2, dim=-1)
    turned = first * angles.cos - second * angles.sin, second * angles.cos + first * angles.sin
    return torch.cat(turned, dim=-1)


def sincos(rows: int, columns: int, width: int, like: Tensor) -> Tensor:
    """Fixed positions (n, width) as in MAE: the column's half first, sines before cosines."""
    frequency = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    column = torch.arange(columns).repeat(rows)[:, None] * frequency
    row = torch.arange(rows).repeat_interleave(columns)[:, None] * frequency
    return torch.cat([column.sin(), column.cos(), row.sin(), row.cos()], dim=1).to(like)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return torch.addcmul(shift[:, None], x, 1 + scale[:, None])


class RMSNorm(nn.RMSNorm):
    """Computed in fp32, whatever the weights are kept in."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        normed = F.rms_norm(x.float(), self.normalized_shape, self.weight.float(), self.eps)
        return normed.to(x.dtype)


class Modulation(nn.Module):
    """`count` vectors (shifts, scales, gates) from the one that says time and condition."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.count = count
        self.linear = nn.Linear(width, count * width)

    def forward(self, c: Tensor) -> tuple[Tensor, ...]:
        return self.linear(F.silu(c)).chunk(self.count, dim=1)


class TimeEmbedding(nn.Module):
    """Sinusoids of `scale * t`, then a small network. A negative scale embeds the noise time."""

    def __init__(self, width: int, scale: float, frequencies: int = 128) -> None:
        super().__init__()
        self.scale, self.frequencies = scale, frequencies
        layers = nn.Linear(2 * frequencies, width), nn.SiLU(), nn.Linear(width, width)
        self.mlp = nn.Sequential(*layers)

    def forward(self, t: Tensor) -> Tensor:
        weight = next(self.mlp.parameters())
        t = t.to(weight.device, torch.float32)
        exponent = torch.arange(self.frequencies, dtype=torch.float32, device=t.device)
        seen = self.scale * (t if self.scale > 0 else t - 1)
        angles = seen[:, None] * torch.exp(-math.log(10000.0) / self.frequencies * exponent)
        return self.mlp(torch.cat([angles.cos(), angles.sin()], dim=1).to(weight.dtype))


class SelfAttention(nn.Module):
    """Multi-head, with normed and rotated queries and keys."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.q_norm, self.k_norm = RMSNorm(width // heads), RMSNorm(width // heads)

    def forward(self, x: Tensor, angles: Rotary, mask: Tensor | None) -> Tensor:
        heads = self.qkv(x).unflatten(2, (3, self.heads, -1))
        q, k, v = heads.permute(2, 0, 3, 1, 4)  # (b, heads, n, e) each
        q, k = rotate(self.q_norm(q), angles), rotate(self.k_norm(k), angles)
        found = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, attn_mask=mask)
        return self.proj(found.transpose(1, 2).flatten(2))


class SwiGLU(nn.Module):
    """Gated linear unit (Shazeer 2020)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w12, self.w3 = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.w12(x).chunk(2, dim=-1)
        return self.w3(F.silu(gate) * up)


class JiTBlock(nn.Module):
    """Attention and feed-forward, each between a modulated norm and a gate."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = RMSNorm(width), RMSNorm(width)
        self.attention, self.feedforward = SelfAttention(width, heads), SwiGLU(width, hidden)
        self.modulation = Modulation(width, 6)

    def forward(self, x: Tensor, c: Tensor, angles: Rotary, mask: Tensor | None) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(c)
        x = x + gate1[:, None] * self.attention(
            modulate(self.norm1(x), shift1, scale1), angles, mask
        )
        return x + gate2[:, None] * self.feedforward(modulate(self.norm2(x), shift2, scale2))


class JiTTransformer2DModel(ModelMixin, ConfigMixin):
    """Noisy pixels, a time and a class or a text -> a prediction of the shape of the pixels."""

    config: Any  # of the arguments of __init__
    _no_split_modules = ("JiTBlock",)

    @register_to_config
    def __init__(
        self,
        sample_size: int = 256,  # of the pictures it was trained on; others are multiples of patch
        channels: int = 3,
        depth: int = 12,
        width: int = 768,
        heads: int = 12,
        patch: int = 16,
        bottleneck: int = 128,
        mlp_ratio: float = 4.0,
        context_start: int = 4,  # the block before which the tokens in context join
        text_role: str = "tokens",  # pooled: a text's one vector takes a label's place
        label_tokens: int = 32,  # how many tokens a label or a pooled text becomes
        tokens_per_text: int = 1,  # how many tokens each text token is widened to
        time_scale: float = 1.0,
        labels: int | None = None,  # classes; the label of no class is this number
        text_width: int | None = None,
        text_tokens: int | None = None,
        pooled_width: int | None = None,
    ) -> None:
        super().__init__()
        hidden = int(width * mlp_ratio * 2 / 3)
        self.squeeze = nn.Linear(channels * patch**2, bottleneck, bias=False)
        self.patches = nn.Linear(bottleneck, width)
        self.blocks = nn.ModuleList(JiTBlock(width, heads, hidden) for _ in range(depth))
        self.norm, self.modulation = RMSNorm(width), Modulation(width, 2)
        self.output = nn.Linear(width, channels * patch**2)
        self.time = TimeEmbedding(width, time_scale)
        self.label = None if labels is None else nn.Embedding(labels + 1, width)
        self.pooled = None if pooled_width is None else nn.Linear(pooled_width, width)
        reads_tokens = text_role == "tokens" and text_width is not None
        self.text = nn.Linear(text_width or 0, width * tokens_per_text) if reads_tokens else None
        context = (text_tokens or 0) * tokens_per_text if reads_tokens else label_tokens
        self.context_positions = nn.Parameter(torch.zeros(1, context, width))

    def forward(
        self,
        hidden_states: Tensor,  # (b, channels, H, W), noise and data: t * data + (1 - t) * noise
        timestep: Tensor,  # (b,), from 0, which is noise, to 1, which is data
        class_labels: Tensor | None = None,  # (b,)
        encoder_hidden_states: Tensor | None = None,  # (b, m, text_width)
        encoder_attention_mask: Tensor | None = None,  # (b, m), True = a real token
        pooled_projections: Tensor | None = None,  # (b, pooled_width)
        return_dict: bool = True,
    ) -> Any:
        """Transformer2DModelOutput, or a tuple, of what the network was trained to predict."""
        patch, width, heads = self.config.patch, self.config.width, self.config.heads
        rows, columns = hidden_states.shape[2] // patch, hidden_states.shape[3] // patch
        x = F.unfold(hidden_states, patch, stride=patch).transpose(1, 2)  # (b, n, pixels)
        x = self.patches(self.squeeze(x))  # (b, n, width)
        x = x + sincos(rows, columns, width, like=x)

        c, given = self.time(timestep), None
        if self.label is not None:
            given = self.label(class_labels)
        elif self.pooled is not None:
            given = self.pooled(pooled_projections)
        c = c if given is None else c + given  # (b, width)

        context = self.context_positions
        if self.text is not None:
            words = self.text(encoder_hidden_states).unflatten(2, (-1, width)).flatten(1, 2)
            context = words + context[:, : words.shape[1]]
        elif given is not None:
            context = given[:, None] + context  # (b, m, width)
        m, mask = context.shape[1], None
        if self.text is not None and encoder_attention_mask is not None:
            real = encoder_attention_mask.bool()
            real = real.repeat_interleave(self.config.tokens_per_text, dim=1)
            mask = F.pad(real, (0, x.shape[1]), value=True)[:, None, None]  # (b, 1, 1, m + n)

        angles = rotary(rows, columns, width // heads, still=0, like=x)
        joined = rotary(rows, columns, width // heads, still=m, like=x)
        for i, block in enumerate(self.blocks):
            if i == self.config.context_start:
                x, angles = torch.cat([context, x], dim=1), joined  # (b, m + n, width)
            x = block(x, c, angles, mask if i >= self.config.context_start else None)
        shift, scale = self.modulation(c)
        x = self.output(modulate(self.norm(x[:, m:]), shift, scale))  # (b, n, pixels)

        x = x.unflatten(2, (patch, patch, -1)).unflatten(1, (rows, columns))
        sample = x.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)  # (b, channels, H, W)
        return Transformer2DModelOutput(sample=sample) if return_dict else (sample,)
