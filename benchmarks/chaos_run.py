"""For chaos.py: the run that it disturbs, seen from outside, and what becomes of it.

Run by torchrun, this file trains it and notes which examples each step takes.
"""

import json
import os
import re
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

import psutil
import torch
from PIL import Image

from flowbrush import checkpoint
from flowbrush.backbones import JiTConfig
from flowbrush.data import ShapesWorldConfig, TarShardsConfig
from flowbrush.data.batches import BatchConfig
from flowbrush.experiment import ExperimentConfig, TrainConfig, WatchConfig
from flowbrush.flow.denoiser import FlowConfig
from flowbrush.processes import leave

SHARDS, EACH, SIZE, BATCH, EPOCHS, WINDOW = 12, 100, 16, 16, 6, 2
ROOM = 8  # copies of remote shards that are kept at a time
EXAMPLES, SAVED = SHARDS * EACH, 10 * BATCH  # pictures from one checkpoint to the next
STAGE, PATH = "CHAOS_STAGE", "CHAOS_PATH"  # in the environment: where all happens, the shards


def stage() -> Path:
    return Path(os.environ[STAGE])


def experiment() -> ExperimentConfig:
    """A JiT of 10,000 weights, an average and a power average; a line of the journal a step."""
    path, room = os.environ[PATH], ROOM * (stage() / "shards/00000.tar").stat().st_size
    source = TarShardsConfig(path=path, cache=stage() / "cache", cache_bytes=room)
    backbone = JiTConfig(
        depth=2, width=16, heads=2, patch=8, bottleneck=8, context_start=1, tokens_per_text=2
    )
    return ExperimentConfig(
        name="chaos",
        size=SIZE,
        source=source,
        batch=BatchConfig(size=BATCH, flip=True, window=WINDOW),
        backbone=backbone,
        flow=FlowConfig(prediction="data"),
        train=TrainConfig(
            pictures=EPOCHS * EXAMPLES, lr=1e-3, ema=(0.9,), power_ema=(0.1,), precision="fp32"
        ),
        watch=WatchConfig(log=BATCH, checkpoint=SAVED, preview=10**9, average=EXAMPLES, keep=3),
    )


def make_shards() -> None:
    """Of the drawn world. The last word of a caption is the example's number."""
    scenes = ShapesWorldConfig(scenes=EXAMPLES).build(SIZE)
    (stage() / "shards").mkdir()
    for shard in range(SHARDS):
        with tarfile.open(stage() / f"shards/{shard:05}.tar", "w") as tar:
            for i in range(shard * EACH, (shard + 1) * EACH):
                picture = BytesIO()
                Image.fromarray(scenes[i].picture).save(picture, "PNG")
                caption = f"{scenes[i].captions['en']} {i}".encode()
                for ending, data in (("png", picture.getvalue()), ("txt", caption)):
                    member = tarfile.TarInfo(f"{i:06}.{ending}")
                    member.size = len(data)
                    tar.addfile(member, BytesIO(data))


# -- in each of the two processes


def trained(notes: Path, arguments: list[str]) -> int:
    """`flowbrush train`, which also notes, before each step, the places and examples that it takes:
    a file each start and rank, a line a step."""
    from flowbrush.cli import main
    from flowbrush.train import loop

    given = loop.staged_batches

    def noted(*how: Any) -> Iterator[Any]:
        path = notes / f"{time.time_ns()}-{os.environ['RANK']}"
        with closing(given(*how)) as loader, path.open("w") as file:
            for batch in loader:
                taken = zip(batch.places, batch.captions, strict=True)
                told = " ".join(f"{place}:{caption.split()[-1]}" for place, caption in taken)
                print(told, file=file, flush=True)
                yield batch

    loop.staged_batches = noted  # type: ignore[assignment]
    return main(["train", f"{__file__}:experiment", *arguments])


# -- a run from outside


