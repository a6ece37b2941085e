"""Step 5 of the learning path compares what costs the same."""

import pytest

from flowbrush.autoencoding import AUTOENCODER_FOLDER, AutoencoderExperiment
from flowbrush.backbones import JiTConfig
from flowbrush.experiment import ExperimentConfig
from flowbrush.recipes import recipe
from flowbrush.spaces import LatentConfig

RUNS = ("learn-5-latent", "learn-5-latent-128", "learn-5-pixels")


def autoencoder() -> AutoencoderExperiment:
    found = recipe("learn-5-autoencoder")
    assert isinstance(found, AutoencoderExperiment)
    return found


@pytest.mark.parametrize("name", RUNS)
def test_a_picture_is_sixteen_tokens(name: str) -> None:
    config = recipe(name)
    assert isinstance(config, ExperimentConfig)
    assert isinstance(config.backbone, JiTConfig)
    factor = autoencoder().autoencoder.factor if isinstance(config.space, LatentConfig) else 1
    assert (config.size / factor / config.backbone.patch) ** 2 == 16


@pytest.mark.parametrize("name", RUNS[:2])
def test_the_latents_are_those_of_the_autoencoders_run(name: str) -> None:
    config = recipe(name)
    assert isinstance(config, ExperimentConfig)
    assert isinstance(config.space, LatentConfig)
    assert config.space.model == f"runs/{autoencoder().name}/{AUTOENCODER_FOLDER}"
