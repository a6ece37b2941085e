"""A notebook's beginning, and training from within it."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from flowbrush.autoencoding import AutoencoderExperiment, Experiment
from flowbrush.errors import AnotherRun, UserError
from flowbrush.experiment import ExperimentConfig
from flowbrush.processes import joined_processes
from flowbrush.train.autoencoder import train_autoencoder
from flowbrush.train.loop import train

QUICK_STEPS = 3


def begin(quick: bool = False) -> None:
    """Say what the notebook will run on; from here on a mistake is told in one line."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if torch.cuda.is_available():
        print(f"Running on {torch.cuda.get_device_name()}.")
    else:
        print(f"No GPU here, and none is needed: running on {cores} CPU cores.")
    if quick:
        print("quick = True: everything takes a few steps only, so the pictures stay noise.")
    shell = _shell()
    if shell is not None:
        shell.set_custom_exc((UserError,), _told)


def trained(config: Experiment, quick: bool = False) -> Path:
    """Train what `config` describes in runs/NAME, and return that folder.

    A run that is there already is gone on with; one that is finished costs nothing. To train it
    otherwise, give it another name: `replace(config, name="wider", ...)`.
    quick: a few steps only, in runs/quick/NAME.
    Raises UserError where runs/NAME was trained with other choices, KeyboardInterrupt where
    training was stopped; it is saved then.
    """
    run = Path("runs", "quick", config.name) if quick else Path("runs", config.name)
    config = shortened(config) if quick else config
    try:
        with joined_processes("auto") as processes:
            if isinstance(config, AutoencoderExperiment):
                status = train_autoencoder(config, run, processes, ("watch.",))
            else:
                status = train(config, run, processes, ("watch.",))
    except AnotherRun as error:
        raise UserError(f'{error.found}; name this one: replace(config, name="...")') from None
    if status:
        raise KeyboardInterrupt(f"{run} is saved; run the cell again and it goes on")
    return run


def shortened(config: Experiment) -> Experiment:
    """The same for a few steps, painted in two."""
    b = config.batch.size
    watch = replace(config.watch, log=b, checkpoint=100 * b, preview=100 * b)
    settings = replace(config.train, pictures=QUICK_STEPS * b, warmup=b)
    short = replace(config, train=settings, watch=watch)
    if isinstance(short, ExperimentConfig):
        short = replace(short, sampling=replace(short.sampling, steps=2))
    return short


def _shell() -> Any:
    """IPython's, or None outside of it."""
    try:
        from IPython import get_ipython
    except ImportError:
        return None
    return get_ipython()


def _told(shell: Any, kind: type, error: BaseException, traceback: Any, **_: Any) -> None:
    print(error)
