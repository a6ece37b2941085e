"""What padding costs: MMDiT trained on text of 25 real tokens, beside the same padded to 512.

    .venv/bin/python benchmarks/text_masks.py [rounds]

One training step (fused AdamW, clip) at batch 4, width 384, depth 6, 256 image tokens, in turns in
one process on one thread. "25 each": every caption has 25 tokens. "5 to 45": their mean is 25, and
the batch is padded to its longest, under a mask. Both against 512 tokens that are all attended to.
"""

import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version

import torch
from torch import Tensor

from flowbrush.backbones import MMDiTConfig
from flowbrush.condition import Condition, joined
from flowbrush.experiment import TrainConfig
from flowbrush.processes import autocast
from flowbrush.shapes import ConditionShapes, Shapes
from flowbrush.train.optimizer import build_optimizer

CPU, WIDTH = torch.device("cpu"), 256
GIVEN = ConditionShapes(text_width=WIDTH, text_tokens=512, pooled_width=128)
TEXTS = {"25 each": (25, 25, 25, 25), "5 to 45": (5, 15, 35, 45), "512 padded": (512,) * 4}


def condition(lengths: tuple[int, ...]) -> Condition:
    rows = [Condition(text=torch.randn(1, n, WIDTH), pooled=torch.randn(1, 128)) for n in lengths]
    return joined(rows)


def trainer(lengths: tuple[int, ...], dtype: torch.dtype) -> Callable[[], None]:
    shapes = Shapes(channels=4, height=32, width=32, condition=GIVEN)
    net = MMDiTConfig(depth=6, width=384, heads=6).build(shapes)
    optimizer, given = build_optimizer(net, TrainConfig()), condition(lengths)
    x, t = torch.randn(len(lengths), 4, 32, 32), torch.rand(len(lengths))

    def step() -> None:
        with autocast(dtype, CPU):
            loss: Tensor = net(x, t, given).float().square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def main() -> None:
    torch.set_num_threads(1)
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    print(f"torch {version('torch')}; a step's time as a share of 512 padded (median, range)\n")
    print("| dtype | 25 each | 5 to 45 |\n|---|--:|--:|")
    for dtype in (torch.float32, torch.bfloat16):
        steps = {name: trainer(lengths, dtype) for name, lengths in TEXTS.items()}
        taken: dict[str, list[float]] = {name: [] for name in steps}
        for turn in range(rounds + 1):
            for name, step in steps.items():
                began = time.perf_counter()
                step()
                if turn:
                    taken[name].append(time.perf_counter() - began)
        whole = taken.pop("512 padded")
        cells = []
        for found in taken.values():
            shares = [part / all_ for part, all_ in zip(found, whole, strict=True)]
            cells.append(
                f"{statistics.median(shares):.2f} ({min(shares):.2f} to {max(shares):.2f})"
            )
        print(f"| {str(dtype)[6:]} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
