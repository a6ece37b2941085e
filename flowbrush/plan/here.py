"""What this machine does: products of matrices, its memory's rate, and steps of a network."""

import statistics
import time
from collections.abc import Callable

import torch

from flowbrush.backbones.layers.linear import Linear
from flowbrush.blocks import recompute_blocks
from flowbrush.experiment import ExperimentConfig, build_denoiser
from flowbrush.flow.denoiser import Denoiser
from flowbrush.flow.loss import flow_loss
from flowbrush.flow.path import Prediction
from flowbrush.plan.flops import condition_of
from flowbrush.processes import autocast, synchronize
from flowbrush.shapes import Shapes

SIDE, STEPS = 1024, 3
CLOCK = time.perf_counter
BYTES = 2**28  # of each array that the memory's rate is measured on: beyond any cache


def seconds(compute: Callable[[], object], device: torch.device, times: int = STEPS) -> list[float]:
    """Of each call, after one that is not counted."""

    def once() -> float:
        began = CLOCK()
        compute()
        synchronize(device)
        return CLOCK() - began

    once()
    return [once() for _ in range(times)]


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a product of square matrices, as the networks compute theirs: the most of a few."""
    side = SIDE if device.type == "cpu" else 8 * SIDE
    x = torch.randn(side, side, device=device, dtype=dtype)
    layer = Linear(side, side, bias=False, device=device, dtype=dtype).requires_grad_(False)
    return 2 * side**3 / min(seconds(lambda: layer(x), device, 5))


def memory_rate(device: torch.device) -> float:
    """Bytes/s that are read or written by an average's update: the most of a few."""
    a, b = torch.zeros(2, BYTES // 4, device=device).unbind()
    return 3 * BYTES / min(seconds(lambda: a.lerp_(b, 0.5), device))


def step_seconds(
    config: ExperimentConfig, shapes: Shapes, b: int, dtype: torch.dtype, device: torch.device
) -> float:
    """Forward and backward of `b` random pictures, the median of three: no optimizer, no data."""
    denoiser = build_denoiser(config, shapes, device)
    if config.train.recompute:
        recompute_blocks(denoiser)
    step = trial_step(denoiser, shapes, config.flow.loss_space, device)
    return statistics.median(seconds(lambda: step(dtype, b), device))


def trial_step(
    denoiser: Denoiser, shapes: Shapes, loss_space: Prediction, device: torch.device
) -> Callable[[torch.dtype, int], None]:
    """(dtype, b) -> None: forward and backward of `b` random images; the gradients are gone."""

    def step(dtype: torch.dtype, b: int) -> None:
        size = (b, shapes.channels, shapes.height, shapes.width)
        data, noise = torch.randn(2, *size, device=device).unbind()
        t = torch.full((b,), 0.5, device=device)
        condition = condition_of(shapes.condition, b, device)
        with autocast(dtype, device):
            losses = flow_loss(denoiser, data, noise, t, condition, loss_space)
        losses.float().mean().backward()
        denoiser.zero_grad()

    return step
