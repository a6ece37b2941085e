import pytest
import torch
from torch import nn

from flowbrush.averages import exponent
from flowbrush.train.ema import EMA, exponential, power, warmed_up


def test_the_average_follows_its_formula() -> None:
    network = nn.Linear(1, 1, bias=False)
    network.weight.data.fill_(0.0)
    ema = EMA(network, exponential(0.9))
    network.weight.data.fill_(1.0)
    ema.update(step=0)
    ema.update(step=1)
    assert ema.state_dict()["weight"].item() == pytest.approx(1 - 0.9**2)


@pytest.mark.parametrize(("step", "share"), [(0, 0.9), (100_000, 1e-4)])
def test_an_average_that_warms_up_follows_closely_at_first(step: int, share: float) -> None:
    network = nn.Linear(1, 1, bias=False)
    network.weight.data.fill_(0.0)
    ema = EMA(network, warmed_up(0.9999))
    network.weight.data.fill_(1.0)
    ema.update(step)
    assert ema.state_dict()["weight"].item() == pytest.approx(share, rel=1e-3)


def test_the_weights_come_back_to_the_bit() -> None:
    network = nn.Linear(3, 3)
    ema = EMA(network, exponential(0.5))
    network.weight.data.add_(1.0)
    weights, averages = network.weight.clone(), ema.state_dict()["weight"].clone()
    with ema.in_place():
        assert torch.equal(network.weight, averages)
    assert torch.equal(network.weight, weights)
    assert torch.equal(ema.state_dict()["weight"], averages)


@pytest.mark.parametrize("length", [0.05, 0.1, 0.25])
def test_a_power_average_weighs_each_step_by_the_integral_of_its_profile(length: float) -> None:
    network = nn.Linear(4, 1, bias=False).double()
    ema, seen = EMA(network, power(length)), torch.randn(50, 1, 4, dtype=torch.float64)
    for step, weight in enumerate(seen):
        network.weight.data.copy_(weight)
        ema.update(step)
    edges = (torch.arange(51, dtype=torch.float64) / 50) ** (exponent(length) + 1)
    unrolled = (edges.diff()[:, None, None] * seen).sum(0)
    torch.testing.assert_close(ema.state_dict()["weight"], unrolled, rtol=1e-12, atol=1e-12)


def test_a_power_average_forgets_its_untrained_start_at_the_first_step() -> None:
    network = nn.Linear(1, 1, bias=False)
    ema = EMA(network, power(0.1))
    network.weight.data.fill_(7.0)
    ema.update(step=0)
    assert ema.state_dict()["weight"].item() == 7.0
