"""FLOPs, counted on tensors without memory: two for a multiplication and its addition.

Learning takes three times the forward pass: backward computes gradients of inputs and of weights.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from flowbrush.backbones import BackboneConfig
from flowbrush.condition import Condition
from flowbrush.plan.devices import named
from flowbrush.shapes import ConditionShapes, Shapes

LEARNING = 3  # forward passes
META = torch.device("meta")


def condition_of(shapes: ConditionShapes, b: int, device: torch.device) -> Condition:
    """A batch of conditions of those sizes, each text as long as it can be."""
    label = text = mask = pooled = None
    if shapes.labels is not None:
        label = torch.zeros(b, dtype=torch.long, device=device)
    if shapes.text_width is not None:
        tokens = shapes.text_tokens or 1
        text = torch.zeros(b, tokens, shapes.text_width, device=device)
        mask = torch.ones(b, tokens, dtype=torch.bool, device=device) if tokens > 1 else None
    if shapes.pooled_width is not None:
        pooled = torch.zeros(b, shapes.pooled_width, device=device)
    return Condition(label=label, text=text, text_mask=mask, pooled=pooled)


def skeleton(backbone: BackboneConfig, shapes: Shapes) -> nn.Module:
    """The network without memory for its weights. Raises UserError where the shapes do not fit."""
    with META:
        return backbone.build(shapes)


def counted(compute: Callable[[], object]) -> int:
    """FLOPs of what is computed."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        compute()
    return counter.get_total_flops()


def forward_flops(network: nn.Module, shapes: Shapes) -> int:
    """Of one picture with its text, which is as long as it can be. network: a skeleton."""
    x_t = torch.zeros(1, shapes.channels, shapes.height, shapes.width, device=META)
    given = condition_of(shapes.condition, 1, META)
    return counted(lambda: network(x_t, torch.zeros(1, device=META), given))


@dataclass(frozen=True)
class Work:
    """What a picture costs to learn, against what the devices could do."""

    flops: int  # of one picture
    peak: float | None  # FLOP/s of all devices together; None = not known
    told: str  # both, in words; empty where the peak is not known


def work_of(
    backbone: BackboneConfig, shapes: Shapes, device: torch.device, dtype: torch.dtype, world: int
) -> Work:
    """Of the network alone, on `world` devices like this one."""
    flops = LEARNING * forward_flops(skeleton(backbone, shapes), shapes)
    known = named(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    if known is None:
        return Work(flops, None, "")
    peak, kind = known.peak(dtype), "fp32" if dtype == torch.float32 else "bf16"
    told = f"a picture takes {flops / 1e9:,.2f} GFLOP, forward and backward, of the network alone"
    of = f"{world} x {peak / 1e12:,.0f} TFLOP/s ({known.name}, {kind}, {known.source})"
    return Work(flops, world * peak, f"{told}; MFU is the share of {of}")
