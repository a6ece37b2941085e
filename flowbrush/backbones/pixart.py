"""PixArt-alpha and -sigma (Chen et al. 2023, 2024): a DiT that attends to a text, with one
modulation for all blocks (adaLN-single)."""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from flowbrush.backbones.layers.attention import CrossAttention, RMSNorm, SelfAttention
from flowbrush.backbones.layers.embeddings import TimeEmbedding, patchify, unpatchify
from flowbrush.backbones.layers.feedforward import GELUFeedForward
from flowbrush.backbones.layers.initialisation import xavier_linears, zero
from flowbrush.backbones.layers.linear import Linear
from flowbrush.backbones.layers.modulation import Modulation, modulate
from flowbrush.condition import Condition
from flowbrush.errors import UserError
from flowbrush.shapes import Shapes


@dataclass(frozen=True, kw_only=True)
class PixArtConfig:
    """Sizes of a PixArt; the defaults are PixArt-alpha XL/2 at 256 pixels."""

    depth: int = 28
    width: int = 1152
    heads: int = 16
    patch: int = 2
    mlp_ratio: float = 4.0
    qk_norm: bool = False  # RMS-norm the image's own queries and keys, as JaxFM does
    position_span: float = 16.0  # positions run from 0 to this at any size: 16 or 32 as published
    pixels_per_position: int | None = None  # if given, the network is told its size; 8 for SD's VAE
    time_scale: float = 1000.0  # the embedding sees time_scale * t; -1000 for published weights
    double_output: bool = False  # as published: twice the channels, the second half after it

    def __post_init__(self) -> None:
        if self.width % self.heads or self.width % 4:
            raise UserError(
                f"backbone: width {self.width} must divide by heads ({self.heads}) and by 4"
            )
        if self.pixels_per_position is not None and self.width % 3:
            raise UserError(
                f"backbone: width {self.width} must divide by 3 where pixels_per_position is given"
            )

    def build(self, shapes: Shapes) -> "PixArt":
        """Raises UserError where the shapes do not fit."""
        shapes.check_patch(self.patch)
        if shapes.condition.text_width is None or shapes.condition.labels is not None:
            raise UserError("backbone: PixArt takes text, not class labels; use DiT for labels")
        return PixArt(self, shapes)


class Block(nn.Module):
    """Self-attention and feed-forward, each between a modulated norm and a gate.

    The text comes between them, as it is.
    """

    def __init__(self, config: PixArtConfig) -> None:
        super().__init__()
        width, norm = config.width, RMSNorm if config.qk_norm else nn.Identity
        self.norm1 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.attention = SelfAttention(width, config.heads, norm)
        self.cross_attention = CrossAttention(width, config.heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.feedforward = GELUFeedForward(width, int(width * config.mlp_ratio))
        self.table = nn.Parameter(torch.randn(6, width) / math.sqrt(width))

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        shared: Float[Tensor, "b 6 d"],
        text: Float[Tensor, "b m d"],
        mask: Bool[Tensor, "b 1 1 m"] | None,
    ) -> Float[Tensor, "b n d"]:
        shift1, scale1, gate1, shift2, scale2, gate2 = (self.table + shared).unbind(1)
        x = x + gate1[:, None] * self.attention(modulate(self.norm1(x), shift1, scale1))
        x = x + self.cross_attention(x, text, mask)
        return x + gate2[:, None] * self.feedforward(modulate(self.norm2(x), shift2, scale2))


class PixArt(nn.Module):
    """x_t, t and a text -> a prediction of the shape of x_t.

    Of a double output it is the first half; the second says variances, or nothing.
    """

    def __init__(self, config: PixArtConfig, shapes: Shapes) -> None:
        super().__init__()
        self.config = config
        width, patch, text_width = config.width, config.patch, shapes.condition.text_width
        assert text_width is not None
        self.patches = Linear(shapes.channels * patch**2, width)
        text1, text2 = Linear(text_width, width), Linear(width, width)
        self.text = nn.Sequential(text1, nn.GELU("tanh"), text2)
        self.modulation = Modulation(width, 6)
        blocks = [Block(config) for _ in range(config.depth)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.table = nn.Parameter(torch.randn(2, width) / math.sqrt(width))
        channels = shapes.channels * (2 if config.double_output else 1)
        self.output = Linear(width, channels * patch**2)
        xavier_linears(self)
        self.time = TimeEmbedding(width, config.time_scale)
        pixels = config.pixels_per_position
        self.size = None if pixels is None else SizeEmbedding(width, pixels)
        for layer in (text1, text2, self.modulation.linear):
            nn.init.normal_(layer.weight, std=0.02)
        zero(self.output, *(block.cross_attention.proj for block in blocks))

    def forward(
        self, x_t: Float[Tensor, "b c h w"], t: Float[Tensor, " b"], condition: Condition
    ) -> Float[Tensor, "b out h w"]:
        rows, columns = x_t.shape[2] // self.config.patch, x_t.shape[3] // self.config.patch
        x = self.patches(patchify(x_t, self.config.patch))  # (b, n, d)
        span = self.config.position_span
        positions = sincos_spanned(rows, columns, span, x.shape[2], x.device)
        x = x + positions.to(self.patches.weight.dtype)
        c = self.vector(t, condition)
        if self.size is not None:
            c = c + self.size(x_t)
        shared = torch.stack(self.modulation(c), dim=1)  # (b, 6, d)
        text = self.text(condition.text)  # (b, m, d)
        mask = None if condition.text_mask is None else condition.text_mask[:, None, None]
        for block in self.blocks:
            x = block(x, shared, text, mask)
        shift, scale = (self.table + c[:, None]).unbind(1)
        x = self.output(modulate(self.norm(x), shift, scale))  # (b, n, p p c) or (b, n, p p 2c)
        return unpatchify(x, self.config.patch, rows)

    def vector(self, t: Float[Tensor, " b"], condition: Condition) -> Float[Tensor, "b d"]:
        """What modulates the blocks: the time alone, the text is attended to."""
        return self.time(t)


class SizeEmbedding(nn.Module):
    """Size in pixels and aspect ratio, as a vector: thirds for height, width, height / width."""

    def __init__(self, width: int, pixels_per_position: int) -> None:
        super().__init__()
        self.pixels_per_position = pixels_per_position
        self.side, self.aspect = TimeEmbedding(width // 3, 1.0), TimeEmbedding(width // 3, 1.0)

    def forward(self, x_t: Float[Tensor, "b c h w"]) -> Float[Tensor, " d"]:
        sides = torch.tensor(x_t.shape[2:], dtype=torch.float32, device=x_t.device)
        pixels = self.side(sides * self.pixels_per_position)  # (2, d/3)
        aspect = self.aspect(sides[:1] / sides[1:])  # (1, d/3)
        return torch.cat([pixels, aspect]).flatten()


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # or a table from a preview could not be trained with
def sincos_spanned(
    rows: int, columns: int, span: float, width: int, device: torch.device
) -> Float[Tensor, "n d"]:
    """`sincos_2d` with either axis from 0 to `span`: a larger picture has closer positions."""
    frequency = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    down, along = (torch.arange(n, dtype=torch.float64) * span / n for n in (rows, columns))
    row = down.repeat_interleave(columns)[:, None] * frequency
    column = along.repeat(rows)[:, None] * frequency
    table = torch.cat([column.sin(), column.cos(), row.sin(), row.cos()], dim=1)
    return table.float().to(device)
