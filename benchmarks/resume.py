"""Twenty times: SIGKILL a training run, go on, and compare every bit with a run left alone.

    .venv/bin/python benchmarks/resume.py [trials]

Every other kill waits for a moment at which a checkpoint is being written.
"""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from flowbrush.backbones import JiTConfig
from flowbrush.experiment import ExperimentConfig
from flowbrush.recipes import recipe


def often_saved() -> ExperimentConfig:
    """A small `shapes` with two averages that saves every five steps: 150 steps in all."""
    base = recipe("shapes")
    return replace(
        base,
        backbone=JiTConfig(
            depth=3, width=96, heads=3, patch=8, bottleneck=32, context_start=1, tokens_per_text=4
        ),
        batch=replace(base.batch, size=16, flip=True),
        train=replace(base.train, pictures=2_400, ema=(0.99, 0.9), accumulate=2),
        watch=replace(base.watch, checkpoint=80, preview=1_200, log=80),
    )


def start(run: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "flowbrush", "train", f"{__file__}:often_saved"]
    return subprocess.Popen(
        [*command, "--run", str(run)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def digest(run: Path) -> str:
    """Of the last checkpoint's weights, averages, optimizer and progress."""
    manifest = max((run / "checkpoints").glob("*/manifest.json"), key=lambda p: int(p.parent.name))
    files = json.loads(manifest.read_text())
    return hashlib.sha256(json.dumps([manifest.parent.name, files]).encode()).hexdigest()


def writing(run: Path) -> bool:
    return any((run / "checkpoints").glob(".aside-*"))


def kill_once(run: Path, while_writing: bool) -> tuple[int, bool]:
    """Kill a fresh run at a random moment.

    Returns the pictures of its last checkpoint, and whether one was half-written.
    """
    child = start(run)
    while not (run / "checkpoints").exists():
        time.sleep(0.01)
    time.sleep(random.uniform(0, 4))
    while while_writing and child.poll() is None and not writing(run):
        time.sleep(0.0005)
    child.send_signal(signal.SIGKILL)
    killed = child.wait() == -signal.SIGKILL
    assert killed, "the run was over before the kill: lengthen it"
    done = [int(p.name) for p in (run / "checkpoints").iterdir() if p.name.isdigit()]
    return max(done, default=0), writing(run)


def main() -> None:
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    random.seed(time.time_ns() ^ os.getpid())
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"
        assert start(whole).wait() == 0
        expected, equal, half = digest(whole), 0, 0
        for trial in range(trials):
            run = Path(folder) / f"trial{trial}"
            pictures, half_written = kill_once(run, while_writing=trial % 2 == 1)
            assert start(run).wait() == 0
            same = digest(run) == expected
            equal, half = equal + same, half + half_written
            print(
                f"trial {trial + 1:2}: killed after checkpoint {pictures:5}"
                f"{', while one was being written' if half_written else ''}: "
                f"{'equal' if same else 'DIFFERENT'}",
                flush=True,
            )
    print(
        f"{equal} of {trials} equal to the bit; {half} were killed while a checkpoint was being "
        "written"
    )
    sys.exit(equal != trials)


if __name__ == "__main__":
    main()
