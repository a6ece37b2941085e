"""Encode a source once, shard by shard, from wherever an earlier try stopped."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from flowbrush.data import MixtureConfig, PreparedConfig
from flowbrush.data.prepared import Manifest, conditions_metadata
from flowbrush.errors import UserError
from flowbrush.experiment import ExperimentConfig, with_classes
from flowbrush.prepare.manifest import completed, opened, plan
from flowbrush.prepare.ray_engine import encode_with_ray
from flowbrush.prepare.shards import Work, is_finished, write_shard
from flowbrush.processes import own_device, rank_and_world


@dataclass(frozen=True)
class PrepareConfig:
    """Where shards go, and who makes them."""

    to: Path = Path("prepared")
    """folder of the shards; a second try goes on in it where the first one stopped"""
    shard: int = 1024
    """examples of the source that one shard is made of"""
    batch: int = 32
    """pictures, and captions, that are encoded together"""
    engine: Literal["local", "ray"] = "local"
    """local: this process, or all of torchrun's; ray: `workers` actors of a Ray cluster"""
    workers: int = 2
    """actors of Ray"""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps"""

    def __post_init__(self) -> None:
        if min(self.shard, self.batch, self.workers) < 1:
            raise UserError("prepare: shard, batch and workers must be 1 or more")


@dataclass(frozen=True)
class Done:
    """What one call of `prepare` did. manifest: complete, or the plan while peers are at work."""

    manifest: Manifest
    pictures: int  # encoded by this call
    seconds: float
    size: int  # bytes in the folder


def prepare(config: ExperimentConfig, options: PrepareConfig) -> Done:
    """Encode what is not encoded yet: all of it, or under torchrun this process's share.

    Raises UserError where the folder was begun otherwise, or for what the user can mend.
    """
    if isinstance(config.source, PreparedConfig):
        raise UserError(f"source: {config.source.path} is prepared already")
    if isinstance(config.source, MixtureConfig):
        raise UserError(
            "source: a mixture's shares would be lost; prepare its parts, and mix what they give"
        )
    if config.stages or config.buckets.step:
        raise UserError(
            "prepare: pictures are encoded in one shape; leave out stages and buckets.step"
        )
    folder = options.to
    source = config.source.build(config.size)
    config = with_classes(config, source)
    manifest = opened(folder, plan(config, source, options.shard), source)
    rank, world = rank_and_world()
    mine = [n for n in range(rank, manifest.shards, world) if not is_finished(folder, n)]
    known = conditions_metadata(folder).get("prompts") == list(config.watch.prompts)
    work = Work(config, manifest, folder, options.batch)
    start, pictures = time.perf_counter(), 0
    if mine and options.engine == "ray":
        pictures = encode_with_ray(work, mine, options.workers, options.device)
    elif mine or not known:
        encoding = work.encoding(own_device(options.device))
        total = sum(len(work.indices(number)) for number in mine)
        with tqdm(total=total, unit="pictures", disable=not mine) as bar:
            for number in mine:
                pictures += write_shard(work, number, encoding, bar.update).samples
    seconds = time.perf_counter() - start
    manifest = completed(folder, manifest) or manifest
    size = sum(path.stat().st_size for path in folder.iterdir())
    return Done(manifest, pictures, seconds, size)
