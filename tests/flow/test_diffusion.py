"""Weights of a discrete diffusion, seen as a flow."""

import pytest
import torch
from torch import Tensor, nn

from flowbrush.condition import Condition
from flowbrush.errors import UserError
from flowbrush.flow.denoiser import Denoiser
from flowbrush.flow.diffusion import DiffusionConfig
from flowbrush.flow.solvers import euler

LINEAR = DiffusionConfig()
SCALED = DiffusionConfig(first_beta=0.00085, last_beta=0.012, betas="scaled_linear")


def kept(config: DiffusionConfig) -> Tensor:
    """The share of the data's variance after each step, as DDPM defines it."""
    if config.betas == "linear":
        betas = torch.linspace(config.first_beta, config.last_beta, 1000, dtype=torch.float64)
    else:
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, dim=0)


def time_of(step: int, config: DiffusionConfig) -> Tensor:
    a = kept(config)[step]
    return (a.sqrt() / (a.sqrt() + (1 - a).sqrt()))[None]


@pytest.mark.parametrize("config", [LINEAR, SCALED], ids=["linear", "scaled"])
@pytest.mark.parametrize("step", [0, 1, 250, 500, 998, 999])
def test_at_a_step_s_time_the_network_sees_that_step_and_its_noisy_picture(config, step):
    data, noise = torch.randn(2, 1, 3, 4, 4)
    t, a = time_of(step, config).float(), kept(config)[step].float()
    seen = config.seen(t * data + (1 - t) * noise, t)
    assert torch.allclose(seen.x, a.sqrt() * data + (1 - a).sqrt() * noise, atol=1e-5)
    assert float(1000 * (1 - seen.t.double())) == pytest.approx(step, abs=2e-3)


def test_outside_all_steps_the_network_sees_the_last_or_the_first():
    seen = LINEAR.seen(torch.ones(3, 1, 1, 1), torch.tensor([0.0, LINEAR.first_time / 2, 1.0]))
    assert torch.allclose(seen.t, torch.tensor([0.001, 0.001, 1.0]))


class Noisy(nn.Module):
    """Says a noise that depends on all it sees."""

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        return (x_t * 3 + t.view(-1, 1, 1, 1)).sin()


@pytest.mark.parametrize(("step", "after"), [(999, 800), (800, 500), (100, 0)])
def test_an_euler_step_is_a_ddim_step(step, after):
    noisy = torch.randn(1, 3, 4, 4, dtype=torch.float64)  # at `step`, as DDIM has it
    said = Noisy()(noisy, torch.tensor([1 - step / 1000], dtype=torch.float64), Condition())
    a, b = kept(LINEAR)[step], kept(LINEAR)[after]
    data = (noisy - (1 - a).sqrt() * said) / a.sqrt()
    wanted = b.sqrt() * data + (1 - b).sqrt() * said

    t, later = time_of(step, LINEAR), time_of(after, LINEAR)
    field = Denoiser(Noisy(), "noise", LINEAR.first_time / 2, LINEAR)
    x_t = noisy * torch.hypot(t, 1 - t)

    def slope(time: float, x: Tensor) -> Tensor:
        return field(x, torch.tensor([time], dtype=torch.float64), Condition())

    x = euler(slope, x_t, float(t), float(later - t))
    assert torch.allclose(x / torch.hypot(later, 1 - later), wanted, atol=1e-6)


@pytest.mark.parametrize("wrong", [{"steps": 1}, {"first_beta": 0.0}, {"last_beta": 1e-5}])
def test_a_diffusion_that_cannot_be_is_refused(wrong):
    with pytest.raises(UserError, match=r"flow\.diffusion"):
        DiffusionConfig(**wrong)
