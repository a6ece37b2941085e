"""From noise to data: what a perfect network must end at, whichever way it is asked."""

import math

import pytest
import torch
from gaussians import SHAPE, PredictsVelocity
from torch import Tensor, nn
from torch.testing import assert_close

from flowbrush.condition import Condition
from flowbrush.errors import UserError
from flowbrush.flow.denoiser import Denoiser, FlowConfig
from flowbrush.flow.path import Prediction
from flowbrush.flow.sampling import SamplingConfig, guided, transport
from flowbrush.flow.solvers import METHODS, as_rows, solve

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
    flow = FlowConfig(prediction=denoiser.prediction)
    return transport(denoiser, NOISE, Condition(), SamplingConfig(**choices), flow)


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
def test_every_step_costs_its_method_and_the_last_to_a_prediction_one_evaluation(method, steps):
    backbone = Wavering()
    painted(Denoiser(backbone, "velocity", 0.05), method=method, steps=steps)
    assert len(backbone.times) == EVALUATIONS[method] * steps
    backbone.times.clear()
    painted(Denoiser(backbone, "data", 0.05), method=method, steps=steps)
    assert len(backbone.times) == EVALUATIONS[method] * (steps - 1) + 1


@pytest.mark.parametrize("method", METHODS)
def test_a_network_that_predicts_data_is_never_asked_at_the_end_of_the_path(method):
    backbone = Wavering()
    painted(Denoiser(backbone, "data", 0.0), method=method, steps=10)
    last = 1 - FlowConfig().t_eps if method == "dopri5" else 0.9
    assert max(backbone.times) == pytest.approx(last)


# -- accuracy, from the noise to the data


class Bent(nn.Module):
    """A network in float64 whose answer is linear in nothing."""

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        assert x_t.dtype == t.dtype == torch.float64
        assert condition.label is not None
        t, label = t.view(-1, 1, 1, 1), condition.label.view(-1, 1, 1, 1)
        return torch.sin(2 * x_t + label) + torch.cos(4 * t + x_t.flip(1))


LABELS, NULL = Condition(label=torch.zeros(3).long()), Condition(label=torch.tensor([1]))


def bent(prediction: Prediction = "velocity", **choices) -> Tensor:
    """Guided everywhere, at t = 1 as well."""
    config = SamplingConfig(scale=2.0, **choices)
    field = guided(Denoiser(Bent(), prediction, 0.0), NULL, config)
    return transport(field, NOISE.double(), LABELS, config, FlowConfig(prediction=prediction))


@pytest.fixture(scope="module")
def exact() -> Tensor:
    return bent(method="rk4", steps=400)


def error(x: Tensor, exact: Tensor) -> float:
    return float((x - exact).abs().max())


@pytest.mark.parametrize(
    ("method", "order"), [("euler", 1), ("heun", 2), ("midpoint", 2), ("rk4", 4)]
)
@pytest.mark.parametrize("shift", [1.0, 2.0])
def test_a_velocity_is_followed_to_the_end_with_the_order_of_its_solver(
    method, order, shift, exact
):
    errors = [error(bent(method=method, steps=n, shift=shift), exact) for n in (64, 128)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-6, 1e-9])
def test_dopri5_follows_a_velocity_to_the_end_within_its_tolerance(tolerance, exact):
    x = bent(method="dopri5", rtol=tolerance, atol=tolerance)
    assert error(x, exact) < 50 * tolerance


@pytest.mark.parametrize("prediction", ["velocity", "data"])
def test_dopri5_has_steps_of_its_own_whatever_the_number_of_steps(prediction):
    few, many = (bent(prediction, method="dopri5", steps=n, shift=n / 2) for n in (1, 50))
    assert torch.equal(few, many)


def test_dopri5_goes_to_1_minus_t_eps_and_in_one_step_to_the_data_predicted_there():
    config, times = SamplingConfig(scale=2.0), [0.95 * i / 250 for i in range(251)]
    field = guided(Denoiser(Bent(), "data", 0.0), NULL, config)

    def slope(t: float, x: Tensor) -> Tensor:
        return field(x, as_rows(t, len(x)), LABELS)

    x = solve(slope, NOISE.double(), times, "rk4")
    expected = x + 0.05 * slope(0.95, x)
    assert_close(bent("data", method="dopri5", rtol=1e-7, atol=1e-7), expected, rtol=0, atol=1e-4)


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


@pytest.mark.parametrize("method", ["euler", "heun", "rk4", "dopri5"])
def test_a_network_that_predicts_noise_ends_where_one_that_predicts_velocity_does(method):
    """Although what it is divided by is clamped near the noise, the noise does not stay."""
    noise = torch.randn(16, *SHAPE, generator=torch.Generator().manual_seed(0))
    config = SamplingConfig(method=method, steps=50)
    ends = []
    for prediction in ("velocity", "noise"):
        flow = FlowConfig(prediction=prediction)
        denoiser = Denoiser(PredictsVelocity(prediction), prediction, flow.t_eps)
        ends.append(transport(denoiser, noise, Condition(), config, flow))
    expected, found = ends
    assert (found - expected).abs().mean() / expected.std() < 0.0065  # 0.0075 where it stays
