"""A training step in fp32, in bf16 and in bf16 with attention in fp32, on this CPU.

    OMP_NUM_THREADS=1 python benchmarks/cpu_precision.py [rounds]

JiT's of several widths, 20 tokens at batch 64 (the demo's shape) and 260 tokens at batch 4. The
variants of a shape take turns in every round; a ratio is the median of the rounds' ratios.
"""

import statistics
import sys
import time

import torch

from flowbrush.backbones import JiTConfig
from flowbrush.backbones.layers import attention
from flowbrush.flow.denoiser import Denoiser
from flowbrush.plan.here import trial_step
from flowbrush.shapes import ConditionShapes, Shapes

CPU = torch.device("cpu")
WIDTHS = (96, 192, 384)
SEQUENCES = ((32, 8, 64), (128, 8, 4))  # image's side, patch, batch
BF16_KEYS, FP32_KEYS = 0, 2**31  # the most keys for which attention is computed in fp32


def step_seconds(config: JiTConfig, side: int, batch: int, rounds: int) -> dict[str, list[float]]:
    condition = ConditionShapes(text_width=512, text_tokens=4, pooled_width=512)
    shapes = Shapes(channels=3, height=side, width=side, condition=condition)
    network = config.build(shapes)
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.02)
    step = trial_step(Denoiser(network, "data", 0.05), shapes, "velocity", CPU)
    variants = {
        "fp32": (torch.float32, BF16_KEYS),
        "bf16": (torch.bfloat16, BF16_KEYS),
        "bf16, attention in fp32": (torch.bfloat16, FP32_KEYS),
    }
    found: dict[str, list[float]] = {name: [] for name in variants}
    for i in range(rounds + 1):  # the first is not counted
        for name, (dtype, keys) in variants.items():
            attention.FP32_KEYS = keys
            began = time.perf_counter()
            step(dtype, batch)
            if i:
                found[name].append(time.perf_counter() - began)
    return found


def main(rounds: int) -> None:
    print("| width | image | batch | ms in fp32 | fp32 / bf16 | fp32 / bf16, attention in fp32 |")
    print("|---|---|---|---|---|---|")
    for side, patch, batch in SEQUENCES:
        for width in WIDTHS:
            config = JiTConfig(depth=6, width=width, heads=width // 32, patch=patch, bottleneck=48)
            seconds = step_seconds(config, side, batch, rounds)
            ms = 1000 * statistics.median(seconds["fp32"])
            ratios = [
                statistics.median(
                    a / b for a, b in zip(seconds["fp32"], seconds[name], strict=True)
                )
                for name in ("bf16", "bf16, attention in fp32")
            ]
            print(
                f"| {width} | {side} px | {batch} | {ms:.0f} | {ratios[0]:.2f} | {ratios[1]:.2f} |"
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
