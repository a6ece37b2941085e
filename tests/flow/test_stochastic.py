"""Samplers with fresh noise: diffusers' DDPM, and SDEs that end at the data's distribution."""

import math
from itertools import pairwise

import pytest
import torch
from diffusers import DDPMScheduler
from gaussians import SHAPE, PredictsNoise
from torch import Tensor

from flowbrush.condition import Condition
from flowbrush.flow.denoiser import Denoiser
from flowbrush.flow.diffusion import DiffusionConfig
from flowbrush.flow.stochastic import ReverseSDE, ddpm

NOISE = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
MEAN, STD = 2.0, 0.5
FORMS = ["sigma", "constant", "sbdm", "decreasing", "increasing-decreasing"]


@pytest.mark.parametrize("steps", [5, 50])
@pytest.mark.parametrize("learned", [False, True], ids=["fixed", "learned"])
def test_ancestral_sampling_is_diffusers_ddpm(learned, steps):
    config, network = DiffusionConfig(), PredictsNoise(DiffusionConfig(), variance=learned)
    scheduler = DDPMScheduler(
        clip_sample=False,
        variance_type="learned_range" if learned else "fixed_small",
        timestep_spacing="linspace",
    )
    scheduler.set_timesteps(steps)
    theirs, generator = NOISE, torch.Generator().manual_seed(1)
    for step in scheduler.timesteps:
        said = network.at_step(theirs, float(step))
        theirs = scheduler.step(said, step, theirs, generator=generator).prev_sample

    denoiser, generator = Denoiser(network, "noise", 1e-6, config), generator.manual_seed(1)
    field = denoiser.with_variance if learned else denoiser

    def slope(t: float, x: Tensor) -> Tensor:
        return field(x, torch.full((3,), t, dtype=torch.float64), Condition())

    times = config.times(steps, through_zero=True)
    x = NOISE * math.hypot(times[0], 1 - times[0])
    for t, after in pairwise(times):
        x = ddpm(slope, x, t, after, torch.randn(x.shape, generator=generator, dtype=x.dtype))
    torch.testing.assert_close(x, theirs, rtol=0, atol=1e-4)  # its betas are fp32


def velocity(t: float, x: Tensor) -> Tensor:
    """Of data of one normal distribution; exact."""
    variance = (t * STD) ** 2 + (1 - t) ** 2
    slope = (t * STD**2 - (1 - t)) / variance
    return MEAN + slope * (x - t * MEAN)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["euler", "heun"])
def test_an_sde_of_any_diffusion_ends_at_the_distribution_of_the_data(kind, form):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20_000, generator=generator)
    step = getattr(ReverseSDE(velocity, form, 1.0), kind)
    times = [i / 200 for i in range(201)]
    for t, after in pairwise(times):
        x = step(x, t, after, torch.randn(x.shape, generator=generator))
    assert float(x.mean()) == pytest.approx(MEAN, abs=0.05)
    assert float(x.std()) == pytest.approx(STD, rel=0.05)


def test_a_step_of_euler_maruyama_is_the_published_one():
    x, fresh = torch.tensor([0.3, -1.2]), torch.tensor([0.7, 0.1])
    found = ReverseSDE(lambda t, x: 2 * x, "sigma", 0.5).euler(x, 0.25, 0.35, fresh)
    sigma, w = 0.75, 0.5 * 0.75
    score = (0.25 * 2 * x - x) / sigma
    expected = x + 0.1 * (2 * x + w * score) + math.sqrt(2 * w) * math.sqrt(0.1) * fresh
    torch.testing.assert_close(found, expected)


def test_the_last_step_adds_no_noise_and_without_diffusion_none_does():
    x, fresh = torch.tensor([0.3]), torch.tensor([torch.nan])
    for form in FORMS:
        assert ReverseSDE(velocity, form, 1.0).euler(x, 0.96, 1.0, fresh).isfinite()
        assert ReverseSDE(velocity, form, 1.0).heun(x, 0.96, 1.0, fresh).isfinite()
    ode = ReverseSDE(velocity, "sigma", 0.0).euler(x, 0.5, 0.6, torch.ones(1))
    torch.testing.assert_close(ode, x + 0.1 * velocity(0.5, x))
