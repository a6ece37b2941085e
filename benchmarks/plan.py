"""What `flowbrush plan --device cpu` says, against what training takes: memory and time of a step.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/plan.py [rounds [case ...]]

In turns and in a fresh process each: a plan of a recipe, then ten steps of its real training.
Memory is the most that the whole process has held until the last step (VmHWM; Linux), before it
paints and writes a checkpoint. A step is the median of the later six, in time of a processor, that
of reading with it: on a machine shared with other work the clock says little. Prints the medians of
the rounds, and the ratio in each, planned over measured; by the clock as well.
"""

import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch

STEPS, FIRST = 10, 4  # of which the first are not timed
CASES = {
    "emoji": ["emoji"],
    "emoji, fp32": ["emoji", "--train.precision", "fp32"],
    "shapes": ["shapes"],
    "mnist, fp32": ["mnist", "--train.precision", "fp32"],
    "pixart-small at 64 px, width 384, batch 16": [
        *("pixart-small", "--size", "64", "--backbone.width", "384", "--batch.size", "16"),
    ],
    "mnist at 56 px with JiT-B/8, fp32, batch 8 in 2 parts, two averages": [
        *("mnist", "--size", "56", "--batch.size", "8", "--train.accumulate", "2"),
        *("--train.ema", "0.99", "0.999", "--backbone.width", "768", "--backbone.heads", "12"),
        *("--backbone.depth", "12", "--backbone.patch", "8", "--train.precision", "fp32"),
    ],
}


def planned(arguments: list[str]) -> list[float]:
    """Bytes at the peak, seconds of a step of a processor's time, and by the clock."""
    import flowbrush.train.loop  # noqa: F401
    from flowbrush.cli.options import experiment, parse
    from flowbrush.experiment import ExperimentConfig
    from flowbrush.plan.host import resident
    from flowbrush.text import SentenceConfig

    begun = experiment(arguments[0], "emoji", False, "plan")
    config = parse(ExperimentConfig, begun, arguments[1:], "plan")
    source = config.source.build(config.size)
    if isinstance(config.text, SentenceConfig):
        config.text.build(torch.device("cpu"))
    base = resident()
    from flowbrush.plan import here
    from flowbrush.plan.plan import PlanConfig, plan

    by_clock = plan(config, PlanConfig(device="cpu"), source, base)
    here.CLOCK = time.process_time
    found = plan(config, PlanConfig(device="cpu"), source, base)
    return [found.memory.peak, found.step_seconds, by_clock.step_seconds]


def trained(arguments: list[str]) -> list[float]:
    """The same, measured."""
    from flowbrush.cli.options import experiment, parse
    from flowbrush.experiment import ExperimentConfig
    from flowbrush.processes import Processes
    from flowbrush.train import loop

    begun = experiment(arguments[0], "emoji", False, "plan")
    config = parse(ExperimentConfig, begun, arguments[1:], "plan")
    b = config.batch.size
    config = replace(
        config,
        train=replace(config.train, pictures=STEPS * b),
        watch=replace(config.watch, log=b, preview=10**9, checkpoint=10**9),
    )
    moments: list[tuple[int, float, float]] = []

    class Observed(loop.Journal):
        def write(self, seen: int, lr: float) -> None:
            status = Path("/proc/self/status").read_text()
            peak = 1024 * int(status.split("VmHWM:")[1].split()[0])
            moments.append((peak, time.process_time(), time.perf_counter()))
            super().write(seen, lr)

    loop.Journal = Observed
    with tempfile.TemporaryDirectory() as folder:
        loop.train(config, Path(folder) / "run", Processes(torch.device("cpu")))
    steps = moments[FIRST:STEPS]
    taken = [statistics.median(b[i] - a[i] for a, b in pairwise(steps)) for i in (1, 2)]
    return [steps[-1][0], *taken]


def apart(what: str, case: str) -> list[float]:
    """Of a process of its own."""
    child = [sys.executable, __file__, what, case]
    said = subprocess.run(child, capture_output=True, text=True, check=True).stdout
    return json.loads(said.splitlines()[-1])


def told(pairs: list[tuple[float, float]], unit: float) -> str:
    ratios = sorted(one / other for one, other in pairs)
    one, other = (statistics.median(values) / unit for values in zip(*pairs, strict=True))
    median = statistics.median(ratios)
    return f"{one:,.0f} | {other:,.0f} | {median:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"


def main(rounds: int, cases: list[str]) -> None:
    found: dict[str, list[tuple[list[float], list[float]]]] = {case: [] for case in cases}
    for _ in range(rounds):
        for case in cases:
            found[case].append((apart("planned", case), apart("trained", case)))
    print(f"torch {torch.__version__}, {platform.machine()}, {torch.get_num_threads()} threads")
    columns = [f"{what} planned | measured | ratio" for what in ("MB", "ms", "ms by the clock")]
    print(f"| recipe | {' | '.join(columns)} |")
    print("|---" + "|--:|--:|---" * 3 + "|")
    for case, turns in found.items():
        cells = [
            told([(one[i], other[i]) for one, other in turns], unit)
            for i, unit in enumerate((1e6, 1e-3, 1e-3))
        ]
        print(f"| {case} | {' | '.join(cells)} |")


if __name__ == "__main__":
    if sys.argv[1:2] in (["planned"], ["trained"]):
        measure = {"planned": planned, "trained": trained}[sys.argv[1]]
        print(json.dumps(measure(CASES[sys.argv[2]])))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 3, sys.argv[2:] or list(CASES))
