"""A small U-Net (Ronneberger et al. 2015; with time as in Ho et al. 2020): convolutions, for the
first step from noise to pictures."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate, silu

from flowbrush.backbones.layers.embeddings import TimeEmbedding
from flowbrush.backbones.layers.initialisation import zero
from flowbrush.backbones.layers.linear import Linear
from flowbrush.condition import Condition
from flowbrush.errors import UserError
from flowbrush.shapes import Shapes


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """Sizes of a U-Net. Each level after the first halves the height and width."""

    width: int = 32
    levels: tuple[int, ...] = (1, 2, 4)  # width of each level, in widths of the first
    pooled_text: bool = False  # a text's one vector instead of a label
    time_scale: float = 1000.0

    def __post_init__(self) -> None:
        if self.width % 8 or not self.levels:
            raise UserError(
                f"backbone: width {self.width} must divide by 8, levels name at least 1"
            )

    def build(self, shapes: Shapes) -> "UNet":
        """Raises UserError where the shapes do not fit."""
        shapes.check_patch(2 ** (len(self.levels) - 1))
        shapes.check_one_vector("UNet", self.pooled_text)
        return UNet(self, shapes)


class Block(nn.Module):
    """Two convolutions around a modulation by time and condition, and a way past them."""

    def __init__(self, before: int, after: int, condition: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, before), nn.GroupNorm(8, after)
        self.conv1 = nn.Conv2d(before, after, 3, padding=1)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1)
        self.modulation = Linear(condition, 2 * after)
        self.past = nn.Conv2d(before, after, 1) if before != after else nn.Identity()

    def forward(
        self, x: Float[Tensor, "b i h w"], c: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b o h w"]:
        shift, scale = self.modulation(silu(c))[:, :, None, None].chunk(2, dim=1)  # (b, o, 1, 1)
        out = self.norm2(self.conv1(silu(self.norm1(x))))
        out = out * (1 + scale) + shift
        return self.past(x) + self.conv2(silu(out))


class UNet(nn.Module):
    """x_t, t and a class label, pooled text or nothing -> a prediction of the shape of x_t."""

    def __init__(self, config: UNetConfig, shapes: Shapes) -> None:
        super().__init__()
        widths = [config.width * level for level in config.levels]
        c, given = 4 * config.width, shapes.condition
        self.time = TimeEmbedding(c, config.time_scale)
        self.label = None if given.labels is None else nn.Embedding(given.labels + 1, c)
        self.pooled = None if given.pooled_width is None else Linear(given.pooled_width, c)
        self.first = nn.Conv2d(shapes.channels, widths[0], 3, padding=1)
        before = [widths[0], *widths[:-1]]
        self.down = nn.ModuleList(Block(i, o, c) for i, o in zip(before, widths, strict=True))
        self.middle = Block(widths[-1], widths[-1], c)
        sides = zip(widths, before, strict=True)
        self.up = nn.ModuleList(Block(2 * i, o, c) for i, o in reversed(list(sides)))
        self.norm = nn.GroupNorm(8, widths[0])
        self.output = nn.Conv2d(widths[0], shapes.channels, 3, padding=1)
        zero(self.output)

    def forward(
        self, x_t: Float[Tensor, "b c h w"], t: Float[Tensor, " b"], condition: Condition
    ) -> Float[Tensor, "b c h w"]:
        c = self.vector(t, condition)
        x, seen = self.first(x_t), []
        for level, block in enumerate(self.down):
            x = block(nn.functional.avg_pool2d(x, 2) if level else x, c)
            seen.append(x)  # (b, o, h / 2^level, w / 2^level)
        x = self.middle(x, c)
        for block in self.up:
            beside = seen.pop()
            x = interpolate(x, beside.shape[2:]) if x.shape[2:] != beside.shape[2:] else x
            x = block(torch.cat([x, beside], dim=1), c)
        return self.output(silu(self.norm(x)))

    def vector(self, t: Float[Tensor, " b"], condition: Condition) -> Float[Tensor, "b d"]:
        """What modulates the blocks: the time, with the label or the pooled text."""
        c = self.time(t)
        if self.label is not None:
            c = c + self.label(condition.label)
        if self.pooled is not None:
            c = c + self.pooled(condition.pooled)
        return c
