"""The demo's training steps on an idle machine and beside one busy process.

    python benchmarks/busy_machine.py [rounds] [seconds]

A row is a choice of threads and of how they wait for each other. Each measurement is a process of
its own; all rows take turns in every round. `chosen` is what `flowbrush train` does: where another
process is busy when a run begins, one thread a free core. Figures are medians of the rounds.
"""

import os
import statistics
import subprocess
import sys

ROWS = {
    "spin (torch's default)": {},
    "spin at most 1,000 times": {"GOMP_SPINCOUNT": "1000"},
    "spin at most 5,000 times": {"GOMP_SPINCOUNT": "5000"},
    "sleep": {"OMP_WAIT_POLICY": "passive"},
    "one thread": {"OMP_NUM_THREADS": "1"},
    "chosen": {"CHOSEN": "1"},
}
SETTINGS = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "CHOSEN")
BUSY = "while True: pass"


def images_per_second(seconds: float) -> None:
    """In a process of its own: print the rate of the demo's steps."""
    from flowbrush.cpu import free_cores, set_wait_policy

    if "CHOSEN" in os.environ:
        set_wait_policy()
    import time

    import torch

    from flowbrush.experiment import build_denoiser, build_shapes
    from flowbrush.plan.here import trial_step
    from flowbrush.recipes import recipe

    if "CHOSEN" in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), free_cores()))
    config, device = recipe("emoji"), torch.device("cpu")
    shapes = build_shapes(config, config.space.build(device), config.text.build(device))
    step = trial_step(build_denoiser(config, shapes, device), shapes, "velocity", device)
    b = config.batch.size
    step(torch.float32, b)
    steps, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds:
        step(torch.float32, b)
        steps += 1
    print(steps * b / passed)


def main(rounds: int, seconds: float) -> None:
    plain = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    found: dict[tuple[str, bool], list[float]] = {}
    for _ in range(rounds):
        for busy in (False, True):
            other = subprocess.Popen([sys.executable, "-c", BUSY]) if busy else None
            for name, settings in ROWS.items():
                command = [sys.executable, __file__, "measure", str(seconds)]
                done = subprocess.run(
                    command, env=plain | settings, check=True, capture_output=True, text=True
                )
                found.setdefault((name, busy), []).append(float(done.stdout))
            if other:
                other.kill()
                other.wait()
    medians = {key: statistics.median(rates) for key, rates in found.items()}
    whole = medians[next(iter(ROWS)), False]
    print("| threads | images/s alone | of the default | beside a busy process | of the default |")
    print("|---|---|---|---|---|")
    for name in ROWS:
        alone, beside = medians[name, False], medians[name, True]
        print(
            f"| {name} | {alone:.0f} | {alone / whole:.2f} | {beside:.0f} | {beside / whole:.2f} |"
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:
        images_per_second(float(sys.argv[2]))
    else:
        numbers = [float(word) for word in sys.argv[1:]] + [3, 5][len(sys.argv) - 1 :]
        main(int(numbers[0]), numbers[1])
