"""How many CPU cores are free, and how a program's threads wait for each other.

Imported before torch: OpenMP reads its environment once, when torch loads it.
"""

import os
import time
from functools import cache
from pathlib import Path

LOOKS, WATCHED = 3, 0.2  # how often the cores are watched, and for how many seconds each time
_STAT = Path("/proc/stat")


def usable_cores() -> int:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def free_cores() -> int:
    """The usable cores that other processes left idle when this was first called; at least 1.

    The most of a few looks, so that a short burst of work does not count; an idle machine is known
    at the first. All cores where the system does not tell (Linux alone does).
    """
    most, cores = 0, usable_cores()
    for _ in range(LOOKS):
        most = max(most, _free_now(cores))
        if most == cores:
            break
    return most


def _free_now(cores: int) -> int:
    before = _idle_and_total()
    time.sleep(WATCHED)
    idle, total = (b - a for a, b in zip(before, _idle_and_total(), strict=True))
    return max(1, round(cores * idle / total)) if total else cores


def set_wait_policy() -> None:
    """On a busy machine threads that wait sleep, so that another process does not hold them up.

    A thread that spins holds the core on which its partner could run. On an idle machine spinning
    is faster. A policy of the user's own environment stays.
    """
    chosen = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS"} & os.environ.keys()
    if not chosen and free_cores() < usable_cores():
        os.environ["OMP_WAIT_POLICY"] = "passive"


def _idle_and_total() -> tuple[int, int]:
    """Ticks of all usable cores since the machine started; (0, 0) where they are not told."""
    try:
        lines = _STAT.read_text("ascii").splitlines()
    except OSError:
        return 0, 0
    names = {f"cpu{i}" for i in os.sched_getaffinity(0)}
    rows = [[int(n) for n in rest] for name, *rest in map(str.split, lines) if name in names]
    return sum(row[3] + row[4] for row in rows), sum(sum(row[:8]) for row in rows)  # idle, iowait
