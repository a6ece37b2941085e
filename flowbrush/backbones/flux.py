"""Flux (Black Forest Labs 2024): text and image as two streams, each with weights of its own, then
as one whose blocks attend and mix channels side by side. RoPE over three axes, QK-RMSNorm; time and
pooled text in adaLN-Zero."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import gelu, pad

from flowbrush.backbones.layers.attention import (
    Heads,
    RMSNorm,
    Rotary,
    ToHeads,
    attend,
    rotary_axes,
    rotate,
)
from flowbrush.backbones.layers.embeddings import TimeEmbedding, patchify
from flowbrush.backbones.layers.feedforward import GELUFeedForward
from flowbrush.backbones.layers.initialisation import xavier_linears, zero
from flowbrush.backbones.layers.linear import Linear
from flowbrush.backbones.layers.modulation import Modulation, modulate
from flowbrush.condition import Condition
from flowbrush.errors import UserError
from flowbrush.shapes import Shapes


@dataclass(frozen=True, kw_only=True)
class FluxConfig:
    """Sizes of a Flux; the defaults are FLUX.1-schnell."""

    double_depth: int = 19
    single_depth: int = 38
    width: int = 3072
    heads: int = 24
    patch: int = 2
    mlp_ratio: float = 4.0
    axes: tuple[int, int, int] = (16, 56, 56)  # a head's channels that stay, turn by row, by column
    theta: float = 10000.0
    guidance: float | None = None  # the strength that FLUX.1-dev is told: 3.5
    mask_text: bool = False  # padding is never attended to; published is only that it is
    time_scale: float = -1000.0  # negative: published with noise at time 1

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise UserError(f"backbone: width {self.width} must divide by heads ({self.heads})")
        if sum(self.axes) != self.head or any(axis < 0 or axis % 2 for axis in self.axes):
            raise UserError(
                f"backbone: axes {self.axes} must be even and add up to width / heads = {self.head}"
            )
        if self.double_depth < 0 or self.single_depth < 1:
            raise UserError("backbone: double_depth must be 0 or more, single_depth 1 or more")

    @property
    def head(self) -> int:
        return self.width // self.heads

    @property
    def hidden(self) -> int:
        return round(self.width * self.mlp_ratio)

    def build(self, shapes: Shapes) -> "Flux":
        """Raises UserError where the shapes do not fit."""
        shapes.check_patch(self.patch)
        given = shapes.condition
        if given.text_width is None or given.pooled_width is None or given.labels is not None:
            raise UserError(
                "backbone: Flux takes text together with a pooled text vector, not labels; use JiT"
            )
        return Flux(self, shapes, given.text_width, given.pooled_width)


class Tokens(NamedTuple):
    """The two streams."""

    text: Float[Tensor, "b m d"]
    image: Float[Tensor, "b n d"]


class Stream(nn.Module):
    """What one stream does by itself in a block, before and after the attention where both meet."""

    def __init__(self, config: FluxConfig) -> None:
        super().__init__()
        width = config.width
        self.modulation = Modulation(width, 6)
        self.norm1 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.heads = ToHeads(width, config.heads, RMSNorm)
        self.proj = Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.feedforward = GELUFeedForward(width, config.hidden)

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


class DoubleBlock(nn.Module):
    """Text and image, each with weights of its own, in one attention."""

    def __init__(self, config: FluxConfig) -> None:
        super().__init__()
        self.text, self.image = Stream(config), Stream(config)

    def forward(
        self,
        x: Tokens,
        c: Float[Tensor, "b d"],
        rotary: Rotary,
        mask: Bool[Tensor, "b 1 1 s"] | None,
    ) -> Tokens:
        text_shift, text_scale, *text = self.text.modulation(c)
        image_shift, image_scale, *image = self.image.modulation(c)
        text_heads = self.text.before(x.text, text_shift, text_scale)
        image_heads = self.image.before(x.image, image_shift, image_scale)
        q, k, v = (torch.cat(both, dim=2) for both in zip(text_heads, image_heads, strict=True))
        attended = attend(rotate(q, rotary), rotate(k, rotary), v, mask)  # (b, m + n, d)
        m = x.text.shape[1]
        return Tokens(
            self.text.after(x.text, attended[:, :m], *text),
            self.image.after(x.image, attended[:, m:], *image),
        )


class SingleBlock(nn.Module):
    """Attention and feed-forward side by side, behind one modulated norm and before one gate."""

    def __init__(self, config: FluxConfig) -> None:
        super().__init__()
        width = config.width
        self.modulation = Modulation(width, 3)
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.heads = ToHeads(width, config.heads, RMSNorm)
        self.mlp = Linear(width, config.hidden)
        self.proj = Linear(width + config.hidden, width)

    def forward(
        self,
        x: Float[Tensor, "b s d"],
        c: Float[Tensor, "b d"],
        rotary: Rotary,
        mask: Bool[Tensor, "b 1 1 s"] | None,
    ) -> Float[Tensor, "b s d"]:
        shift, scale, gate = self.modulation(c)
        seen = modulate(self.norm(x), shift, scale)
        q, k, v = self.heads(seen)
        attended = attend(rotate(q, rotary), rotate(k, rotary), v, mask)
        mixed = gelu(self.mlp(seen), approximate="tanh")
        return x + gate[:, None] * self.proj(torch.cat([attended, mixed], dim=2))


class Flux(nn.Module):
    """x_t, t, text and pooled text -> a prediction of the shape of x_t."""

    def __init__(
        self, config: FluxConfig, shapes: Shapes, text_width: int, pooled_width: int
    ) -> None:
        super().__init__()
        self.config, self.text_tokens = config, shapes.condition.text_tokens
        width, values = config.width, shapes.channels * config.patch**2
        self.patches = Linear(values, width)
        self.text = Linear(text_width, width)
        self.pooled = nn.Sequential(Linear(pooled_width, width), nn.SiLU(), Linear(width, width))
        self.doubles = nn.ModuleList(DoubleBlock(config) for _ in range(config.double_depth))
        self.singles = nn.ModuleList(SingleBlock(config) for _ in range(config.single_depth))
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = Modulation(width, 2)
        self.output = Linear(width, values)
        xavier_linears(self)
        self.time = TimeEmbedding(width, config.time_scale)
        self.guidance = None if config.guidance is None else TimeEmbedding(width, 1000.0)
        zero(self.output, *(m.linear for m in self.modules() if isinstance(m, Modulation)))

    def forward(
        self, x_t: Float[Tensor, "b c h w"], t: Float[Tensor, " b"], condition: Condition
    ) -> Float[Tensor, "b c h w"]:
        config, patch = self.config, self.config.patch
        rows, columns = x_t.shape[2] // patch, x_t.shape[3] // patch
        x = Tokens(self.read(condition), self.patches(patchify(x_t, patch)))
        m = x.text.shape[1]
        rotary = rotary_axes(rows, columns, config.axes, m, x_t.device, config.theta)
        mask = self.mask(condition, rows * columns)
        c = self.vector(t, condition)
        for block in self.doubles:
            x = block(x, c, rotary, mask)
        joined = torch.cat(x, dim=1)  # (b, m + n, d)
        for block in self.singles:
            joined = block(joined, c, rotary, mask)
        shift, scale = self.modulation(c)
        packed = self.output(modulate(self.norm(joined[:, m:]), shift, scale))
        return rearrange(packed, "b (h w) (c p q) -> b c (h p) (w q)", h=rows, p=patch, q=patch)

    def vector(self, t: Float[Tensor, " b"], condition: Condition) -> Float[Tensor, "b d"]:
        """What modulates the blocks: the time with the pooled text, and the guidance it is told."""
        c = self.time(t) + self.pooled(condition.pooled)
        if self.guidance is not None and self.config.guidance is not None:
            c = c + self.guidance(torch.full_like(t, self.config.guidance))
        return c

    def read(self, condition: Condition) -> Float[Tensor, "b m d"]:
        """Tokens of the text; where padding is attended to, always padded to the same length."""
        text = condition.text
        if not self.config.mask_text and self.text_tokens is not None and text is not None:
            missing = self.text_tokens - text.shape[1]
            text = pad(text, (0, 0, 0, missing)) if missing > 0 else text
        return self.text(text)

    def mask(self, condition: Condition, n: int) -> Bool[Tensor, "b 1 1 s"] | None:
        """True for real text tokens and for the image; None where all may be attended to."""
        if not self.config.mask_text or condition.text_mask is None:
            return None
        return pad(condition.text_mask, (0, n), value=True)[:, None, None]
