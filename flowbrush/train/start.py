"""First weights out of another run, rather than random ones.

They are read from its checkpoint alone: no text model and no autoencoder is built.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from flowbrush import checkpoint, config_io
from flowbrush.autoencoding import Experiment, load_experiment
from flowbrush.backbones.dit import DiT, DiTConfig
from flowbrush.backbones.pixart import PixArt
from flowbrush.errors import UserError
from flowbrush.experiment import CHECKPOINT_FOLDER, ExperimentConfig
from flowbrush.finite import check_finite
from flowbrush.interchange.reparameterised import start_pixart
from flowbrush.shapes import ConditionShapes, Shapes

# What the same weights mean, and no shape of theirs shows.
MEANING = (
    "backbone.heads",
    "backbone.axes",
    "backbone.theta",
    "backbone.context_start",
    "backbone.time_scale",
    "flow.prediction",
    "flow.diffusion",
)


def start_from(run: Path, config: Experiment, network: nn.Module) -> bool:
    """Write the averaged weights of `run` into the network of `config`.

    One of the same sizes takes all of them; a PixArt also those of a DiT of labels.
    Returns whether all weights are averages now. Raises UserError where there is no such run, or
    where it is of another network.
    """
    there, told = load_experiment(run), f"train.start: {run} is of another network"
    found = checkpoint.newest(run / CHECKPOINT_FOLDER, print)
    weights = there.train.first_average
    kind = there.backbone if isinstance(there, ExperimentConfig) else None
    if isinstance(kind, DiTConfig) and isinstance(network, PixArt):
        state = checkpoint.load(found, weights)
        check_finite(state, f"{found}: {weights}")
        dit = _dit(kind, state, told)
        start_pixart(network, dit.to(next(network.parameters()).device))
        return False
    checkpoint.fill(found, weights, network.state_dict(), told)
    for name, (before, now) in config_io.differences(there, config).items():
        if name.startswith(MEANING):
            raise UserError(f"{told}: {name} is {before} there and {now} here")
    return True


def _dit(config: DiTConfig, weights: Mapping[str, Tensor], told: str) -> DiT:
    """The network of these weights. Its positions, which are no weights, fit any size."""
    labels, pooled = weights.get("label.weight"), weights.get("pooled.weight")
    condition = ConditionShapes(
        labels=None if labels is None else len(labels) - 1,
        pooled_width=None if pooled is None else pooled.shape[1],
    )
    side, (_, inputs) = config.patch, weights["patches.weight"].shape
    channels = inputs // side**2
    with torch.device("meta"):  # without drawing random numbers
        dit = config.build(Shapes(channels=channels, height=side, width=side, condition=condition))
    checkpoint.check_fits(weights, dit, told)
    dit.load_state_dict(weights, assign=True)
    return dit
