"""Learning a latent space: an autoencoder's network, its loss, and the experiment around it.

A KL autoencoder (Kingma & Welling 2013) with the layers of Rombach et al. 2022, in diffusers'
format: what is learned here is what LatentConfig reads.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from flowbrush import config_io
from flowbrush.data import EmojiConfig, PreparedConfig, SourceConfig
from flowbrush.data.batches import BatchConfig
from flowbrush.data.mixture import configs_of
from flowbrush.errors import UserError
from flowbrush.experiment import (
    CONFIG_FILE,
    ExperimentConfig,
    TrainConfig,
    WatchConfig,
    is_autoencoders,
    is_run,
    load_config,
)
from flowbrush.perceptual import SMALLEST, PerceptualDistance, efficientnet_lite0
from flowbrush.spaces.autoencoders import import_diffusers

AUTOENCODER_FOLDER = "autoencoder"  # of a run: the averaged weights, in diffusers' format

# Of each pair of pictures, at -1..1: what was decoded, and the real one.
Distance = Callable[[Float[Tensor, "b 3 H W"], Float[Tensor, "b 3 H W"]], Float[Tensor, " b"]]


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """An AutoencoderKL of diffusers."""

    channels: int = 6  # of the latents
    widths: tuple[int, ...] = (16, 32, 64)  # of each level; every one but the first halves the side
    layers: int = 1  # residual blocks of a level; the decoder has one more
    groups: int = 8  # of the norms; they divide every width

    def __post_init__(self) -> None:
        if not self.widths or min(self.channels, self.layers, self.groups, *self.widths) < 1:
            raise UserError("autoencoder: channels, widths, layers and groups must be 1 or more")
        for width in self.widths:
            if width % self.groups:
                raise UserError(
                    f"autoencoder.groups: {self.groups} norm groups do not divide a width of "
                    f"{width}"
                )

    @property
    def factor(self) -> int:
        """How many pixels the side of a latent stands for."""
        return int(2 ** (len(self.widths) - 1))

    def build(self) -> Any:
        """Raises UserError where diffusers is missing."""
        return import_diffusers().AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * len(self.widths),
            up_block_types=("UpDecoderBlock2D",) * len(self.widths),
            block_out_channels=self.widths,
            layers_per_block=self.layers,
            norm_num_groups=self.groups,
            latent_channels=self.channels,
            scaling_factor=1.0,
        )


@dataclass(frozen=True, kw_only=True)
class AutoencoderLossConfig:
    """The weight of each term. All but perceptual are means over a picture's numbers, at -1..1."""

    l1: float = 1.0
    mse: float = 0.0
    edges: float = 0.0  # l1 between the differences of neighbouring pixels
    kl: float = 0.01  # divergence of the posterior from a standard normal, in nats
    perceptual: float = 0.0  # distance of EfficientNet-Lite0's maps; 0 loads no network

    def __post_init__(self) -> None:
        lowest = min(self.l1, self.mse, self.edges, self.kl, self.perceptual)
        if lowest < 0 or not self.l1 + self.mse > 0:
            raise UserError("loss: no weight may be below 0, and l1 or mse must be above it")

    def build_distance(self, device: torch.device) -> Distance | None:
        """What the perceptual term needs, if it has a weight.

        Raises UserError where the packages are missing.
        """
        if not self.perceptual:
            return None
        return PerceptualDistance(efficientnet_lite0("loss.perceptual"), device)


@dataclass(frozen=True, kw_only=True)
class AutoencoderExperiment:
    """Everything that decides what an autoencoder's run learns.

    What `train` and `watch` say of captions (dropouts, prompts) has no part here.
    """

    name: str = "autoencoder"
    size: int = 64  # of the pictures, in pixels
    source: SourceConfig = EmojiConfig()
    held_out: float = 0.1  # share of the pictures that is never trained on, to measure by
    batch: BatchConfig = BatchConfig(size=16, flip=True)
    autoencoder: AutoencoderConfig = AutoencoderConfig()
    loss: AutoencoderLossConfig = AutoencoderLossConfig()
    train: TrainConfig = TrainConfig()
    watch: WatchConfig = WatchConfig()

    def __post_init__(self) -> None:
        if self.size < 1 or self.size % self.autoencoder.factor:
            raise UserError(
                f"size: {self.size} pixels; this autoencoder wants a multiple of "
                f"{self.autoencoder.factor}"
            )
        if self.loss.perceptual and self.size < SMALLEST:
            raise UserError(
                f"loss.perceptual: its network wants pictures of {SMALLEST} pixels or more, not "
                f"{self.size}; give 0"
            )
        if any(isinstance(source, PreparedConfig) for source in configs_of(self.source)):
            raise UserError("source: prepared for a network; an autoencoder learns from pictures")
        if not 0 <= self.held_out < 1:
            raise UserError(f"held_out: {self.held_out}; it must be in [0, 1)")
        if self.train.power_ema:
            raise UserError("train.power_ema: an autoencoder keeps none; leave it out")
        if self.train.recompute or self.train.sharding != "none":
            raise UserError("train: an autoencoder has no recompute and sharding; leave them out")
        if self.batch.size % self.train.accumulate:
            raise UserError(
                f"train.accumulate: {self.train.accumulate} parts do not divide a batch of "
                f"{self.batch.size}"
            )


Experiment = ExperimentConfig | AutoencoderExperiment


def load_experiment(run: Path) -> Experiment:
    """The config of a run of either kind. Raises UserError as `load_config` does."""
    if is_run(run) and is_autoencoders(run):
        return config_io.load(AutoencoderExperiment, run / CONFIG_FILE)
    return load_config(run)


def build_autoencoder(config: AutoencoderExperiment, device: torch.device) -> Any:
    """The network to train, with first weights that depend on the seed alone (drawn on the CPU)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        return config.autoencoder.build().to(device)


def autoencoder_loss(
    config: AutoencoderLossConfig,
    pictures: Float[Tensor, "b 3 H W"],
    decoded: Float[Tensor, "b 3 H W"],
    mean: Float[Tensor, "b c h w"],
    log_variance: Float[Tensor, "b c h w"],
    distance: Distance | None = None,
) -> Float[Tensor, " b"]:
    """The weighted terms together, for each picture; mean and log_variance are the posterior's.

    distance: of config.build_distance.
    """
    error = decoded - pictures
    across, down = error.diff(dim=3), error.diff(dim=2)
    kl = (mean.square() + log_variance.exp() - 1 - log_variance) / 2
    loss = (
        config.l1 * error.abs().flatten(1).mean(dim=1)
        + config.mse * error.square().flatten(1).mean(dim=1)
        + config.edges * across.abs().flatten(1).mean(dim=1)
        + config.edges * down.abs().flatten(1).mean(dim=1)
        + config.kl * kl.flatten(1).sum(dim=1) / error[0].numel()
    )
    if not config.perceptual:
        return loss
    assert distance is not None, "the perceptual term has a weight and no network"
    return loss + config.perceptual * distance(decoded, pictures)
