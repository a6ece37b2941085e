"""DPM-Solver++(2M): diffusers' on diffusions, and its order on flows."""

import math
from itertools import pairwise

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from gaussians import SHAPE, PredictsNoise, PredictsVelocity
from torch import Tensor

from flowbrush.condition import Condition
from flowbrush.flow.denoiser import Denoiser
from flowbrush.flow.diffusion import DiffusionConfig
from flowbrush.flow.multistep import DPMSolver2M
from flowbrush.flow.solvers import RowTimes, as_rows, solve

LINEAR = DiffusionConfig()
SCALED = DiffusionConfig(first_beta=0.00085, last_beta=0.012, betas="scaled_linear")
NOISE = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def slope_of(denoiser: Denoiser):
    def slope(t: RowTimes, x: Tensor) -> Tensor:
        return denoiser(x, as_rows(t, len(x)), Condition())

    return slope


def solved(denoiser: Denoiser, times: list[float]) -> Tensor:
    step, x = DPMSolver2M(slope_of(denoiser)), NOISE * math.hypot(times[0], 1 - times[0])
    for t, after in pairwise(times):
        x = step(x, t, after)
    return x


@pytest.mark.parametrize("config", [LINEAR, SCALED], ids=["linear", "scaled"])
@pytest.mark.parametrize("steps", [1, 2, 7, 20, 50])
def test_on_a_diffusion_it_is_diffusers_dpm_solver(config, steps):
    network = PredictsNoise(config)
    scheduler = DPMSolverMultistepScheduler(
        beta_start=config.first_beta, beta_end=config.last_beta, beta_schedule=config.betas
    )
    scheduler.set_timesteps(steps)
    theirs = NOISE
    for step in scheduler.timesteps:
        theirs = scheduler.step(network.at_step(theirs, float(step)), step, theirs).prev_sample
    denoiser = Denoiser(network, "noise", config.first_time / 2, config)
    ours = solved(denoiser, config.times(steps))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)  # its sigmas are fp32


def even(n: int) -> list[float]:
    return [i / n for i in range(n + 1)]


def test_on_a_flow_twice_the_steps_have_about_a_quarter_of_the_error():
    denoiser = Denoiser(PredictsVelocity(), "velocity", 0.0)
    slope = slope_of(denoiser)
    exact = solve(slope, NOISE, [0.0, 1.0], "dopri5", rtol=1e-9, atol=1e-9)
    coarse, fine = ((solved(denoiser, even(n)) - exact).abs().mean() for n in (128, 256))
    euler = (solve(slope, NOISE, even(128), "euler") - exact).abs().mean()
    # 2 but for a logarithm, of the two ends, where log r is infinite.
    assert 1.6 < math.log2(coarse / fine) < 2.1
    assert coarse < euler / 8


def test_a_network_of_data_and_one_of_velocity_are_sampled_alike():
    data = solved(Denoiser(PredictsVelocity("data"), "data", 0.0), even(9))
    velocity = solved(Denoiser(PredictsVelocity(), "velocity", 0.0), even(9))
    torch.testing.assert_close(data, velocity, rtol=0, atol=1e-12)


def test_a_prediction_of_one_image_ends_at_it_in_any_number_of_steps():
    image = torch.randn(4, *SHAPE, dtype=torch.float64)
    for n in (1, 2, 9):
        step, x = DPMSolver2M(lambda t, x: (image - x) / (1 - t)), NOISE
        for i in range(n):
            x = step(x, i / n, (i + 1) / n)
        torch.testing.assert_close(x, image, rtol=0, atol=1e-12)
