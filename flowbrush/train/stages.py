"""The stages of a run: pictures of one size after another, with the same weights.

Which stage goes on is a function of the pictures seen, and so are its batches: a run goes on from
anywhere, and the boundary between two stages is a step like any other.
"""

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass

from flowbrush.data.batches import Batch, batches
from flowbrush.data.buckets import Buckets, bucketed
from flowbrush.data.source import Source
from flowbrush.data.split import split
from flowbrush.experiment import ExperimentConfig
from flowbrush.processes import Processes


@dataclass(frozen=True)
class Stage:
    """config: of this stage alone. source, held_out: its pictures, as squares.

    batched: what its batches are taken from, the source or its buckets.
    """

    config: ExperimentConfig
    source: Source
    held_out: Source | None
    batched: Source

    @property
    def summary(self) -> str:
        inside = f", {self.batched.summary}" if isinstance(self.batched, Buckets) else ""
        return f"{self.config.size} pixels{inside}"


def build_stages(config: ExperimentConfig, first: Source) -> list[Stage]:
    """first: the whole source of the first stage. Raises UserError as sources and buckets do."""
    stages = list[Stage]()
    for one in config.each_stage:
        whole = one.source.build(one.size) if stages else first
        source, held_out = split(whole, one.held_out) if one.held_out else (whole, None)
        in_buckets = one.buckets.step > 0
        batched = bucketed(source, one.shapes, one.batch.size) if in_buckets else source
        stages.append(Stage(one, source, held_out, batched))
    return stages


def staged_batches(
    config: ExperimentConfig,
    stages: list[Stage],
    seen: int,
    processes: Processes,
    say: Callable[[str], None],
) -> Generator[Batch, None, None]:
    """This process's part of every batch after so many pictures, without end. Close it when done.

    say: told of each stage as it begins or goes on. Raises UserError as `batches` does.
    """
    seed, rank, world = config.train.seed, processes.rank, processes.world
    while True:
        number = config.stage(seen)
        if config.stages or config.buckets.step:
            which = f"stage {number + 1} of {len(stages)}, " if config.stages else ""
            say(f"{seen:,}: {which}{stages[number].summary}")
        source = stages[number].batched
        with closing(batches(source, config.batch, seed, seen, rank, world)) as loader:
            for batch in loader:
                yield batch
                seen += config.batch.size
                if config.stage(seen) > number:
                    break
