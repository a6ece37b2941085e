from dataclasses import replace

import pytest
import torch
from torch import nn

from flowbrush.errors import UserError
from flowbrush.experiment import TrainConfig
from flowbrush.train.guard import YOUNG, Guard
from flowbrush.train.optimizer import build_optimizer, moments

CPU, CONFIG = torch.device("cpu"), TrainConfig(skip_above=10.0, most_skipped=3)


class Trained:
    """A network whose gradient is as long as one says."""

    def __init__(self, config: TrainConfig = CONFIG) -> None:
        self.network = nn.Linear(1, 1, bias=False)
        self.optimizer = build_optimizer(self.network, config)
        self.guard = Guard(self.optimizer, config, CPU)

    def step(self, norm: float) -> bool:
        """Whether it was skipped."""
        self.network.weight.grad = torch.full((1, 1), norm)
        return bool(self.guard.step(torch.tensor(abs(norm))))

    def steps(self, number: int, norm: float) -> None:
        for _ in range(number):
            assert not self.step(norm)

    def state(self) -> list[float]:
        found = moments(self.network, self.optimizer).values()
        return [self.network.weight.item(), *(moment.item() for moment in found)]


@pytest.mark.parametrize("norm", [float("nan"), float("inf")])
def test_a_step_that_is_not_finite_leaves_weight_moments_and_count(norm: float) -> None:
    trained = Trained()
    trained.steps(2, 1.0)
    before = trained.state()
    assert trained.step(norm)
    assert trained.state() == before
    trained.steps(1, 1.0)
    assert trained.state() != before


@pytest.mark.parametrize(("skip_above", "skipped"), [(10.0, True), (0.0, False)])
def test_a_gradient_many_times_as_long_as_usual_is_skipped(
    skip_above: float, skipped: bool
) -> None:
    trained = Trained(replace(CONFIG, skip_above=skip_above))
    trained.steps(YOUNG, 1.0)
    assert not trained.step(9.0)
    assert trained.step(12.0) == skipped


def test_a_young_run_may_have_gradients_of_any_length() -> None:
    trained = Trained()
    trained.steps(YOUNG - 1, 1.0)
    assert not trained.step(1_000.0)


def test_what_is_usual_follows_the_run() -> None:
    trained = Trained()
    trained.steps(YOUNG, 1.0)
    trained.steps(1_000, 5.0)
    assert not trained.step(45.0)


def test_skipped_steps_do_not_change_what_is_usual() -> None:
    trained = Trained()
    trained.steps(YOUNG, 1.0)
    for _ in range(500):
        assert trained.step(20.0)


def test_only_steps_in_a_row_stop_the_run() -> None:
    trained = Trained()
    for _ in range(5):
        trained.step(float("nan"))
        trained.step(float("nan"))
        trained.step(1.0)
    trained.guard.check()
    for _ in range(3):
        trained.step(float("nan"))
    trained.step(1.0)
    with pytest.raises(UserError, match=r"3 steps in a row were skipped.*--train\.lr"):
        trained.guard.check()
    assert trained.guard.summary().endswith(": 13")


def test_a_guard_goes_on_from_its_state() -> None:
    one, other = Trained(), Trained()
    one.steps(YOUNG, 1.0)
    one.step(float("nan"))
    for name, value in other.guard.state_dict().items():
        value.copy_(one.guard.state_dict()[name])
    assert other.step(12.0)
    other.step(float("nan"))
    with pytest.raises(UserError, match="3 steps in a row"):
        other.guard.check()


def test_a_run_whose_every_step_was_skipped_is_told_so() -> None:
    trained = Trained()
    trained.guard.check_any_taken()
    trained.step(float("nan"))
    with pytest.raises(UserError, match="all 1 steps were skipped"):
        trained.guard.check_any_taken()
    trained.step(1.0)
    trained.guard.check_any_taken()
