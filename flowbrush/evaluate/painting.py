"""Pictures painted to be measured: in a folder, in parts, by one process or several.

Picture i has the i-th caption and the seed `seed` + i, so that it is the same whoever paints it, in
whatever batch. A part is written aside and renamed: work that was stopped goes on where it was.

    RUN/evaluations/000064000-ema_0.998-3f2a1c/{job.json, part-00000.safetensors, ...}
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from flowbrush.config_io import to_json
from flowbrush.flow.sampling import SamplingConfig
from flowbrush.processes import Processes
from flowbrush.text_to_image import TextToImage
from flowbrush.whole_files import written_whole

FOLDER, JOB_FILE = "evaluations", "job.json"
PART = 64  # pictures of a file


@dataclass(frozen=True)
class Job:
    """What is painted: a caption a picture, how, with which weights, after how many pictures."""

    captions: tuple[str, ...]
    sampling: SamplingConfig
    weights: str
    seen: int
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        return {
            "weights": self.weights,
            "seen": self.seen,
            "seed": self.seed,
            "sampling": to_json(self.sampling),
            "captions": list(self.captions),
        }

    def folder(self, run: Path) -> Path:
        """One of its own: its name tells every choice from every other."""
        text = json.dumps(self.to_json(), sort_keys=True, ensure_ascii=False)
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        return run / FOLDER / f"{self.seen:012d}-{self.weights}-{digest}"


@dataclass(frozen=True)
class Painted:
    """A job that is done. Pictures come part by part: memory does not grow with their number."""

    job: Job
    folder: Path

    def __len__(self) -> int:
        return len(self.job.captions)

    def __iter__(self) -> Iterator[UInt8[Tensor, "b 3 H W"]]:
        for number in range(_parts(self.job)):
            yield load_file(_path(self.folder, number))["pictures"]


def paint(
    painter: TextToImage,
    job: Job,
    run: Path,
    processes: Processes,
    batch: int,
    done: Callable[[int], object],
) -> Painted:
    """Paint what is missing of a job, this process its share of it, and wait for the others.

    batch: pictures that are painted together. done: told of the pictures as they come.
    """
    folder = job.folder(run)
    folder.mkdir(parents=True, exist_ok=True)
    if processes.is_main:
        text = json.dumps(job.to_json(), indent=2, ensure_ascii=False)
        (folder / JOB_FILE).write_text(text, "utf-8")
    for number in range(processes.rank, _parts(job), processes.world):
        places = range(number * PART, min((number + 1) * PART, len(job.captions)))
        if not _is_whole(_path(folder, number)):
            captions = [job.captions[i] for i in places]
            seeds = [job.seed + i for i in places]
            _write(painter.generate(captions, job.sampling, seeds, batch), folder, number)
        done(len(places))
    processes.wait()
    return Painted(job, folder)


def _parts(job: Job) -> int:
    return -(-len(job.captions) // PART)


def _path(folder: Path, number: int) -> Path:
    return folder / f"part-{number:05d}.safetensors"


def _write(pictures: UInt8[Tensor, "b 3 H W"], folder: Path, number: int) -> None:
    with written_whole(_path(folder, number)) as aside:
        save_file({"pictures": pictures.contiguous()}, aside)


def _is_whole(path: Path) -> bool:
    """Whether it can be read: a file cut short by a full disk is painted again."""
    try:
        return "pictures" in load_file(path)
    except (OSError, SafetensorError):
        return False
