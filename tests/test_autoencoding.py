from dataclasses import replace
from pathlib import Path

import pytest
import torch

from flowbrush import config_io
from flowbrush.autoencoding import (
    AutoencoderConfig,
    AutoencoderExperiment,
    AutoencoderLossConfig,
    autoencoder_loss,
    build_autoencoder,
    load_experiment,
)
from flowbrush.data import PreparedConfig
from flowbrush.errors import UserError
from flowbrush.experiment import ExperimentConfig, load_config
from flowbrush.spaces.latent import LatentConfig, LatentSpace

CPU = torch.device("cpu")
SMALL = AutoencoderExperiment(autoencoder=AutoencoderConfig(channels=2, widths=(8, 8), groups=4))


def loss(**weights: float) -> list[float]:
    """Of one picture of zeros, painted with a step of 0.5 in its middle."""
    nothing = {"l1": 0.0, "mse": 0.0, "edges": 0.0, "kl": 0.0}
    painted = torch.zeros(1, 3, 4, 4)
    painted[:, :, :, 2:] = 0.5
    config = AutoencoderLossConfig(**{**nothing, **weights})
    mean, log_variance = torch.full((1, 2, 2, 2), 2.0), torch.zeros(1, 2, 2, 2)
    zeros = torch.zeros(1, 3, 4, 4)
    return autoencoder_loss(config, zeros, painted, mean, log_variance).tolist()


def test_each_term_has_the_value_worked_out_by_hand():
    assert loss(l1=1.0) == [0.25]
    assert loss(mse=2.0) == [2 * 0.125]
    assert loss(mse=1.0, edges=3.0) == [pytest.approx(0.125 + 3 * 0.5 / 3)]  # one step in three
    assert loss(l1=1.0, kl=1.0) == [pytest.approx(0.25 + 8 * 2.0**2 / 2 / 48)]


def test_the_perceptual_term_is_the_weighted_distance_of_what_was_decoded():
    pictures, decoded, posterior = (
        torch.rand(2, 3, 4, 4),
        torch.rand(2, 3, 4, 4),
        torch.zeros(2, 1, 1, 1),
    )

    def distance(painted: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        assert torch.equal(painted, decoded) and torch.equal(real, pictures)
        return torch.tensor([3.0, 5.0])

    without, with_it = (
        autoencoder_loss(
            AutoencoderLossConfig(perceptual=weight),
            pictures,
            decoded,
            posterior,
            posterior,
            distance,
        )
        for weight in (0.0, 0.5)
    )
    assert torch.equal(with_it, without + torch.tensor([1.5, 2.5]))


def test_the_divergence_is_torchs_own():
    mean, log_variance = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    pictures = torch.zeros(3, 3, 8, 8)
    config = AutoencoderLossConfig(kl=1.0)
    ours = autoencoder_loss(config, pictures, pictures, mean, log_variance)
    posterior = torch.distributions.Normal(mean, (log_variance / 2).exp())
    theirs = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0))
    torch.testing.assert_close(ours, theirs.flatten(1).sum(dim=1) / (3 * 8 * 8))


def test_the_first_weights_depend_on_the_seed_alone():
    def weights(seed: int) -> torch.Tensor:
        torch.rand(seed + 1)  # whatever was drawn before
        seeded = replace(SMALL, train=replace(SMALL.train, seed=seed))
        return build_autoencoder(seeded, CPU).encoder.conv_in.weight

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


@pytest.mark.parametrize(("widths", "factor"), [((8, 8, 8), 4), ((8, 8, 8, 8), 8)])
def test_every_level_but_the_first_halves_the_side(widths, factor):
    config = AutoencoderConfig(channels=5, widths=widths)
    space = LatentSpace(config.build(), LatentConfig(), CPU)
    assert config.factor == factor
    assert space.shape(64) == (5, 64 // factor, 64 // factor)


def test_a_run_of_either_kind_is_read(tmp_path: Path):
    for name, config in (("paints", ExperimentConfig()), ("encodes", SMALL)):
        (tmp_path / name).mkdir()
        config_io.save(config, tmp_path / name / "config.json")
        assert load_experiment(tmp_path / name) == config
    assert load_config(tmp_path / "paints") == ExperimentConfig()
    with pytest.raises(UserError, match="encodes: an autoencoder's, which has no prompts"):
        load_config(tmp_path / "encodes")
    with pytest.raises(UserError, match="not a run's folder"):
        load_experiment(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda: replace(SMALL, size=65), "wants a multiple of 2"),
        (lambda: replace(SMALL, held_out=1.0), r"must be in \[0, 1\)"),
        (lambda: replace(SMALL, source=PreparedConfig()), "learns from pictures"),
        (lambda: replace(SMALL, train=replace(SMALL.train, accumulate=3)), "do not divide a batch"),
        (lambda: AutoencoderConfig(widths=(8, 12), groups=8), "do not divide a width of 12"),
        (lambda: AutoencoderConfig(widths=()), "must be 1 or more"),
        (lambda: AutoencoderLossConfig(l1=0.0), "l1 or mse must be above"),
        (lambda: AutoencoderLossConfig(kl=-1.0), "no weight may be below 0"),
        (lambda: AutoencoderLossConfig(perceptual=-0.1), "no weight may be below 0"),
        (
            lambda: replace(SMALL, size=14, loss=AutoencoderLossConfig(perceptual=0.1)),
            r"^loss\.perceptual: its network wants pictures of 16 pixels or more, not 14",
        ),
    ],
)
def test_what_does_not_fit_is_refused(build, told):
    with pytest.raises(UserError, match=told):
        build()
