"""Solvers against equations with known solutions."""

import math
from collections.abc import Callable

import pytest
import torch
import torchdiffeq
from torch import Tensor
from torch.testing import assert_close

from flowbrush.errors import UserError
from flowbrush.flow.solvers import METHODS, STEPS, dopri5, solve

FIXED = {"euler": (1, 1), "heun": (2, 2), "midpoint": (2, 2), "rk4": (4, 4)}  # order, evaluations
ONE = torch.ones(1, 1, dtype=torch.float64)


def swinging(t: float | Tensor, x: Tensor) -> Tensor:
    """dx/dt = x cos t, solved by x = x(0) exp(sin t)."""
    return x * torch.as_tensor(t).double().cos().view(-1, 1)


def pendulum(t: float | Tensor, x: Tensor) -> Tensor:
    """A driven pendulum in each row: nothing about it is linear."""
    angle, speed = x[:, 0], x[:, 1]
    return torch.stack([speed, -torch.sin(angle) + 0.5 * torch.cos(2 * torch.as_tensor(t))], dim=1)


def even(steps: int, end: float) -> list[float]:
    return [end * i / steps for i in range(steps + 1)]


def counted(slope: Callable) -> tuple[Callable, list[float | Tensor]]:
    """The slope, and the times at which it was asked for."""
    asked: list[float | Tensor] = []

    def count(t: float | Tensor, x: Tensor) -> Tensor:
        asked.append(t)
        return slope(t, x)

    return count, asked


def test_every_fixed_step_method_has_its_order_tested_here():
    assert set(FIXED) == set(STEPS)
    assert set(METHODS) == {*STEPS, "dopri5"}


@pytest.mark.parametrize("times", [[0.0, 1.0], [0.0, 0.1, 0.45, 1.0], [0.25, 0.3, 0.75]])
@pytest.mark.parametrize("method", METHODS)
def test_a_straight_flow_is_solved_exactly_by_every_solver(method, times):
    generator = torch.Generator().manual_seed(0)
    noise, data = torch.randn(2, 3, 2, 4, 4, generator=generator, dtype=torch.float64)
    begin, end = (t * data + (1 - t) * noise for t in (times[0], times[-1]))
    assert_close(solve(lambda t, x: data - noise, begin, times, method), end)


@pytest.mark.parametrize("method", FIXED)
def test_halving_the_step_divides_the_error_by_two_to_the_order(method):
    exact = math.exp(math.sin(2.0))
    errors = [
        abs(float(solve(swinging, ONE, even(steps, 2.0), method)) - exact)
        for steps in (32, 64, 128, 256)
    ]
    order = math.log2(errors[0] / errors[-1]) / 3
    assert order == pytest.approx(FIXED[method][0], abs=0.15)


@pytest.mark.parametrize("method", FIXED)
def test_a_step_costs_the_evaluations_that_the_method_is_known_for(method):
    slope, asked = counted(swinging)
    solve(slope, ONE, even(5, 1.0), method)
    assert len(asked) == 5 * FIXED[method][1]


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-7, 1e-9])
def test_dopri5_keeps_to_its_tolerance(tolerance):
    x = dopri5(swinging, ONE, 0.0, 2.0, rtol=tolerance, atol=tolerance)
    assert abs(float(x) - math.exp(math.sin(2.0))) < 10 * tolerance


def test_dopri5_is_exact_for_the_integral_of_a_polynomial_of_degree_four():
    x = dopri5(lambda t, x: 5 * t.view(-1, 1) ** 4, ONE, 0.0, 1.0, rtol=1e-3, atol=1e-3)
    assert_close(x, 2 * ONE)


def test_a_step_of_dopri5_costs_six_evaluations_after_the_first():
    slope, asked = counted(lambda t, x: torch.ones_like(x))
    dopri5(slope, ONE, 0.0, 0.01, rtol=1e-3, atol=1e-3)
    assert len(asked) == 1 + 6


def test_dopri5_takes_more_steps_for_a_finer_tolerance():
    costs = []
    for tolerance in (1e-3, 1e-6, 1e-9):
        slope, asked = counted(pendulum)
        dopri5(slope, torch.ones(1, 2).double(), 0.0, 5.0, tolerance, tolerance)
        costs.append(len(asked))
    assert costs == sorted(set(costs))


def test_dopri5_ends_exactly_at_the_end():
    slope, asked = counted(swinging)
    dopri5(slope, ONE, 0.1, 0.7, rtol=1e-6, atol=1e-6)
    assert max(map(float, asked)) == 0.7


@pytest.mark.parametrize("tolerance", [1e-4, 1e-6, 1e-8])
def test_dopri5_agrees_with_that_of_torchdiffeq(tolerance):
    begin = torch.tensor([[1.0, 0.0], [-2.0, 0.5], [3.0, 1.0]], dtype=torch.float64)
    theirs = torchdiffeq.odeint(
        pendulum, begin, torch.tensor([0.0, 5.0]).double(), rtol=tolerance, atol=tolerance
    )[-1]
    ours = dopri5(pendulum, begin, 0.0, 5.0, tolerance, tolerance)
    assert_close(ours, theirs, rtol=40 * tolerance, atol=40 * tolerance)


@pytest.mark.parametrize("tolerance", [1e-2, 1e-5])
def test_each_row_takes_the_steps_that_it_takes_alone_and_ends_at_the_same_bits(tolerance):
    """Rates from an easy row to one that needs many steps, some of them tried in vain."""
    rates = torch.tensor([[0.0], [3.0], [30.0], [300.0]], dtype=torch.float64)
    begin = 1 + torch.arange(4, dtype=torch.float64).view(4, 1)

    def solved(rows: list[int]) -> tuple[Tensor, list[set[float]]]:
        slope, asked = counted(lambda t, x: -rates[rows] * torch.sin(x) * (1 + t.view(-1, 1)))
        x = dopri5(slope, begin[rows], 0.0, 1.0, tolerance, tolerance)
        return x, [{float(times[i]) for times in asked} for i in range(len(rows))]

    alone = [solved([i]) for i in range(4)]
    for rows in ([0, 1, 2, 3], [3, 1], [2, 0, 3, 1]):
        x, times = solved(rows)
        assert torch.equal(x, torch.cat([alone[i][0] for i in rows]))
        assert times == [alone[i][1][0] for i in rows]
    counts = [len(own[1][0]) for own in alone]
    assert counts == sorted(set(counts))


def test_easy_rows_do_not_hide_the_error_of_a_hard_one():
    rates = torch.tensor([[30.0]] + [[0.0]] * 63, dtype=torch.float64)
    alone = dopri5(lambda t, x: -rates[:1] * x, ONE, 0.0, 1.0, rtol=1e-6, atol=1e-6)
    batch = dopri5(lambda t, x: -rates * x, ONE.expand(64, 1), 0.0, 1.0, rtol=1e-6, atol=1e-6)
    assert_close(batch[:1], alone, rtol=0, atol=1e-12)


def test_dopri5_gives_up_on_a_slope_that_is_not_a_number():
    with pytest.raises(UserError, match="dopri5: the error stays above the tolerance at t = 0"):
        dopri5(lambda t, x: x * float("nan"), ONE, 0.0, 1.0, rtol=1e-3, atol=1e-3)


def test_an_unknown_method_is_refused_with_the_nearest_name():
    with pytest.raises(UserError, match=r"'huen' is not one of euler, .*; did you mean 'heun'\?"):
        solve(swinging, ONE, [0.0, 1.0], "huen")
