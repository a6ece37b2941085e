"""The loss at all nine combinations of what is predicted and where it is judged."""

from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from flowbrush.condition import Condition
from flowbrush.errors import UserError
from flowbrush.flow.denoiser import Denoiser, FlowConfig
from flowbrush.flow.loss import flow_loss
from flowbrush.flow.path import interpolate, truth

KINDS = ("velocity", "data", "noise")
NINE = list(product(KINDS, KINDS))
T_EPS = 0.05
INSIDE = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9], dtype=torch.float64)  # away from the clamp
ENDS = torch.tensor([0.0, 1e-6, 0.04, 0.96, 1.0], dtype=torch.float64)  # where it is in force
DATA, NOISE = torch.randn(
    2, 5, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64
)


class Wrong(nn.Module):
    """Says the truth plus one error, which it can unlearn."""

    def __init__(self, right: Tensor, error: float) -> None:
        super().__init__()
        self.right = right
        self.error = nn.Parameter(torch.tensor(error, dtype=torch.float64))

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        return self.right + self.error


def denoiser(kind: str, error: float) -> Denoiser:
    return Denoiser(Wrong(truth(kind, DATA, NOISE), error), kind, T_EPS)


def velocity_error(kind: str, t: Tensor) -> Tensor:
    """The error of the velocity where the prediction is wrong by one."""
    return {"velocity": torch.ones_like(t), "data": 1 / (1 - t), "noise": -1 / t}[kind]


@pytest.mark.parametrize("t", [INSIDE, ENDS], ids=["inside", "ends"])
@pytest.mark.parametrize(("kind", "space"), NINE)
def test_a_perfect_network_has_no_loss(kind, space, t):
    losses = flow_loss(denoiser(kind, 0.0), DATA, NOISE, t, Condition(), space)
    assert losses.tolist() == [0.0] * 5


@pytest.mark.parametrize("kind", KINDS)
def test_a_perfect_network_has_the_velocity_from_noise_to_data(kind):
    velocity = denoiser(kind, 0.0)(interpolate(DATA, NOISE, INSIDE), INSIDE, Condition())
    assert_close(velocity, DATA - NOISE)


@pytest.mark.parametrize(("kind", "space"), NINE)
def test_an_error_costs_the_square_of_what_it_is_in_the_space_of_the_loss(kind, space):
    of_velocity = velocity_error(kind, INSIDE)
    there = 0.5 * of_velocity / velocity_error(space, INSIDE)
    losses = flow_loss(denoiser(kind, 0.5), DATA, NOISE, INSIDE, Condition(), space)
    assert_close(losses, there**2)


@pytest.mark.parametrize(("kind", "space"), NINE)
def test_a_wrong_network_has_a_positive_loss(kind, space):
    losses = flow_loss(denoiser(kind, 0.5), DATA, NOISE, INSIDE, Condition(), space)
    assert (losses > 0).all()


@pytest.mark.parametrize("t", [INSIDE, ENDS], ids=["inside", "ends"])
@pytest.mark.parametrize(("kind", "space"), NINE)
def test_a_wrong_network_has_finite_gradients(kind, space, t):
    wrong = denoiser(kind, 0.5)
    flow_loss(wrong, DATA, NOISE, t, Condition(), space).sum().backward()
    assert torch.isfinite(wrong.backbone.error.grad)


def test_data_judged_as_velocity_is_the_loss_of_jit_with_its_clamp():
    losses = flow_loss(denoiser("data", 0.5), DATA, NOISE, ENDS, Condition(), "velocity")
    assert_close(losses, (0.5 / (1 - ENDS).clamp(min=T_EPS)) ** 2)


def test_each_row_has_its_own_loss():
    right = truth("velocity", DATA, NOISE)
    errors = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    network = Denoiser(Wrong(right + errors.view(-1, 1, 1, 1), 0.0), "velocity", T_EPS)
    losses = flow_loss(network, DATA, NOISE, INSIDE, Condition(), "velocity")
    assert_close(losses, errors**2)


@pytest.mark.parametrize("wrong", [{"t_eps": 0.0}, {"t_eps": 1.0}, {"noise_scale": 0.0}])
def test_a_clamp_or_noise_that_cannot_be_is_refused(wrong):
    with pytest.raises(UserError, match="t_eps"):
        FlowConfig(**wrong)
