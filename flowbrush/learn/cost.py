"""What one picture costs a transformer to learn, as pictures grow, and a drawing of it.

    FLOPs of a block, forward, on n tokens of width d:   24 n d^2  +  4 n^2 d

The second term is attention's: every token meets every other.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from matplotlib.axes import Axes

from flowbrush.backbones import JiTConfig
from flowbrush.experiment import ExperimentConfig
from flowbrush.learn.drawing import BLUE, VERMILION
from flowbrush.plan.flops import LEARNING, forward_flops, skeleton
from flowbrush.plan.here import step_seconds
from flowbrush.plan.live import step_memory
from flowbrush.processes import choose_device, choose_dtype
from flowbrush.shapes import ConditionShapes, Shapes

MOST_TIMED = 1024  # tokens of a picture; a step of more takes a CPU too long


@dataclass(frozen=True)
class Cost:
    """Of one picture, forward and backward, in the network alone."""

    size: int  # of the picture, in pixels
    tokens: int  # of the picture, its text's apart
    flops: int
    attention: int  # those of them that grow with the square of the tokens
    memory: int  # bytes kept for the backward pass
    seconds: float  # measured here; nan beyond MOST_TIMED tokens


def cost(
    config: ExperimentConfig, channels: int, side: int, patch: int, condition: ConditionShapes
) -> Cost:
    """Of the JiT of `config` on (channels, side, side) numbers in patches of `patch`.

    As many pictures are computed together as have MOST_TIMED tokens.
    Raises UserError where the patches do not fit.
    """
    assert isinstance(config.backbone, JiTConfig)
    backbone = replace(config.backbone, patch=patch)
    config = replace(config, backbone=backbone)
    shapes = Shapes(channels=channels, height=side, width=side, condition=condition)
    network, device = skeleton(backbone, shapes), choose_device()
    dtype = choose_dtype(config.train.precision, device)
    one, two = (
        step_memory(config, shapes, b, dtype, recompute=False, cuda=device.type == "cuda").kept
        for b in (1, 2)
    )
    tokens = (side // patch) ** 2
    context = (condition.text_tokens or 0) * backbone.tokens_per_text
    seconds, together = math.nan, MOST_TIMED // tokens
    if together:
        seconds = step_seconds(config, shapes, together, dtype, device) / together
    return Cost(
        size=config.size,
        tokens=tokens,
        flops=LEARNING * forward_flops(network, shapes),
        attention=LEARNING * attention_flops(backbone, tokens + context),
        memory=two - one,
        seconds=seconds,
    )


def attention_flops(config: JiTConfig, tokens: int) -> int:
    """Forward, of queries with keys and of what comes out with values, in all blocks."""
    return config.depth * 4 * tokens**2 * config.width


def draw_costs(axes: Iterable[Axes], costs: Mapping[str, Sequence[Cost]]) -> None:
    """FLOPs, memory and seconds over the picture's side, one a panel; a line for each way."""
    units = (
        ("flops", 1e9, "GFLOP"),
        ("memory", 1e6, "MB kept for backward"),
        ("seconds", 1, "seconds, measured"),
    )
    for ax, (field, unit, name) in zip(axes, units, strict=True):
        for (way, steps), colour in zip(costs.items(), (VERMILION, BLUE), strict=False):
            sizes = [step.size for step in steps]
            numbers = [getattr(step, field) / unit for step in steps]
            ax.plot(sizes, numbers, "o-", color=colour, label=way)
            if field == "flops":
                part = [step.attention / unit for step in steps]
                ax.plot(sizes, part, ":", color=colour, label="   its n² part")
            ax.set(xscale="log", yscale="log", xlabel="side, px", title=name)
            ax.set_xticks(sizes, [str(size) for size in sizes])
        ax.minorticks_off()
        ax.grid(alpha=0.25)
        ax.legend(fontsize=8)
