"""Two processes against one, each with one thread: pictures a second, and where the rest goes.

    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 benchmarks/parallel.py [rounds] [precision] [b]

A JiT of 20 million weights learns from batches of b (64) pictures of 32 px, in turns in the same
two processes: by one of them while the other waits; by both; and by both without a word to one
another, which is what the replicated optimizer and the cores' shared memory leave of two; and by
both in shards (FSDP2), with and without computing blocks again. All-reduce is what gloo takes for
as many numbers when nothing else is computed. A processor's time is that of the first process with
its threads: on a machine shared with other work it says what the clock cannot.
"""

import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import distributed

from flowbrush.backbones import JiTConfig
from flowbrush.blocks import recompute_blocks
from flowbrush.condition import Condition
from flowbrush.experiment import Sharding, TrainConfig
from flowbrush.flow.denoiser import Denoiser
from flowbrush.flow.loss import flow_loss
from flowbrush.processes import Precision, Processes, autocast, choose_dtype, joined_processes
from flowbrush.shapes import ConditionShapes, Shapes
from flowbrush.train.ema import EMA, exponential
from flowbrush.train.optimizer import build_optimizer
from flowbrush.train.parallel import BUCKET, clipped, share

STEPS = 3
JIT = JiTConfig(
    depth=4, width=512, heads=8, patch=8, bottleneck=64, context_start=0, tokens_per_text=4
)
SHAPES = Shapes(
    channels=3, height=32, width=32, condition=ConditionShapes(text_width=256, text_tokens=1)
)


class Trainer:
    """What `flowbrush train` does in a step on `b` pictures, after they have been read."""

    def __init__(
        self,
        processes: Processes,
        b: int,
        dtype: torch.dtype,
        sharding: Sharding = "none",
        recompute: bool = False,
    ) -> None:
        torch.manual_seed(0)
        self.processes, self.dtype, self.backbone = processes, dtype, JIT.build(SHAPES)
        self.network = Denoiser(self.backbone, "data", 0.05)
        if recompute:
            recompute_blocks(self.backbone)
        self.gradients = share(self.backbone, processes, sharding)
        self.optimizer = build_optimizer(self.backbone, TrainConfig())
        self.ema = EMA(self.backbone, exponential(0.999))
        self.data, self.noise = torch.randn(2, b, 3, 32, 32).unbind()
        self.t, self.condition = torch.rand(b), Condition(text=torch.randn(b, 1, 256))
        self.step()

    def step(self) -> None:
        self.processes.gathered([])
        self.optimizer.zero_grad()
        with self.gradients.shared(last=True):
            with autocast(self.dtype, self.processes.device):
                given = self.data, self.noise, self.t, self.condition
                losses = flow_loss(self.network, *given, "velocity")
            loss = losses.float().mean()
            loss.backward()
        self.update()
        self.processes.mean(loss.detach())
        self.processes.largest(0)

    def update(self) -> None:
        """What every process does as a whole, however many there are."""
        clipped(self.backbone, 1.0)
        self.optimizer.step()
        self.ema.update(1000)


def seconds(step: Callable[[], object], processes: Processes) -> tuple[float, float]:
    """Of one step, when all processes begin together: by the clock, and of a processor's time."""
    processes.wait()
    began, used = time.perf_counter(), time.process_time()
    for _ in range(STEPS):
        step()
    return (time.perf_counter() - began) / STEPS, (time.process_time() - used) / STEPS


def main(rounds: int, precision: Precision, b: int) -> None:
    with joined_processes("cpu") as processes:
        torch.set_num_threads(1)
        alone = Processes(processes.device)
        dtype = choose_dtype(precision, processes.device)
        single = Trainer(alone, b, dtype)
        shared = Trainer(processes, b // processes.world, dtype)
        silent = Trainer(alone, b // processes.world, dtype)
        sharded, again = (
            Trainer(processes, b // processes.world, dtype, "full", recompute)
            for recompute in (False, True)
        )
        numbers = torch.zeros(sum(w.numel() for w in single.backbone.parameters()))
        parts = numbers.split(BUCKET)

        def idle() -> None:
            pass

        def reduce() -> None:
            for work in [distributed.all_reduce(part, async_op=True) for part in parts]:
                work.wait()

        steps = {
            "one process": single.step if processes.is_main else idle,
            "two": shared.step,
            "two, silent": silent.step,
            "two, clip, AdamW and EMA": silent.update,
            "two, all-reduce": reduce,
            "two, FSDP2": sharded.step,
            "two, FSDP2, recompute": again.step,
            "two, FSDP2, AdamW and EMA": sharded.update,
        }
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
        for _ in range(rounds):
            for name, step in steps.items():
                times[name].append(seconds(step, processes))
        for name, found in times.items():
            clock, used = (statistics.median(each) for each in zip(*found, strict=True))
            processes.say(f"{name:25} {clock * 1000:6.0f} ms, of a processor {used * 1000:6.0f} ms")
        for way in ("two", "two, FSDP2"):
            pairs = list(zip(times["one process"], times[way], strict=True))
            for i, how in enumerate(("by the clock", "by processors' time")):
                ratios = sorted(one[i] / two[i] for one, two in pairs)
                processes.say(
                    f"{way}: {statistics.median(ratios):.2f} times as fast {how} "
                    f"({ratios[0]:.2f} to {ratios[-1]:.2f})"
                )
        processes.say(f"{numbers.numel():,} weights, {dtype}, batches of {b}")


if __name__ == "__main__":
    given = dict(enumerate(sys.argv))
    main(int(given.get(1, 5)), given.get(2, "fp32"), int(given.get(3, 64)))
