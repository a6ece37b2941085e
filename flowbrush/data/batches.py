"""Batches out of a source in a global order, through Grain.

Place p of the order is a pure function of (seed, p): which example, which of its captions, whether
it is flipped. A run that goes on from p pictures seen therefore starts at place p, and there is no
loader state to save; the processes of a run take every world-th place.
"""

import logging
from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from flowbrush.data.source import Example, Source, UnreadablePicture
from flowbrush.errors import UserError
from flowbrush.randomness import derive, uniform

logging.getLogger("absl").setLevel(logging.ERROR)  # Grain's word about a profiler that is not there
import grain  # noqa: E402


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """How pictures come together."""

    size: int = 64  # pictures of one optimizer step, over all processes
    flip: bool = False  # mirror half of the pictures, left to right
    workers: int = 0  # processes that read and decode; 0 = threads of this one

    def __post_init__(self) -> None:
        if self.size < 1 or self.workers < 0:
            raise UserError(
                f"batch: size {self.size} must be 1 or more, workers {self.workers} 0 or more"
            )


@dataclass(frozen=True)
class Batch:
    """places: of each picture in the global order. broken: those skipped on the way to these."""

    pictures: UInt8[Tensor, "b 3 H W"]
    captions: list[str]
    places: list[int]
    broken: list[UnreadablePicture]


@dataclass(frozen=True)
class _Placed:
    """One example at its place, from a worker: without tensors, which need its file handles."""

    picture: UInt8[np.ndarray, "H W 3"]
    caption: str
    place: int
    broken: list[UnreadablePicture]


def _together(examples: list[_Placed]) -> Batch:
    pictures = torch.from_numpy(np.stack([example.picture for example in examples]))
    return Batch(
        pictures.permute(0, 3, 1, 2).contiguous(),
        [example.caption for example in examples],
        [example.place for example in examples],
        [error for example in examples for error in example.broken],
    )


def batches(
    source: Source, config: BatchConfig, seed: int, start: int, rank: int = 0, world: int = 1
) -> Generator[Batch, None, None]:
    """This process's part of every batch from place `start` on, without end. Close it when done.

    Raises UserError where the processes do not divide the batch.
    """
    if config.size % world:
        raise UserError(f"batch.size: {world} processes do not divide {config.size}")
    place = _Place(source, config.flip, seed)
    order = grain.MapDataset.range(len(source)).seed(seed % 2**32).shuffle().repeat()
    mine = order.map_with_index(place)[start + rank :: world]
    batched = mine.batch(config.size // world, drop_remainder=True, batch_fn=list)
    ahead = grain.ReadOptions(num_threads=4, prefetch_buffer_size=8)
    loaded = batched.to_iter_dataset(ahead)
    if config.workers:
        loaded = loaded.mp_prefetch(grain.MultiprocessingOptions(num_workers=config.workers))
    iterator = iter(loaded)
    try:
        for examples in iterator:
            yield _together(examples)
    finally:
        iterator.close()


@dataclass(frozen=True)
class _Place:
    """Called with a place and the example due there. A broken picture's place goes to another."""

    source: Source
    flip: bool
    seed: int

    def __call__(self, place: int, i: int) -> _Placed:
        broken: list[UnreadablePicture] = []
        for attempt in range(100):
            try:
                example = self.source[int(i)]
            except UnreadablePicture as error:
                broken.append(error)
                i = derive(self.seed, f"instead {attempt}", place) % len(self.source)
            else:
                picture = example.picture
                if self.flip and float(uniform(self.seed, "flip", [place])) < 0.5:
                    picture = picture[:, ::-1]
                return _Placed(picture, self._caption(example, place), place, broken)
        raise UserError(f"{broken[0]} (and {len(broken) - 1} more in a row): no readable pictures")

    def _caption(self, example: Example, place: int) -> str:
        captions = list(example.captions.values())
        return captions[int(float(uniform(self.seed, "caption", [place])) * len(captions))]
