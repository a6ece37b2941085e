"""`flowbrush train`."""

from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import tyro

from flowbrush.cli.options import TINY_MODELS, Tiny, first_word, parse
from flowbrush.errors import UserError


@dataclass(frozen=True)
class TrainOptions:
    """Where to train. Every other option is a choice of the recipe."""

    run: Path | None = None
    """folder of the run; runs/NAME if left out. Another one than RUN begins with RUN's weights"""
    tiny: Tiny = False
    prepared: Path | None = None
    """folder that `flowbrush prepare` has filled, to train from instead of the recipe's source"""
    changed_data: bool = False
    """resume though files of the data set have changed, and with them which images are held out"""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps"""
    peer_timeout: float = 120.0
    """minutes for which processes wait for one that hangs; longer than the longest preview or
    evaluation, for which they wait as well"""

    def __post_init__(self) -> None:
        if not 0 < self.peer_timeout <= 10_000:
            raise UserError(f"--peer-timeout {self.peer_timeout:g}: give 0.1 to 10000 minutes")


def train(arguments: list[str]) -> int:
    target, rest = first_word(
        arguments, "train RECIPE|RUN [options]", "a recipe's name or a run's folder"
    )
    from flowbrush.autoencoding import AutoencoderExperiment, Experiment, load_experiment
    from flowbrush.experiment import ExperimentConfig, is_run
    from flowbrush.recipes import RECIPES, recipe
    from flowbrush.recipes.tiny import tiny

    if not target:
        print(f"usage: flowbrush train RECIPE|RUN [options]\n\nrecipes: {', '.join(RECIPES)}\n")
        print("flowbrush train RECIPE --help lists its options")
        return 0
    going_on = is_run(Path(target))
    begun = load_experiment(Path(target)) if going_on else recipe(target)
    if "--tiny" in rest and isinstance(begun, ExperimentConfig) and not going_on:
        begun = tiny(begun, TINY_MODELS)

    @dataclass(frozen=True)
    class Train:
        options: Annotated[TrainOptions, tyro.conf.arg(name="")]
        config: Annotated[Experiment, tyro.conf.arg(name="")]

    chosen = parse(Train, Train(TrainOptions(), begun), rest, f"flowbrush train {target}")
    run = chosen.options.run or (Path(target) if going_on else Path("runs") / begun.name)

    from flowbrush.data import PreparedConfig
    from flowbrush.processes import joined_processes
    from flowbrush.train.autoencoder import train_autoencoder
    from flowbrush.train.begin import WATCHING, begun_elsewhere, changeable
    from flowbrush.train.loop import train as train_run

    config, prepared = chosen.config, chosen.options.prepared
    if prepared and isinstance(config, AutoencoderExperiment):
        raise UserError("--prepared: an autoencoder learns from pictures; leave it out")
    changed = chosen.options.changed_data
    patience = timedelta(minutes=chosen.options.peer_timeout)
    with joined_processes(chosen.options.device, patience) as processes:
        if prepared and isinstance(config, ExperimentConfig):
            config = replace(config, source=PreparedConfig(path=prepared))
        if going_on and run.resolve() != Path(target).resolve():
            says_start = any(word.split("=")[0] == "--train.start" for word in rest)
            config = begun_elsewhere(config, Path(target), run, says_start, processes)
        may_change = changeable(run) if going_on else WATCHING
        if isinstance(config, AutoencoderExperiment):
            return train_autoencoder(config, run, processes, may_change, changed)
        return train_run(config, run, processes, may_change, changed)
