from dataclasses import replace

import pytest
import torch
from torch import nn

from flowbrush.experiment import TrainConfig
from flowbrush.train.optimizer import build_optimizer, learning_rate, moments
from flowbrush.train.parallel import clipped

BASE = TrainConfig(pictures=1_000, lr=1.0, warmup=100)


def test_the_learning_rate_rises_from_nothing_over_the_warm_up() -> None:
    assert [learning_rate(BASE, seen) for seen in (0, 50, 100)] == [0.0, 0.5, 1.0]


@pytest.mark.parametrize(
    ("schedule", "middle", "end"),
    [("constant", 1.0, 1.0), ("linear", 0.5, 0.0), ("cosine", 0.5, 0.0)],
)
def test_the_learning_rate_falls_as_its_schedule_says(schedule, middle, end) -> None:
    config = replace(BASE, schedule=schedule)
    assert learning_rate(config, 550) == pytest.approx(middle)
    assert learning_rate(config, 1_000) == pytest.approx(end)


def test_weight_decay_falls_on_matrices_only() -> None:
    network = nn.Linear(2, 2)
    optimizer = build_optimizer(network, replace(BASE, weight_decay=0.1))
    decay = {
        id(w): group["weight_decay"] for group in optimizer.param_groups for w in group["params"]
    }
    assert decay == {id(network.weight): 0.1, id(network.bias): 0.0}


def test_the_first_step_is_short_where_eps_is_large() -> None:
    """Adam's first step is lr * g / (|g| + eps)."""
    for eps, step in ((1e-15, 1.0), (1.0, 1e-3 / 1.001)):
        weight = nn.Parameter(torch.zeros(1, 1))
        network = nn.ParameterList([weight])
        optimizer = build_optimizer(network, replace(BASE, eps=eps))
        weight.grad = torch.full_like(weight, 1e-3)
        optimizer.step()
        assert weight.item() == pytest.approx(-step)


def test_an_optimizer_goes_on_from_its_state_to_the_bit() -> None:
    torch.manual_seed(0)
    network = nn.Linear(4, 4)
    optimizer = build_optimizer(network, BASE)
    network(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    weights = [w.clone() for w in network.parameters()]
    state = {name: moment.clone() for name, moment in moments(network, optimizer).items()}
    other = nn.Linear(4, 4)
    with torch.no_grad():
        for own, given in zip(other.parameters(), weights, strict=True):
            own.copy_(given)
            own.grad = torch.full_like(own, 0.5)
    again = build_optimizer(other, BASE)
    for name, moment in moments(other, again).items():
        moment.copy_(state[name])
    for w in network.parameters():
        w.grad = torch.full_like(w, 0.5)
    optimizer.step()
    again.step()
    assert all(
        torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters(), strict=True)
    )


@pytest.mark.parametrize(("most", "after"), [(1.0, 0.6), (100.0, 3.0), (0.0, 3.0)])
def test_a_gradient_is_clipped_to_its_largest_norm_and_not_at_all_by_0(
    most: float, after: float
) -> None:
    network = nn.Linear(2, 1, bias=False)
    network.weight.grad = torch.tensor([[3.0, 4.0]])
    assert float(clipped(network, most)) == 5.0
    assert float(network.weight.grad[0, 0]) == pytest.approx(after)
