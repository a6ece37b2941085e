import pytest
import torch
from torch import nn

from flowbrush.train.ema import EMA


def test_the_average_follows_its_formula() -> None:
    network = nn.Linear(1, 1, bias=False)
    network.weight.data.fill_(0.0)
    ema = EMA(network, decay=0.9)
    network.weight.data.fill_(1.0)
    ema.update(step=1_000)
    ema.update(step=1_001)
    assert ema.state_dict()["weight"].item() == pytest.approx(1 - 0.9**2)


def test_a_young_average_follows_closely() -> None:
    network = nn.Linear(1, 1, bias=False)
    network.weight.data.fill_(0.0)
    ema = EMA(network, decay=0.9999)
    network.weight.data.fill_(1.0)
    ema.update(step=0)
    assert ema.state_dict()["weight"].item() == pytest.approx(0.9)


def test_the_weights_come_back_to_the_bit() -> None:
    network = nn.Linear(3, 3)
    ema = EMA(network, decay=0.5)
    network.weight.data.add_(1.0)
    weights, averages = network.weight.clone(), ema.state_dict()["weight"].clone()
    with ema.in_place():
        assert torch.equal(network.weight, averages)
    assert torch.equal(network.weight, weights)
    assert torch.equal(ema.state_dict()["weight"], averages)
