"""JiT: Back to Basics: Let Denoising Generative Models Denoise (Li & He 2025).

Pixels, large patches through a bottleneck, RoPE, QK-RMSNorm, SwiGLU, and the condition as tokens
in context from a given block on.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from flowbrush.backbones.layers.attention import RMSNorm, Rotary, SelfAttention, rotary_2d
from flowbrush.backbones.layers.embeddings import TimeEmbedding, patchify, sincos_2d, unpatchify
from flowbrush.backbones.layers.feedforward import SwiGLU
from flowbrush.backbones.layers.initialisation import xavier_linears, zero
from flowbrush.backbones.layers.linear import Linear
from flowbrush.backbones.layers.modulation import Modulation, modulate
from flowbrush.condition import Condition
from flowbrush.errors import UserError
from flowbrush.shapes import Shapes


@dataclass(frozen=True, kw_only=True)
class JiTConfig:
    """Sizes of a JiT; the defaults are JiT-B/16."""

    depth: int = 12
    width: int = 768
    heads: int = 12
    patch: int = 16
    bottleneck: int = 128
    mlp_ratio: float = 4.0
    context_start: int = 4  # the block before which the tokens in context join
    text: Literal["tokens", "pooled"] = "tokens"  # pooled: its one vector takes the label's place
    label_tokens: int = 32  # how many tokens a class label or a pooled text becomes
    tokens_per_text: int = 1  # how many tokens each text token is widened to
    dropout: float = 0.0  # in the middle half of the blocks; 0.2 in JiT-H
    time_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.width % self.heads or self.width // self.heads % 4:
            raise UserError(
                f"backbone: width {self.width} / heads {self.heads} must be a multiple of 4"
            )
        if not 0 <= self.context_start < self.depth:
            raise UserError(f"backbone: context_start {self.context_start} must be in 0..depth-1")

    def build(self, shapes: Shapes) -> "JiT":
        """Raises UserError where the shapes do not fit."""
        shapes.check_patch(self.patch)
        given = shapes.condition
        if self.text == "pooled":
            if given.pooled_width is None or given.labels is not None:
                raise UserError(
                    "backbone: text 'pooled' wants a text encoder with a pooled vector; leave it "
                    "at 'tokens' for this one"
                )
        elif given.text_width is not None and (given.labels is not None or not given.text_tokens):
            raise UserError(
                "backbone: JiT takes labels or text, and text of a stated number of tokens"
            )
        return JiT(self, shapes)


class Block(nn.Module):
    """Attention and feed-forward, each between a modulated norm and a gate."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = RMSNorm(width), RMSNorm(width)
        self.attention = SelfAttention(width, heads, qk_norm=RMSNorm)
        self.dropout = nn.Dropout(dropout)
        self.feedforward = SwiGLU(width, hidden, dropout)
        self.modulation = Modulation(width, 6)

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        c: Float[Tensor, "b d"],
        rotary: Rotary,
        mask: Bool[Tensor, "b 1 1 n"] | None,
    ) -> Float[Tensor, "b n d"]:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(c)
        attended = self.attention(modulate(self.norm1(x), shift1, scale1), rotary, mask)
        x = x + gate1[:, None] * self.dropout(attended)
        return x + gate2[:, None] * self.feedforward(modulate(self.norm2(x), shift2, scale2))


