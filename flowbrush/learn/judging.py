"""What a run paints of all that it learned, how right it is, and what it cost."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import UInt8
from torch import Tensor

from flowbrush.evaluate.asked import Asked, of_run
from flowbrush.evaluate.intervals import of_mean, of_share
from flowbrush.evaluate.reconstruction import psnr
from flowbrush.evaluate.right_first import is_right_first
from flowbrush.experiment import build_shapes
from flowbrush.plan.flops import LEARNING, forward_flops, skeleton
from flowbrush.text_to_image import TextToImage


@dataclass(frozen=True)
class Judged:
    """Pictures from all captions, kind after kind, and figures, each with its 95 % interval."""

    what: Asked
    pictures: UInt8[Tensor, "b 3 H W"]
    right: dict[str, tuple[float, float, float]]  # of each kind: share nearest to the asked one
    psnr: tuple[float, float, float]  # dB, to the asked one
    seconds: float  # to paint one of many
    parameters: int  # of the network
    flops: int  # of its training


def judged(painter: TextToImage, most: int = 0) -> Judged:
    """Of `most` examples of one picture a concept (0 = all), with the run's own sampling."""
    config = painter.config
    what = of_run(config, most)
    began = time.perf_counter()
    pictures = painter.generate(what.captions)
    seconds = (time.perf_counter() - began) / len(pictures)
    real = torch.cat([*what.real()])
    shapes = build_shapes(config, painter.space, painter.encoder)
    network = skeleton(config.backbone, shapes)
    return Judged(
        what=what,
        pictures=pictures,
        right={
            kind: of_share(
                is_right_first(pictures[what.of(kind)], real), what.groups[what.of(kind)]
            )
            for kind in what.kinds
        },
        psnr=of_mean(psnr(real.repeat(len(what.kinds), 1, 1, 1), pictures), what.groups),
        seconds=seconds,
        parameters=sum(weight.numel() for weight in network.parameters()),
        flops=LEARNING * forward_flops(network, shapes) * config.train.pictures,
    )


def table(runs: Mapping[str, Judged]) -> str:
    """Three lines for each run."""
    lines = []
    for name, one in runs.items():
        shares = [f"{kind} {_told(right, '.0%')}" for kind, right in one.right.items()]
        lines += [
            f"{name}: right first {', '.join(shares)}, of {len(one.what)} names each",
            f"    {_told(one.psnr, '.1f')} dB PSNR; {one.seconds:.2f} s to paint one",
            f"    {one.parameters / 1e6:.1f} M weights, {one.flops / 1e12:.1f} TFLOP to learn",
        ]
    return "\n".join(lines)


def _told(measured: tuple[float, float, float], form: str) -> str:
    """With its interval, where there is one."""
    value, low, high = measured
    return f"{value:{form}}" + ("" if math.isnan(low) else f" ({low:{form}} to {high:{form}})")
