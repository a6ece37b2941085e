"""`flowbrush doctor`: what stands in the way of training."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from flowbrush.cli.options import Tiny, experiment, parse
from flowbrush.errors import UserError

if TYPE_CHECKING:
    from flowbrush.doctor.finding import Finding
    from flowbrush.experiment import ExperimentConfig


@dataclass(frozen=True)
class DoctorOptions:
    """How much is looked at."""

    sample: int = 1_000
    """examples that are read, from all over the source; 0 = all"""
    seed: int = 0
    """chooses them"""
    run: Path = Path("runs")
    """where the run will be written"""

    def __post_init__(self) -> None:
        if self.sample < 0:
            raise UserError(f"--sample {self.sample}: give 0 for all, or more")


def doctor(arguments: list[str]) -> int:
    """Exit status 2 where something is wrong."""
    named = bool(arguments) and not arguments[0].startswith("-")
    target, rest = (arguments[0], arguments[1:]) if named else ("", arguments)
    from flowbrush.experiment import ExperimentConfig

    begun = experiment(target, "emoji", "--tiny" in rest, "doctor")

    @dataclass(frozen=True)
    class Doctor:
        options: Annotated[DoctorOptions, tyro.conf.arg(name="")]
        config: Annotated[ExperimentConfig, tyro.conf.arg(name="")]
        tiny: Tiny = False

    program = f"flowbrush doctor {target or '[RECIPE|RUN]'}"
    chosen = parse(Doctor, Doctor(DoctorOptions(), begun), rest, program)
    states = set()
    for finding in _findings(chosen.config if named else None, chosen.options):
        print(finding.line(), flush=True)
        states.add(finding.state)
    return 2 if "wrong" in states else 0


def _findings(config: "ExperimentConfig | None", options: DoctorOptions) -> "Iterator[Finding]":
    from tqdm import tqdm

    from flowbrush.doctor import dataset, machine
    from flowbrush.doctor.finding import Finding
    from flowbrush.doctor.sample import Sample, chosen
    from flowbrush.plan.surroundings import surroundings

    yield from machine.software()
    yield from machine.devices()
    if config is None:
        return
    source = None
    try:
        source = config.source.build(config.size)
    except UserError as error:
        yield Finding("wrong", str(error))
    try:
        shapes = surroundings(config, source).shapes
        yield machine.disk(config, shapes, options.run)
    except UserError as error:
        yield Finding("wrong", str(error))
    if source is None:
        return
    indices = chosen(len(source), options.sample, options.seed)
    sample = Sample(kinds=tuple(kind for kind, _ in config.batch.captions))
    for i in tqdm(indices, delay=2, unit="pic"):
        sample.add(source, i)
    yield from dataset.findings(config, source, sample)
