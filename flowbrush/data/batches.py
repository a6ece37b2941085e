"""Batches out of a source in a global order, through Grain.

Place p of the order is a pure function of (seed, p): which example, which of its captions, whether
it is flipped. A run that goes on from p pictures seen therefore starts at place p, and there is no
loader state to save; the processes of a run take every world-th place.
"""

import logging
import sys
from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float16, UInt8
from torch import Tensor

from flowbrush.condition import Condition
from flowbrush.data.buckets import Buckets
from flowbrush.data.order import Order, order_of
from flowbrush.data.source import (
    Example,
    Features,
    Picture,
    Source,
    UnreadablePicture,
    read_example,
)
from flowbrush.errors import UserError
from flowbrush.processes import end_with_parent
from flowbrush.randomness import uniform

logging.getLogger("absl").setLevel(logging.ERROR)  # Grain's word about a profiler that is not there
import grain  # noqa: E402


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """How pictures come together."""

    size: int = 64  # pictures of one optimizer step, over all processes
    flip: bool = False  # mirror half of the pictures, left to right
    # Kinds of captions with their shares, such as ("en", 0.7), ("ja", 0.3); empty = all alike.
    captions: tuple[tuple[str, float], ...] = ()
    window: int = 0  # shards read and shuffled at a time, of a source in shards; 0 = all of it
    workers: int = 0  # processes that read and decode; 0 = threads of this one

    def __post_init__(self) -> None:
        if self.size < 1 or self.workers < 0 or self.window < 0:
            raise UserError(
                f"batch: size {self.size} must be 1 or more, workers {self.workers} and window "
                f"{self.window} 0 or more"
            )
        if any(share <= 0 for _, share in self.captions):
            raise UserError("batch.captions: shares must be above 0; leave out what is not wanted")


@dataclass(frozen=True)
class Batch:
    """places: of each picture in the global order. broken: those skipped on the way to these.

    pictures: their channels lie last in memory, as they were read.
    features: of each caption a batch of one, where they were encoded beforehand.
    """

    pictures: UInt8[Tensor, "b 3 H W"] | Float16[Tensor, "b s h w"]
    captions: list[str]
    places: list[int]
    broken: list[UnreadablePicture]
    features: list[Condition] | None = None

    def pictures_on(
        self, device: torch.device
    ) -> UInt8[Tensor, "b 3 H W"] | Float16[Tensor, "b s h w"]:
        """The pictures there, in the order of their dimensions: a GPU sorts them for nothing."""
        return self.pictures.to(device).contiguous()


@dataclass(frozen=True)
class _Placed:
    """One example at its place, from a worker: without tensors, which need its file handles."""

    picture: Picture
    caption: str
    place: int
    broken: list[UnreadablePicture]
    features: Features | None


def _together(examples: list[_Placed]) -> Batch:
    features = [example.features.condition() for example in examples if example.features]
    return Batch(
        torch.from_numpy(np.stack([example.picture for example in examples])).permute(0, 3, 1, 2),
        [example.caption for example in examples],
        [example.place for example in examples],
        [error for example in examples for error in example.broken],
        features or None,
    )


def batches(
    source: Source, config: BatchConfig, seed: int, start: int, rank: int = 0, world: int = 1
) -> Generator[Batch, None, None]:
    """This process's part of every batch from place `start` on, without end. Close it when done.

    Raises UserError where the processes do not divide the batch, or there is no example.
    """
    if config.size % world:
        raise UserError(f"batch.size: {world} processes do not divide {config.size}")
    if isinstance(source, Buckets) and (source.batch != config.size or start % config.size):
        raise ValueError(f"buckets of {source.batch}: no batch of {config.size} begins at {start}")
    place = _Place(source, order_of(source, config.window, seed), config, seed)
    mine = grain.MapDataset.range(sys.maxsize).map(place)[start + rank :: world]
    batched = mine.batch(config.size // world, drop_remainder=True, batch_fn=list)
    ahead = grain.ReadOptions(num_threads=4, prefetch_buffer_size=8)
    loaded = batched.to_iter_dataset(ahead)
    if config.workers:
        several = grain.MultiprocessingOptions(num_workers=config.workers)
        loaded = loaded.mp_prefetch(several, lambda number, workers: end_with_parent())
    iterator = iter(loaded)
    try:
        for examples in iterator:
            batch = _together(examples)
            if isinstance(source, Buckets):
                source.check((batch.pictures.shape[2], batch.pictures.shape[3]))
            yield batch
    finally:
        iterator.close()


@dataclass(frozen=True)
class _Place:
    """Called with a place. That of a broken picture goes to another one."""

    source: Source
    order: Order
    config: BatchConfig
    seed: int

    def __call__(self, place: int) -> _Placed:
        i, broken = self.order[place], list[UnreadablePicture]()
        wanted = [kind for kind, _ in self.config.captions]
        for attempt in range(100):
            try:
                example = read_example(self.source, i, wanted)
            except UnreadablePicture as error:
                broken.append(error)
                i = self.order.instead(place, attempt)
            else:
                flipped = self.config.flip and float(uniform(self.seed, "flip", [place])) < 0.5
                picture = _mirrored(example) if flipped else example.picture
                kind = self._kind(example, place)
                features = example.features[kind].copied() if example.features else None
                # Copied here, so that what is a view of a file is read by this thread.
                picture = np.ascontiguousarray(picture)
                return _Placed(picture, example.captions[kind], place, broken, features)
        option = "; look at batch.captions" if wanted else ""
        raise UserError(
            f"{broken[0]} (and {len(broken) - 1} more in a row): no readable pictures{option}"
        )

    def _kind(self, example: Example, place: int) -> str:
        kinds, coin = list(example.captions), float(uniform(self.seed, "caption", [place]))
        if not self.config.captions:
            return kinds[int(coin * len(kinds))]
        shares = [(kind, share) for kind, share in self.config.captions if kind in kinds]
        coin *= sum(share for _, share in shares)
        for kind, share in shares:
            coin -= share
            if coin < 0:
                return kind
        return shares[-1][0]


def _mirrored(example: Example) -> Picture:
    if example.mirrored is not None:
        return example.mirrored
    if example.picture.dtype != np.uint8:
        raise UserError("batch.flip: these latents were stored without the mirrored pictures'")
    return example.picture[:, ::-1]
