"""MMDiT: Scaling Rectified Flow Transformers for High-Resolution Image Synthesis (Esser et al.
2024; Stable Diffusion 3). Image and text each with weights of their own, one attention over both;
time and pooled text in adaLN-Zero. Stable Diffusion 3.5 adds QK-RMSNorm and, in its first blocks, a
second attention of the image alone (MMDiT-X)."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from flowbrush.backbones.layers.attention import Heads, RMSNorm, SelfAttention, ToHeads, attend
from flowbrush.backbones.layers.embeddings import (
    TimeEmbedding,
    patchify,
    sincos_2d_crop,
    unpatchify,
)
from flowbrush.backbones.layers.feedforward import GELUFeedForward
from flowbrush.backbones.layers.initialisation import xavier_linears, zero
from flowbrush.backbones.layers.linear import Linear
from flowbrush.backbones.layers.modulation import Modulation, modulate
from flowbrush.condition import Condition
from flowbrush.errors import UserError
from flowbrush.shapes import Shapes


@dataclass(frozen=True, kw_only=True)
class MMDiTConfig:
    """Sizes of an MMDiT; the defaults are Stable Diffusion 3 medium."""

    depth: int = 24
    width: int = 1536
    heads: int = 24
    patch: int = 2
    mlp_ratio: float = 4.0
    qk_norm: bool = False  # RMS-norm queries and keys, as SD3.5 does
    dual_attention_blocks: int = 0  # how many first blocks have the second attention: 13 in SD3.5
    positions: int = 192  # patches along a side of the square whose middle a picture takes
    position_span: float = 64.0  # the positions along that side run from 0 to this
    time_scale: float = -1000.0  # negative: published with noise at time 1

    def __post_init__(self) -> None:
        if self.width % self.heads or self.width % 4:
            raise UserError(
                f"backbone: width {self.width} must divide by heads ({self.heads}) and by 4"
            )
        if not 0 <= self.dual_attention_blocks < self.depth:
            raise UserError(
                f"backbone: dual_attention_blocks {self.dual_attention_blocks} must be in "
                "0..depth-1"
            )

    def build(self, shapes: Shapes) -> "MMDiT":
        """Raises UserError where the shapes do not fit."""
        shapes.check_patch(self.patch)
        given = shapes.condition
        if given.text_width is None or given.pooled_width is None or given.labels is not None:
            raise UserError(
                "backbone: MMDiT takes text together with a pooled text vector, not labels; use JiT"
            )
        return MMDiT(self, shapes, given.text_width, given.pooled_width)


class Tokens(NamedTuple):
    """The two streams."""

    image: Float[Tensor, "b n d"]
    text: Float[Tensor, "b m d"]


class Stream(nn.Module):
    """What one kind of token does by itself in a block, before and after the joint attention."""

    def __init__(self, config: MMDiTConfig) -> None:
        super().__init__()
        width = config.width
        self.norm1 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.heads = ToHeads(width, config.heads, RMSNorm if config.qk_norm else nn.Identity)
        self.proj = Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.feedforward = GELUFeedForward(width, int(width * config.mlp_ratio))

    def before(
        self, x: Float[Tensor, "b n d"], shift: Float[Tensor, "b d"], scale: Float[Tensor, "b d"]
    ) -> Heads:
        return self.heads(modulate(self.norm1(x), shift, scale))

    def after(
        self,
        x: Float[Tensor, "b n d"],
        attended: Float[Tensor, "b n d"],
        gate1: Float[Tensor, "b d"],
        shift2: Float[Tensor, "b d"],
        scale2: Float[Tensor, "b d"],
        gate2: Float[Tensor, "b d"],
    ) -> Float[Tensor, "b n d"]:
        x = x + gate1[:, None] * self.proj(attended)
        return x + gate2[:, None] * self.feedforward(modulate(self.norm2(x), shift2, scale2))


class Block(nn.Module):
    """Image and text, each with weights of its own, in one attention."""

    def __init__(self, config: MMDiTConfig) -> None:
        super().__init__()
        self.image, self.text = Stream(config), Stream(config)
        self.image_modulation = Modulation(config.width, 6)
        self.text_modulation = Modulation(config.width, 6)

    def forward(
        self, x: Tokens, c: Float[Tensor, "b d"], mask: Bool[Tensor, "b 1 1 s"] | None
    ) -> Tokens:
        shift, scale, *image = self.image_modulation(c)
        text_shift, text_scale, *text = self.text_modulation(c)
        heads = self.image.before(x.image, shift, scale)
        text_heads = self.text.before(x.text, text_shift, text_scale)
        attended = attend_jointly(heads, text_heads, mask)
        return Tokens(
            self.image.after(x.image, attended.image, *image),
            self.text.after(x.text, attended.text, *text),
        )


class DualBlock(nn.Module):
    """A block whose image, beside the attention that it shares, has one of its own."""

    def __init__(self, config: MMDiTConfig) -> None:
        super().__init__()
        self.image, self.text = Stream(config), Stream(config)
        norm = RMSNorm if config.qk_norm else nn.Identity
        self.image_attention = SelfAttention(config.width, config.heads, norm)
        self.image_modulation = Modulation(config.width, 9)
        self.text_modulation = Modulation(config.width, 6)

    def forward(
        self, x: Tokens, c: Float[Tensor, "b d"], mask: Bool[Tensor, "b 1 1 s"] | None
    ) -> Tokens:
        shift, scale, *image, own_shift, own_scale, own_gate = self.image_modulation(c)
        text_shift, text_scale, *text = self.text_modulation(c)
        heads = self.image.before(x.image, shift, scale)
        text_heads = self.text.before(x.text, text_shift, text_scale)
        attended = attend_jointly(heads, text_heads, mask)
        own = self.image_attention(modulate(self.image.norm1(x.image), own_shift, own_scale))
        return Tokens(
            self.image.after(x.image + own_gate[:, None] * own, attended.image, *image),
            self.text.after(x.text, attended.text, *text),
        )


class LastBlock(nn.Module):
    """A block that reads the text but leaves it as it is: nothing later reads it again."""

    def __init__(self, config: MMDiTConfig) -> None:
        super().__init__()
        self.image = Stream(config)
        self.text_norm = nn.LayerNorm(config.width, eps=1e-6, elementwise_affine=False)
        norm = RMSNorm if config.qk_norm else nn.Identity
        self.text_heads = ToHeads(config.width, config.heads, norm)
        self.text_heads.q_norm.requires_grad_(False)  # published, though the text asks no more
        self.image_modulation = Modulation(config.width, 6)
        self.text_modulation = Modulation(config.width, 2)

    def forward(
        self, x: Tokens, c: Float[Tensor, "b d"], mask: Bool[Tensor, "b 1 1 s"] | None
    ) -> Tokens:
        shift, scale, *image = self.image_modulation(c)
        heads = self.image.before(x.image, shift, scale)
        text_heads = self.text_heads(modulate(self.text_norm(x.text), *self.text_modulation(c)))
        k, v = torch.cat([heads.k, text_heads.k], dim=2), torch.cat([heads.v, text_heads.v], dim=2)
        return Tokens(self.image.after(x.image, attend(heads.q, k, v, mask), *image), x.text)


class MMDiT(nn.Module):
    """x_t, t, text and pooled text -> a prediction of the shape of x_t."""

    def __init__(
        self, config: MMDiTConfig, shapes: Shapes, text_width: int, pooled_width: int
    ) -> None:
        super().__init__()
        self.config = config
        width, values = config.width, shapes.channels * config.patch**2
        self.patches = Linear(values, width)
        self.text = Linear(text_width, width)
        self.pooled = nn.Sequential(Linear(pooled_width, width), nn.SiLU(), Linear(width, width))
        dual = config.dual_attention_blocks
        kinds = [DualBlock] * dual + [Block] * (config.depth - 1 - dual) + [LastBlock]
        self.blocks = nn.ModuleList(kind(config) for kind in kinds)
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = Modulation(width, 2)
        self.output = Linear(width, values)
        xavier_linears(self)
        self.time = TimeEmbedding(width, config.time_scale)
        zero(self.output, *(m.linear for m in self.modules() if isinstance(m, Modulation)))

    def forward(
        self, x_t: Float[Tensor, "b c h w"], t: Float[Tensor, " b"], condition: Condition
    ) -> Float[Tensor, "b c h w"]:
        config = self.config
        rows, columns = x_t.shape[2] // config.patch, x_t.shape[3] // config.patch
        image = self.patches(patchify(x_t, config.patch))  # (b, n, d)
        positions = sincos_2d_crop(
            rows, columns, config.positions, config.position_span, config.width, x_t.device
        )
        image = image + positions.to(self.patches.weight.dtype)
        x = Tokens(image, self.text(condition.text).to(image.dtype))
        c = self.vector(t, condition)
        mask = self.mask(condition, rows * columns)
        for block in self.blocks:
            x = block(x, c, mask)
        shift, scale = self.modulation(c)
        return unpatchify(
            self.output(modulate(self.norm(x.image), shift, scale)), config.patch, rows
        )

    def vector(self, t: Float[Tensor, " b"], condition: Condition) -> Float[Tensor, "b d"]:
        """What modulates the blocks: the time with the pooled text."""
        return self.time(t) + self.pooled(condition.pooled)

    def mask(self, condition: Condition, n: int) -> Bool[Tensor, "b 1 1 s"] | None:
        """True for the image and for real text tokens; None where all are real."""
        if condition.text_mask is None:
            return None
        return nn.functional.pad(condition.text_mask, (n, 0), value=True)[:, None, None]


def attend_jointly(image: Heads, text: Heads, mask: Bool[Tensor, "b 1 1 s"] | None) -> Tokens:
    """Each token attends to all; the image's come first."""
    q, k, v = (torch.cat(parts, dim=2) for parts in zip(image, text, strict=True))
    attended = attend(q, k, v, mask)  # (b, n + m, d)
    n = image.q.shape[2]
    return Tokens(attended[:, :n], attended[:, n:])
