"""From noise to data: what a perfect network must end at, whichever way it is asked."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from flowbrush.condition import Condition
from flowbrush.errors import UserError
from flowbrush.flow.denoiser import Denoiser
from flowbrush.flow.sampling import SamplingConfig, transport
from flowbrush.flow.solvers import METHODS

NOISE, DATA = torch.randn(2, 3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
EVALUATIONS = {"euler": 1, "heun": 2, "midpoint": 2, "rk4": 4}


class Says(nn.Module):
    """A backbone that says the same whatever it is asked."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        return self.output


class Wavering(nn.Module):
    """A backbone whose prediction changes from point to point; it remembers times and the last
    prediction."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        self.times.append(float(t[0]))
        self.last = torch.sin(3 * x_t + 5 * t.view(-1, 1, 1, 1))
        return self.last


def painted(denoiser: Denoiser, **choices) -> Tensor:
    return transport(denoiser, NOISE, Condition(), SamplingConfig(**choices))


@pytest.mark.parametrize("shift", [1.0, 4.0])
@pytest.mark.parametrize("steps", [1, 2, 7, 50])
@pytest.mark.parametrize("method", METHODS)
def test_a_network_that_always_predicts_one_picture_paints_it(method, steps, shift):
    x = painted(Denoiser(Says(DATA), "data", 0.0), method=method, steps=steps, shift=shift)
    assert_close(x, DATA, rtol=0, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 2, 7, 50])
@pytest.mark.parametrize("method", METHODS)
def test_painting_ends_at_the_last_predicted_data_without_speckles(method, steps):
    backbone = Wavering()
    x = painted(Denoiser(backbone, "data", 0.0), method=method, steps=steps)
    assert_close(x, backbone.last, rtol=0, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 2, 7, 50])
@pytest.mark.parametrize("method", METHODS)
def test_a_perfect_velocity_carries_the_noise_exactly_to_the_data(method, steps):
    x = painted(Denoiser(Says(DATA - NOISE), "velocity", 0.05), method=method, steps=steps)
    assert_close(x, DATA, rtol=0, atol=1e-5)


def test_the_clamp_of_training_stops_short_of_the_prediction():
    x = painted(Denoiser(Says(DATA), "data", 0.5), method="euler", steps=1)
    short = painted(Denoiser(Says(DATA), "data", 2.0), method="euler", steps=1)
    assert_close(x, DATA, rtol=0, atol=1e-6)
    assert_close(short, (NOISE + DATA) / 2)


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("method", EVALUATIONS)
def test_every_step_costs_its_method_and_the_last_one_a_single_evaluation(method, steps):
    backbone = Wavering()
    painted(Denoiser(backbone, "velocity", 0.05), method=method, steps=steps)
    assert len(backbone.times) == EVALUATIONS[method] * (steps - 1) + 1


@pytest.mark.parametrize("method", METHODS)
def test_the_network_is_never_asked_at_the_end_of_the_path(method):
    backbone = Wavering()
    painted(Denoiser(backbone, "data", 0.0), method=method, steps=10)
    assert max(backbone.times) == pytest.approx(0.9)


def test_the_solver_visits_the_shifted_times():
    backbone = Wavering()
    painted(Denoiser(backbone, "velocity", 0.05), method="euler", steps=4, shift=3.0)
    assert backbone.times == pytest.approx([0.0, 0.1, 0.25, 0.5])


def test_the_condition_reaches_the_network():
    def field(x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        assert condition.label is not None
        return condition.label.view(-1, 1, 1, 1) - NOISE

    labels = Condition(label=torch.tensor([0, 1, 2]))
    x = transport(field, NOISE, labels, SamplingConfig(method="heun", steps=3))
    assert_close(x[:, 0, 0, 0], torch.tensor([0.0, 1.0, 2.0]), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": 0}, "steps 0 must be 1 or more"),
        ({"interval": (0.5, 0.4)}, "0 <= low <= high <= 1"),
        ({"interval": (-0.1, 0.4)}, "0 <= low <= high <= 1"),
        ({"interval": (0.5, 1.1)}, "0 <= low <= high <= 1"),
    ],
)
def test_sampling_that_cannot_be_is_refused(wrong, message):
    with pytest.raises(UserError, match=message):
        SamplingConfig(**wrong)
