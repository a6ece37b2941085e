"""Imported discrete diffusions, sampled beside diffusers' schedulers from the same noise.

The data is a mixture of Gaussians: with random weights, or one Gaussian, every start looks right.
"""

from functools import cache

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from gaussians import SHAPE, PredictsNoise, PredictsVelocity
from torch import Tensor

from flowbrush.condition import Condition
from flowbrush.errors import UserError
from flowbrush.flow.denoiser import Denoiser, FlowConfig
from flowbrush.flow.diffusion import DiffusionConfig
from flowbrush.flow.guidance import Guided
from flowbrush.flow.sampling import SamplingConfig, transport

BETAS = {
    "linear": DiffusionConfig(),  # DiT, PixArt
    "scaled": DiffusionConfig(first_beta=0.00085, last_beta=0.012, betas="scaled_linear"),
}
NOISE = torch.randn(16, *SHAPE, generator=torch.Generator().manual_seed(0))


def flow_of(diffusion: DiffusionConfig) -> FlowConfig:
    return FlowConfig(prediction="noise", t_eps=diffusion.first_time, diffusion=diffusion)


def sampled(diffusion: DiffusionConfig, **choices) -> Tensor:
    flow = flow_of(diffusion)
    denoiser = Denoiser(PredictsNoise(diffusion), "noise", flow.t_eps, diffusion)
    return transport(denoiser, NOISE, Condition(), SamplingConfig(**choices), flow)


@cache
def theirs(kind: type, betas: str, steps: int, **settings) -> Tensor:
    config = BETAS[betas]
    scheduler = kind(
        beta_start=config.first_beta,
        beta_end=config.last_beta,
        beta_schedule=config.betas,
        **settings,
    )
    scheduler.set_timesteps(steps)
    network, x = PredictsNoise(config), NOISE
    for step in scheduler.timesteps:
        x = scheduler.step(network.at_step(x, float(step)), step, x).prev_sample
    return x


def error(x: Tensor, betas: str) -> float:
    """Mean difference to DDIM with all 1,000 steps, in standard deviations."""
    exact = theirs(DDIMScheduler, betas, 1000, clip_sample=False)
    return float((x - exact).abs().mean() / exact.std())


@pytest.mark.parametrize("betas", BETAS)
@pytest.mark.parametrize("evaluations", [20, 50, 250])
def test_at_equal_evaluations_no_solver_is_worse_than_ddim_and_heun_is_far_better(
    evaluations, betas
):
    ddim = error(theirs(DDIMScheduler, betas, evaluations, clip_sample=False), betas)
    euler, dpm_solver, midpoint, heun = (
        error(sampled(BETAS[betas], method=method, steps=steps), betas)
        for method, steps in (
            ("euler", evaluations),
            ("dpmsolver++", evaluations),
            ("midpoint", evaluations // 2),
            ("heun", evaluations // 2),
        )
    )
    assert max(euler, dpm_solver) < 1.06 * ddim  # Euler's steps are DDIM's, one index beside them
    assert max(midpoint, heun) < 0.4 * ddim


@pytest.mark.parametrize("betas", BETAS)
def test_euler_in_all_1000_steps_is_ddim(betas):
    ours = sampled(BETAS[betas], method="euler", steps=1000)
    assert error(ours, betas) < 1e-5


@pytest.mark.parametrize("betas", BETAS)
@pytest.mark.parametrize("steps", [1, 4, 20])
def test_dpm_solver_is_diffusers_at_its_defaults(steps, betas):
    ours = sampled(BETAS[betas], method="dpmsolver++", steps=steps)
    peer = theirs(DPMSolverMultistepScheduler, betas, steps)
    torch.testing.assert_close(ours, peer, rtol=0, atol=1e-4)


@pytest.mark.parametrize("betas", BETAS)
def test_every_deterministic_method_comes_near_the_same_images(betas):
    for method in ("rk4", "dopri5"):
        assert error(sampled(BETAS[betas], method=method, steps=60), betas) < 0.003


def test_a_learned_variance_reaches_ddpm_unguided():
    diffusion = DiffusionConfig(variance="learned_range")
    denoiser = Denoiser(PredictsNoise(diffusion, variance=True), "noise", 1e-6, diffusion)
    x, t = NOISE, torch.full((len(NOISE),), 0.4, dtype=torch.float64)
    field = Guided(denoiser.with_variance, Condition(label=torch.tensor([9])), scale=3.0)
    output = field(x, t, Condition(label=torch.zeros(len(x), dtype=torch.long)))
    assert output.shape[1] == 6
    torch.testing.assert_close(output, denoiser.with_variance(x, t, Condition()))


@pytest.mark.parametrize("method", ["ddpm", "sde_euler", "sde_heun"])
def test_with_fresh_noise_another_image_of_the_same_data_comes(method):
    def fresh(seed: int):
        def draw(step: int) -> Tensor:
            generator = torch.Generator().manual_seed(1000 * seed + step)
            return torch.randn(NOISE.shape, generator=generator)

        return draw

    choices = SamplingConfig(method=method, steps=60)
    for field, flow in (
        (Denoiser(PredictsVelocity(), "velocity", 0.05), FlowConfig()),
        (
            Denoiser(PredictsNoise(BETAS["linear"]), "noise", 1e-6, BETAS["linear"]),
            flow_of(BETAS["linear"]),
        ),
    ):
        one, again, other = (
            transport(field, NOISE, Condition(), choices, flow, fresh(seed)) for seed in (1, 1, 2)
        )
        assert torch.equal(one, again)
        assert (one - other).abs().mean() > 0.1
        exact = theirs(DDIMScheduler, "linear", 1000, clip_sample=False)
        assert float(one.std()) == pytest.approx(float(exact.std()), rel=0.15)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"steps": 1001}, "steps 1001; the diffusion of these weights has 1000"),
        ({"shift": 3.0}, "sampling: shift 3.0.*set shift to 1"),
        ({"last_gap": 0.04}, "last_gap 0.04"),
    ],
)
def test_steps_that_a_diffusion_does_not_have_are_refused(choices, message):
    with pytest.raises(UserError, match=message):
        sampled(DiffusionConfig(), **choices)
