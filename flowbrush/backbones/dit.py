"""DiT: Scalable Diffusion Models with Transformers (Peebles & Xie 2023).

adaLN-Zero, fixed positions, class label or pooled text.
"""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from flowbrush.backbones.layers.attention import RMSNorm, SelfAttention
from flowbrush.backbones.layers.embeddings import TimeEmbedding, patchify, sincos_2d, unpatchify
from flowbrush.backbones.layers.feedforward import GELUFeedForward
from flowbrush.backbones.layers.initialisation import xavier_in_flax, xavier_linears, zero
from flowbrush.backbones.layers.linear import Linear
from flowbrush.backbones.layers.modulation import Modulation, modulate
from flowbrush.condition import Condition
from flowbrush.errors import UserError
from flowbrush.shapes import Shapes


@dataclass(frozen=True, kw_only=True)
class DiTConfig:
    """Sizes of a DiT; the defaults are DiT-S/2."""

    depth: int = 12
    width: int = 384
    heads: int = 6
    patch: int = 2
    mlp_ratio: float = 4.0
    qk_norm: bool = False  # RMS-norm queries and keys, as JaxFM does
    time_scale: float = 1.0  # the embedding sees time_scale * t: 1 for SiT, 10,000 for jax-flow
    pooled_text: bool = False  # a text's one vector instead of a label, as in jax-flow
    double_output: bool = False  # as published: twice the channels, the second half after it
    init: Literal["dit", "jax_flow"] = "dit"  # the first weights: as DiT's, or as jax-flow's

    def __post_init__(self) -> None:
        if self.width % self.heads or self.width % 4:
            raise UserError(
                f"backbone: width {self.width} must divide by heads ({self.heads}) and by 4"
            )

    def build(self, shapes: Shapes) -> "DiT":
        """Raises UserError where the shapes do not fit."""
        shapes.check_patch(self.patch)
        shapes.check_one_vector("DiT", self.pooled_text)
        return DiT(self, shapes)


class Block(nn.Module):
    """Attention and feed-forward, each between a modulated norm and a gate."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        width, norm = config.width, RMSNorm if config.qk_norm else nn.Identity
        self.norm1 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.attention = SelfAttention(width, config.heads, norm)
        self.norm2 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.feedforward = GELUFeedForward(width, int(width * config.mlp_ratio))
        self.modulation = Modulation(width, 6)

    def forward(self, x: Float[Tensor, "b n d"], c: Float[Tensor, "b d"]) -> Float[Tensor, "b n d"]:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(c)
        x = x + gate1[:, None] * self.attention(modulate(self.norm1(x), shift1, scale1))
        return x + gate2[:, None] * self.feedforward(modulate(self.norm2(x), shift2, scale2))


class DiT(nn.Module):
    """x_t, t and a class label or pooled text -> a prediction of the shape of x_t.

    Of a double output it is the first half; the second says variances, or nothing.
    """

    def __init__(self, config: DiTConfig, shapes: Shapes) -> None:
        super().__init__()
        width, patch, given = config.width, config.patch, shapes.condition
        self.patch = patch
        self.patches = Linear(shapes.channels * patch**2, width)
        blocks = [Block(config) for _ in range(config.depth)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = Modulation(width, 2)
        channels = shapes.channels * (2 if config.double_output else 1)
        self.output = Linear(width, channels * patch**2)
        self.pooled = None if given.pooled_width is None else Linear(given.pooled_width, width)
        xavier_linears(self)
        if config.init == "jax_flow":
            xavier_in_flax(self.patches, patch, (block.attention.qkv for block in blocks))
        self.time = TimeEmbedding(width, config.time_scale)
        self.label = None if given.labels is None else nn.Embedding(given.labels + 1, width)
        if self.label is not None:
            nn.init.normal_(self.label.weight, std=0.02)
        zero(self.output, self.modulation.linear, *(block.modulation.linear for block in blocks))

    def forward(
        self, x_t: Float[Tensor, "b c h w"], t: Float[Tensor, " b"], condition: Condition
    ) -> Float[Tensor, "b out h w"]:
        rows, columns = x_t.shape[2] // self.patch, x_t.shape[3] // self.patch
        x = self.patches(patchify(x_t, self.patch))  # (b, n, d)
        positions = sincos_2d(rows, columns, x.shape[2], x.device)
        x = x + positions.to(self.patches.weight.dtype)
        c = self.vector(t, condition)
        for block in self.blocks:
            x = block(x, c)
        shift, scale = self.modulation(c)
        x = self.output(modulate(self.norm(x), shift, scale))  # (b, n, p p c) or (b, n, p p 2c)
        return unpatchify(x, self.patch, rows)

    def vector(self, t: Float[Tensor, " b"], condition: Condition) -> Float[Tensor, "b d"]:
        """What modulates the blocks: the time, with the label or the pooled text."""
        c = self.time(t)
        if self.label is not None:
            c = c + self.label(condition.label)
        if self.pooled is not None:
            c = c + self.pooled(condition.pooled)
        return c
