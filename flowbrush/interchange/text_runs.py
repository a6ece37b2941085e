"""What the imports of text-to-image networks share."""

from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from flowbrush import config_io
from flowbrush.backbones import FluxConfig, MMDiTConfig, PixArtConfig
from flowbrush.data import FolderConfig
from flowbrush.data.batches import BatchConfig
from flowbrush.experiment import ExperimentConfig, TrainConfig
from flowbrush.interchange.published import Imported, Published
from flowbrush.interchange.rules import Rule, Table, check_shapes, to_ours
from flowbrush.interchange.settings import origins_of
from flowbrush.shapes import Shapes
from flowbrush.spaces import LatentConfig
from flowbrush.text import CLIPConfig, T5Config

OWN_FILE = "flowbrush.json"  # in a folder that a run of ours left as: its config

# As train_dreambooth_sd3.py and train_dreambooth_flux.py train by default. They keep no average and
# drop no captions.
SCRIPTS = "diffusers' pipeline and script"
SCRIPTS_BATCH = BatchConfig(size=4)
SCRIPTS_TRAIN = TrainConfig(
    lr=1e-4,
    betas=(0.9, 0.999),
    weight_decay=1e-4,
    warmup=0,
    caption_dropout=0.0,
    ema=(0.9999,),
    ema_warmup=False,
)


def text_run(
    config: ExperimentConfig,
    shapes: Shapes,
    rules: Iterable[Rule | Table],
    published: Published,
    peer: str,
    own: Iterable[str],
) -> Imported:
    """The published weights under our names, and the experiment with a source to train on.

    peer: where its settings are from, but for those of its scheduler and Flowbrush's `own`.
    Raises UserError where a weight is missing, unknown or of another shape.
    """
    backbone, what = config.backbone, str(published.path)
    assert isinstance(backbone, FluxConfig | MMDiTConfig | PixArtConfig)
    blocks = 0 if isinstance(backbone, FluxConfig) else backbone.depth  # its rules are numbered
    rules = list(rules)
    weights = average = to_ours(rules, blocks, published.model, what)
    if published.networks.averages:
        average = to_ours(rules, blocks, published.averages(1)[0], what)
    with torch.device("meta"):
        expected = backbone.build(shapes).state_dict()
    for part in (weights, average):
        check_shapes(what, part, expected)
    config = replace(config, source=FolderConfig())
    read = {}
    if published.part("scheduler", "scheduler_config.json"):
        shifts = ("sampling.shift", "sampling.last_gap", "flow.times.shift")
        read = dict.fromkeys(shifts, "the folder's scheduler")
    if published.pipeline is not None and (published.pipeline / OWN_FILE).is_file():
        config = _restored(config, published.pipeline / OWN_FILE)
        peer, read, own = f"the run that left as this folder, in its {OWN_FILE}", {}, ()
    states = {"model": weights, **dict.fromkeys(_averages(config), average)}
    return Imported(config, states, origins_of(config, peer, read, own), [])


def _restored(found: ExperimentConfig, own: Path) -> ExperimentConfig:
    """The config of the run that the folder came from, with the folder's models in it."""
    config = config_io.load(ExperimentConfig, own)
    assert isinstance(config.space, LatentConfig)
    assert isinstance(found.space, LatentConfig)
    space = replace(config.space, model=found.space.model)
    warmup = config.train.ema_warmup and None  # what it begins with is an average
    train = replace(config.train, start="", ema_warmup=warmup)
    text = _with_places(config.text, found.text)
    return replace(config, space=space, text=text, train=train)


def _with_places(text: Any, found: Any) -> Any:
    """A text config with the places of models that another of its kind has."""
    if isinstance(text, CLIPConfig | T5Config):
        return replace(text, model=found.model, tokenizer=found.tokenizer)
    parts = {f.name: getattr(text, f.name) for f in fields(text)}
    return replace(
        text,
        **{
            name: _with_places(part, getattr(found, name))
            for name, part in parts.items()
            if isinstance(part, CLIPConfig | T5Config)
        },
    )


def _averages(config: ExperimentConfig) -> list[str]:
    return [f"ema_{decay}" for decay in config.train.ema]