class Run:
    """A run's folder, the process that trains in it, and what it says."""

    options: tuple[str, ...] = ()  # of `flowbrush train`, for every run
    odd: ClassVar[list[str]] = []  # what was said at ends of runs that were whole, but not status 0

    def __init__(self, name: str, path: str = "", folder: Path | None = None) -> None:
        self.name, self.path = name, path or f"{stage()}/shards"
        self.folder = folder or stage() / "runs" / name
        self.notes, self._said = stage() / "notes" / name, stage() / "said" / name
        for place in (self.notes, self._said.parent):
            place.mkdir(parents=True, exist_ok=True)
        self.starts = 0
        self._known, self._killed = set[Path](), set[int]()  # notes and processes of earlier starts

    def start(self, restarts: int = 0) -> None:
        self.forget()
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        torchrun += [f"--max-restarts={restarts}", "--"]  # or torchrun takes --run for its own
        train = [__file__, str(self.notes), "--run", str(self.folder), "--device", "cpu"]
        environment = {PATH: self.path, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
        self.starts += 1
        with self._output.open("w") as output:
            self.child = subprocess.Popen(
                [sys.executable, *torchrun, *train, *self.options],
                stdout=output,
                stderr=output,
                env={**os.environ, **environment},
            )

    @property
    def _output(self) -> Path:
        return self._said.with_name(f"{self.name}-{self.starts}")

    @property
    def said(self) -> str:
        """Since the last start."""
        return self._output.read_text("utf-8", "replace")

    def forget(self) -> None:
        """Take no notes made until now, and no processes, for those of the next start."""
        self._known = set(self.notes.iterdir())
        self._killed |= {process.pid for process in self.ranks().values()} if self.starts else set()

    def begun(self) -> list[Path]:
        """The notes of the processes that have taken a step since then; none if only one has."""
        found = [p for p in set(self.notes.iterdir()) - self._known if p.stat().st_size]
        return found if len(found) == 2 else []

    def until(self, ready: Callable[[], Any]) -> bool:
        """Wait until `ready` or the end; whether it still trains."""
        while self.child.poll() is None and not ready():
            time.sleep(0.001)
        return self.child.poll() is None

    def saved(self) -> int:
        """Pictures of the newest checkpoint, whole or not."""
        found = (self.folder / "checkpoints").glob("[0-9]*")
        return max((int(path.name) for path in found), default=0)

    def writing(self) -> bool:
        return any((self.folder / "checkpoints").glob(".aside-*"))

    def ranks(self) -> dict[int, psutil.Process]:
        found = {}
        with suppress(psutil.Error):
            for child in psutil.Process(self.child.pid).children():
                rank = child.environ().get("RANK")
                if rank is not None and child.pid not in self._killed:
                    found[int(rank)] = child
        return found

    def kill_all(self) -> None:
        ranks = self.ranks().values()
        self.child.kill()
        for process in ranks:
            with suppress(psutil.Error):
                process.kill()
        self.child.wait()
        psutil.wait_procs(ranks)

    def refused(self, what: str) -> bool:
        """Whether it ends with one line, of which `what` is a part, and no traceback of ours."""
        status = self.child.wait()
        lines = re.findall(r"(?<!/)flowbrush: .*", self.said)  # maybe behind a progress bar
        clear = len(lines) == 1 and what in lines[0] and not re.search(TRACEBACK, self.said)
        print(f"    {' / '.join(lines) or self.said[-2_000:]}", file=sys.stderr)
        return status != 0 and clear

    def finish(self) -> None:
        """Wait for the end. What follows after all was trained and saved is noted as odd."""
        if self.child.wait():
            said = re.sub(r".*\r", "", self.said)[-4_000:]
            if self.saved() < EPOCHS * EXAMPLES:
                raise SystemExit(f"{self.name}: did not go on:\n{said}")
            self.odd.append(said)


TRACEBACK = r'File "[^"]*/flowbrush/(?!cli/)'  # torchrun has one of its own


@dataclass(frozen=True)
class Outcome:
    """Of a run that is over, against the one that was left alone."""

    bits: bool
    journal: bool
    lost: int
    repeated: int


def states(run: Run) -> dict[str, Any]:
    """Of the last checkpoint, and of the last snapshot of the power average."""
    found = {}
    for part in ("checkpoints", "averages"):
        newest = checkpoint.newest(run.folder / part, print)
        for name in checkpoint.names(newest) - {"config", "provenance"}:  # of the shards' folder
            found[f"{part} {newest.name} {name}"] = checkpoint.load(newest, name)
    return found


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def journal(run: Run) -> list[Any]:
    lines = (run.folder / "journal.jsonl").read_text().splitlines()
    return [[json.loads(line)[key] for key in ("pictures", "loss", "lr")] for line in lines]


def examples(run: Run) -> Counter[int]:
    """How often the weights at the end have learned each example: a start takes back the steps from
    its first one on, which an earlier one had done beyond its last checkpoint."""
    taken: dict[tuple[str, int], list[int]] = {}
    for path in sorted(run.notes.iterdir()):
        rank, first = path.name.partition("-")[2], True
        for line in path.read_text().split("\n")[:-1]:  # the last may be cut short
            pairs = [pair.split(":") for pair in line.split()]
            place = int(pairs[0][0])
            if first:
                for key in [key for key in taken if key[0] == rank and key[1] >= place]:
                    del taken[key]
                first = False
            taken[rank, place] = [int(example) for _, example in pairs]
    return Counter(example for step in taken.values() for example in step)


def compared(run: Run, alone: Run) -> Outcome:
    ours, theirs = examples(run), examples(alone)
    lost, repeated = (theirs - ours).total(), (ours - theirs).total()
    steps = [line[0] for line in journal(alone)] == list(range(BATCH, EPOCHS * EXAMPLES + 1, BATCH))
    return Outcome(
        same(states(run), states(alone)), steps and journal(run) == journal(alone), lost, repeated
    )


def first_place(notes: Path) -> int:
    """Where the start that made these notes began: pictures seen."""
    rank = int(notes.name.partition("-")[2])
    return int(notes.read_text().partition(":")[0]) - rank


if __name__ == "__main__":
    leave(trained(Path(sys.argv[1]), sys.argv[2:]))
