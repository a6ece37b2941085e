"""Precision and CPU threads of a run: chosen at its first start, kept when it resumes.

Both change a sum's rounding, so the bits of a run depend on them. They are written into the run,
and do not depend on how busy or how fast the machine is at a later moment.
"""

import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from flowbrush.cpu import free_cores, usable_cores
from flowbrush.errors import UserError
from flowbrush.processes import Precision, Processes, choose_dtype
from flowbrush.whole_files import write_whole

COMPUTE_FILE = "compute.json"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
GAIN = 1.05  # how many times as fast as fp32 bf16 must be to be chosen
LONG_ENOUGH = 0.2  # seconds of a trial step that tell
CLOCK = time.perf_counter

Trial = Callable[[torch.dtype, int], object]  # a training step in that dtype of so many images


@dataclass(frozen=True)
class Compute:
    """How a run computes."""

    device: str  # type of the device for which the others were chosen: cpu, cuda, mps
    precision: str  # fp32 or bf16
    threads: int  # of each process, for tensors on the CPU

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.precision]


def load_compute(run: Path) -> Compute | None:
    """What the run has recorded; None before its first start, and of runs from before there was it.

    Raises UserError where the file is damaged.
    """
    path = run / COMPUTE_FILE
    if not path.exists():
        return None
    try:
        found = Compute(**json.loads(path.read_text("utf-8")))
        if found.precision not in DTYPES or not isinstance(found.threads, int) or found.threads < 1:
            raise ValueError
    except (ValueError, TypeError):
        raise UserError(f"{path}: damaged; delete it, and it is made anew") from None
    return found


def dtype_of(run: Path, precision: Precision, device: torch.device) -> torch.dtype:
    """The dtype to sample from a run with: under `auto` the one that it was trained with."""
    recorded = load_compute(run)
    if precision == "auto" and recorded and recorded.device == device.type:
        return recorded.dtype
    return choose_dtype(precision, device)


def choose_compute(
    run: Path, precision: Precision, processes: Processes, resumes: bool, trial: Trial, most: int
) -> Compute:
    """How the run computes from now on; the threads are set.

    At a first start `auto` is measured: steps of the actual network in bf16 and in fp32. A resumed
    run keeps what it has recorded; one without a record computes as it did before there was one.
    An explicit precision wins over the record, OMP_NUM_THREADS over the recorded threads.
    resumes: there is a checkpoint. most: the images of a trial step are at most so many.
    """
    chosen = None
    if processes.is_main:
        recorded, device = load_compute(run), processes.device
        kept = recorded if recorded and recorded.device == device.type else None
        threads = torch.get_num_threads()
        if "OMP_NUM_THREADS" not in os.environ and (kept or not resumes):
            threads = min(kept.threads, usable_cores()) if kept else min(threads, free_cores())
        torch.set_num_threads(threads)
        dtype = choose_dtype(precision, device)
        if precision == "auto" and kept:
            dtype = kept.dtype
        elif precision == "auto" and not resumes and device.type == "cpu":
            dtype = _measured(dtype, trial, most, processes.say)
        chosen = Compute(device.type, "bf16" if dtype == torch.bfloat16 else "fp32", threads)
    chosen = processes.gathered(chosen)[0]
    assert chosen is not None
    torch.set_num_threads(chosen.threads)
    return chosen


def record_compute(run: Path, compute: Compute) -> None:
    write_whole(run / COMPUTE_FILE, (json.dumps(asdict(compute), indent=2) + "\n").encode())


def _measured(
    supported: torch.dtype, trial: Trial, most: int, say: Callable[[str], None]
) -> torch.dtype:
    """The faster dtype of those that the CPU has instructions for."""
    if supported == torch.float32:
        return supported

    def seconds(dtype: torch.dtype, images: int) -> float:
        began = CLOCK()
        trial(dtype, images)
        return CLOCK() - began

    both = (torch.float32, torch.bfloat16)
    with torch.random.fork_rng(devices=[]):
        images = 1
        while max([seconds(dtype, images) for dtype in both]) < LONG_ENOUGH and images < most:
            images = min(2 * images, most)
        rounds = [[seconds(dtype, images) for dtype in both] for _ in range(3)]
    gain = statistics.median(fp32 / bf16 for fp32, bf16 in rounds)
    dtype = torch.bfloat16 if gain > GAIN else torch.float32
    name = "bf16" if gain > GAIN else "fp32"
    say(f"precision: {name}; a step in bf16 is {gain:.2f} times as fast as in fp32 here")
    return dtype
