"""What a run may change when it is trained further, in its own folder or in another one."""

from dataclasses import fields, replace
from pathlib import Path

from flowbrush import checkpoint
from flowbrush.autoencoding import Experiment
from flowbrush.experiment import CHECKPOINT_FOLDER, TrainConfig, is_run
from flowbrush.processes import Processes
from flowbrush.train.run_folder import check_same

WATCHING = ("watch.", "evaluate.")

# What a run that resumes may do otherwise than before: for how long, with how much memory, and what
# fixes one that went wrong.
RESUMING = (
    *WATCHING,
    "source.path",
    "source.ignore",
    "source.layout",
    "source.split",
    "train.pictures",
    "train.lr",
    "train.clip",
    "train.precision",
    "train.deterministic",
    "train.accumulate",
    "train.recompute",
    "train.sharding",
    "train.skip_above",
    "train.most_skipped",
)

# At 0 images, as an import is: everything but the network and what its weights mean. train.start
# would come too late.
BEFORE_TRAINING = (
    *WATCHING,
    "name",
    "size",
    "stages",
    "buckets.",
    "source",
    "held_out",
    "batch.",
    "backbone.dropout",
    "flow.times.",
    "flow.loss_space",
    "loss.",
    "sampling.",
    *(f"train.{field.name}" for field in fields(TrainConfig) if field.name != "start"),
)


def changeable(run: Path) -> tuple[str, ...]:
    """Dotted beginnings of the fields that a run may change when it is trained further."""
    return RESUMING if checkpoint.pictures_seen(run / CHECKPOINT_FOLDER) else BEFORE_TRAINING


def begun_elsewhere(
    config: Experiment, before: Path, run: Path, says_start: bool, processes: Processes
) -> Experiment:
    """The config with which `run` trains the run `before` further, which stays as it is.

    Of a run at 0 images, as an import is, the checkpoint is copied, and so are its averages. Else
    the averaged weights of `before` are the first ones. says_start: train.start was given, and
    decides. Raises AnotherRun where `config` is of another network than the weights to be copied.
    """
    say, folder = processes.say, before / CHECKPOINT_FOLDER
    if says_start:
        return config
    if checkpoint.pictures_seen(folder):
        if not is_run(run):
            say(
                f"{run}: begins at 0 images with the averaged weights of {before}; give "
                "--train.start '' to begin with random weights"
            )
        return replace(config, train=replace(config.train, start=str(before)))
    if is_run(run):
        return config
    if not checkpoint.exists(folder):
        say(f"{before}: it has no checkpoint; {run} begins as it did")
        return config
    check_same(before, config, BEFORE_TRAINING)
    say(f"{run}: begins with the weights and averages of {before}")
    if processes.is_main:
        checkpoint.copy(checkpoint.newest(folder, say), run / CHECKPOINT_FOLDER)
    processes.wait()
    return config
