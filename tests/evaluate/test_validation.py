"""The validation loss is a function of the weights and the pictures alone."""

from dataclasses import replace

import pytest
import tiny as experiments
import torch
from torch import nn

from flowbrush.data.part import Listed
from flowbrush.data.split import split
from flowbrush.evaluate import validation
from flowbrush.evaluate.validation import TIMES, ValidationLoss, validation_loss
from flowbrush.experiment import ExperimentConfig, build_denoiser, build_encoder, build_shapes
from flowbrush.flow.denoiser import Denoiser
from flowbrush.text_to_image import TextToImage

CPU = torch.device("cpu")


def painter(config: ExperimentConfig) -> TextToImage:
    source = config.source.build(config.size)
    encoder, space = build_encoder(config, source, CPU), config.space.build(CPU)
    denoiser = build_denoiser(config, build_shapes(config, space, encoder), CPU)
    return TextToImage(config, denoiser, encoder, space, CPU)


@pytest.fixture(scope="module")
def config() -> ExperimentConfig:
    return experiments.tiny()


def measure(config: ExperimentConfig, pictures: int = 20) -> torch.Tensor:
    source = config.source.build(config.size)
    return validation_loss(painter(config), source, pictures, held_out=False).losses


def test_the_same_weights_have_the_same_loss(config):
    assert torch.equal(measure(config), measure(config))


def test_pictures_that_are_measured_together_change_nothing_but_rounding(config, monkeypatch):
    whole = measure(config)
    monkeypatch.setattr(validation, "TOGETHER", 7)
    torch.testing.assert_close(measure(config), whole, rtol=1e-5, atol=0)


def test_neither_the_batch_nor_the_runs_seed_nor_its_loss_count(config):
    weights = painter(config).denoiser
    other = replace(
        config,
        batch=replace(config.batch, size=4, flip=False),
        flow=replace(config.flow, loss_space="data"),
        train=replace(config.train, seed=5, caption_dropout=0.9),
    )
    changed = painter(other)
    changed.denoiser.load_state_dict(weights.state_dict())
    source = config.source.build(config.size)
    found = validation_loss(changed, source, 20, held_out=False)
    assert torch.equal(found.losses, measure(config))


def test_a_network_that_knows_the_data_has_no_loss(config, monkeypatch):
    class Knowing(nn.Module):
        """Says at each time what was seen of the data: x_t / t where the noise is zero."""

        def forward(self, x_t, t, condition):
            return x_t / t.view(-1, 1, 1, 1)

    silent = painter(replace(config, flow=replace(config.flow, noise_scale=1e-12)))
    silent.denoiser = Denoiser(Knowing(), "data", 0.05)
    source = config.source.build(config.size)
    found = validation_loss(silent, source, 12, held_out=False)
    assert found.losses.shape == (12, len(TIMES))
    assert float(found.losses.max()) < 1e-6


def test_the_figure_says_which_pictures_it_is_of(config):
    source = config.source.build(config.size)
    held_out = split(source, 0.2).held_out
    found = validation_loss(painter(config), held_out, 16, held_out=True)
    assert "held-out pictures" in found.measured.by
    assert found.measured.low < found.measured.value < found.measured.high
    assert found.measured.value == pytest.approx(sum(found.by_time) / len(TIMES))


def test_the_network_trains_on_as_it_did(config):
    model = painter(config)
    model.denoiser.train()
    validation_loss(model, config.source.build(config.size), 8, held_out=False)
    assert model.denoiser.training
    assert all(p.grad is None for p in model.denoiser.parameters())


def test_a_run_is_measured_on_what_it_holds_out(config):
    model = painter(replace(config, held_out=0.3))
    found = validation.loss_of_run(model, 16)
    assert found is not None
    assert found.held_out
    assert validation.loss_of_run(model, 0) is None


def test_times_lie_evenly():
    assert list(TIMES) == [n / 16 for n in range(1, 16, 2)]


def test_images_are_not_measured_again_where_there_are_fewer(config):
    few = Listed(config.source.build(config.size), tuple(range(17)))
    found = validation_loss(painter(config), few, 256, held_out=True)
    assert found.losses.shape == (17, len(TIMES))
    assert found.measured.pictures == 17


def test_copies_of_an_image_are_one_image(config):
    few = Listed(config.source.build(config.size), tuple(range(12)) * 5)
    found = validation_loss(painter(config), few, 60, held_out=True)
    assert len(found.losses) == 60
    assert found.measured.pictures == 12


def test_the_interval_covers_where_images_come_again():
    # 17 images, each 15 times with other noise: what made 0.23 of a plus-minus of 1.05
    generator = torch.Generator().manual_seed(0)
    images, hits = torch.arange(17).repeat(15), 0
    for _ in range(300):
        own = torch.randn(17, 1, generator=generator).double()
        losses = own[images] + 0.3 * torch.randn(255, len(TIMES), generator=generator).double()
        one = ValidationLoss(losses, images, held_out=True).measured
        hits += one.low < 0 < one.high
    assert 0.91 <= hits / 300 <= 0.98


def test_a_loss_that_is_not_finite_is_told():
    losses = torch.ones(12, len(TIMES)).double()
    losses[3, 2] = torch.nan
    one = ValidationLoss(losses, torch.arange(12), held_out=True).measured
    assert one.note == "the loss of 1 of 12 examples is not finite"