class JiT(nn.Module):
    """x_t, t and a class label or text -> a prediction of the shape of x_t."""

    def __init__(self, config: JiTConfig, shapes: Shapes) -> None:
        super().__init__()
        self.config = config
        width, patch, given = config.width, config.patch, shapes.condition
        pixels = shapes.channels * patch**2
        self.squeeze = Linear(pixels, config.bottleneck, bias=False)
        self.patches = Linear(config.bottleneck, width)
        hidden = int(width * config.mlp_ratio * 2 / 3)
        quarter = config.depth // 4
        blocks = [
            Block(
                width, config.heads, hidden, config.dropout if quarter <= i < 3 * quarter else 0.0
            )
            for i in range(config.depth)
        ]
        self.blocks = nn.ModuleList(blocks)
        self.norm = RMSNorm(width)
        self.modulation = Modulation(width, 2)
        self.output = Linear(width, pixels)
        # The condition: what joins the time in c, and what becomes tokens in context.
        self.label = None if given.labels is None else nn.Embedding(given.labels + 1, width)
        self.pooled = None if given.pooled_width is None else Linear(given.pooled_width, width)
        text_width = given.text_width if config.text == "tokens" else None
        widened = width * config.tokens_per_text
        self.text = None if text_width is None else Linear(text_width, widened)
        text_tokens = (given.text_tokens or 0) * config.tokens_per_text
        repeated = self.label is not None or config.text == "pooled"
        context = config.label_tokens if repeated else text_tokens
        self.context_positions = nn.Parameter(torch.randn(1, context, width) * 0.02)
        xavier_linears(self)
        self.time = TimeEmbedding(width, config.time_scale)
        if self.label is not None:
            nn.init.normal_(self.label.weight, std=0.02)
        zero(self.output, self.modulation.linear, *(block.modulation.linear for block in blocks))

    def forward(
        self, x_t: Float[Tensor, "b c h w"], t: Float[Tensor, " b"], condition: Condition
    ) -> Float[Tensor, "b c h w"]:
        rows, columns = x_t.shape[2] // self.config.patch, x_t.shape[3] // self.config.patch
        x = self.patches(self.squeeze(patchify(x_t, self.config.patch)))  # (b, n, d)
        positions = sincos_2d(rows, columns, x.shape[2], x.device)
        x = x + positions.to(self.patches.weight.dtype)
        c = self.vector(t, condition)
        context = self.context(condition, len(x))  # (b, m, d)
        mask = self.mask(condition, context.shape[1], x.shape[1])
        head = self.config.width // self.config.heads
        rotary = rotary_2d(rows, columns, head, 0, x.device)
        joined = rotary_2d(rows, columns, head, context.shape[1], x.device)
        for i, block in enumerate(self.blocks):
            if i == self.config.context_start:
                x, rotary = torch.cat([context.to(x.dtype), x], dim=1), joined  # (b, m + n, d)
            x = block(x, c, rotary, mask if i >= self.config.context_start else None)
        x = x[:, context.shape[1] :]  # (b, n, d)
        shift, scale = self.modulation(c)
        return unpatchify(
            self.output(modulate(self.norm(x), shift, scale)), self.config.patch, rows
        )

    def vector(self, t: Float[Tensor, " b"], condition: Condition) -> Float[Tensor, "b d"]:
        """What modulates the blocks: the time, with the label or the pooled text."""
        c = self.time(t)
        if self.label is not None:
            c = c + self.label(condition.label)
        if self.pooled is not None:
            c = c + self.pooled(condition.pooled)
        return c

    def context(self, condition: Condition, b: int) -> Float[Tensor, "b m d"]:
        """The tokens in context, each at its position: one vector repeated, or the text widened."""
        positions = self.context_positions
        if self.label is not None:
            return self.label(condition.label)[:, None] + positions
        if self.pooled is not None and self.config.text == "pooled":
            return self.pooled(condition.pooled)[:, None] + positions
        if self.text is not None:
            tokens = rearrange(
                self.text(condition.text), "b n (k d) -> b (n k) d", k=self.config.tokens_per_text
            )
            return tokens + positions[:, : tokens.shape[1]]
        return positions.expand(b, -1, -1)

    def mask(self, condition: Condition, m: int, n: int) -> Bool[Tensor, "b 1 1 {m}+{n}"] | None:
        """True for the image and for real text tokens; None where all are real."""
        if self.text is None or condition.text_mask is None:
            return None
        real = condition.text_mask.repeat_interleave(self.config.tokens_per_text, dim=1)
        return nn.functional.pad(real, (0, n), value=True)[:, None, None]
