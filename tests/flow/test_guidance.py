"""Guidance: the formula, in one call of the field, within its interval."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from flowbrush.condition import Condition
from flowbrush.flow.guidance import Guided, guided_at
from flowbrush.flow.solvers import solve
from flowbrush.flow.times import grid

X_T = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS, NULL = Condition(label=torch.tensor([0, 1, 2])), Condition(label=torch.tensor([9]))


def at(t: float) -> Tensor:
    return torch.full((3,), t)


class Field:
    """A velocity that depends on picture, time and label; it remembers the size of each batch it
    saw."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        self.batches.append(len(x_t))
        assert condition.label is not None
        return torch.sin(x_t * (1.0 + condition.label + t).view(-1, 1, 1, 1))


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 2.5, 7.0])
def test_guidance_is_its_formula_over_two_separate_passes(scale):
    given = Field()(X_T, at(0.4), LABELS)
    null = Field()(X_T, at(0.4), NULL.expanded(3))
    guided = Guided(Field(), NULL, scale)(X_T, at(0.4), LABELS)
    assert_close(guided, null + scale * (given - null))


def test_a_field_that_ignores_the_condition_is_not_changed_by_guidance():
    guided = Guided(lambda x_t, t, condition: -x_t, NULL, 7.0)
    assert_close(guided(X_T, at(0.4), LABELS), -X_T)


def test_both_passes_are_one_batch_inside_the_interval():
    field = Field()
    Guided(field, NULL, 2.0, (0.2, 0.8))(X_T, at(0.5), LABELS)
    assert field.batches == [6]


def test_there_is_one_pass_outside_the_interval():
    field = Field()
    Guided(field, NULL, 2.0, (0.2, 0.8))(X_T, at(0.9), LABELS)
    assert field.batches == [3]


def test_a_scale_of_one_needs_no_second_pass():
    field = Field()
    Guided(field, NULL, 1.0)(X_T, at(0.5), LABELS)
    assert field.batches == [3]


@pytest.mark.parametrize("t", [0.0, 0.24, 0.75, 1.0])
def test_outside_the_interval_the_velocity_is_the_given_one(t):
    guided = Guided(Field(), NULL, 2.0, (0.25, 0.75))(X_T, at(t), LABELS)
    assert torch.equal(guided, Field()(X_T, at(t), LABELS))


@pytest.mark.parametrize(
    ("t", "size"), [(0.24, 3), (0.25, 6), (0.5, 6), (0.74, 6), (0.75, 3), (0.76, 3)]
)
def test_the_interval_includes_its_low_end_and_excludes_its_high_one(t, size):
    field = Field()
    Guided(field, NULL, 2.0, (0.25, 0.75))(X_T, at(t), LABELS)
    assert field.batches == [size]


@pytest.mark.parametrize("t", [0.0, 1.0])
def test_by_default_guidance_acts_from_the_noise_to_the_data(t):
    field = Field()
    Guided(field, NULL, 2.0)(X_T, at(t), LABELS)
    assert field.batches == [6]


@pytest.mark.parametrize("interval", [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0)])
def test_an_empty_interval_has_no_time_in_it(interval):
    t = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    assert not guided_at(t, interval).any()
    assert not guided_at(t, interval, open_low=True).any()


def test_rows_at_different_times_are_guided_each_by_its_own():
    guided, t = Guided(Field(), NULL, 2.0, (0.25, 0.75)), torch.tensor([0.1, 0.5, 0.8])
    alone = [guided(X_T[i : i + 1], t[i : i + 1], LABELS.rows(torch.tensor([i]))) for i in range(3)]
    assert_close(guided(X_T, t, LABELS), torch.cat(alone))
    assert torch.equal(guided(X_T, t, LABELS)[2], Field()(X_T, t, LABELS)[2])


# -- the ends of the interval, against exact arithmetic

CHOICES = [(0.0, 1.0), (0.1, 1.0), (0.7, 0.9), (0.2, 0.7), (0.1, 0.8), (0.05, 0.95), (0.3, 0.6)]
STAGES = {  # of a step, in halves of it: where a method asks
    "euler": [0],
    "heun": [0, 2],
    "midpoint": [0, 1],
    "rk4": [0, 1, 1, 2],
}
Ratio = tuple[Tensor, Tensor]  # of whole numbers


def exact_times(steps: int, shift: int, method: str) -> Ratio:
    """Where each stage is, t -> t / (t + shift (1 - t)), in whole numbers alone."""
    i = torch.arange(steps + 1)
    above, below = i, i + shift * (steps - i)
    (a, c), (b, d) = (above[:-1], above[1:]), (below[:-1], below[1:])
    halves = torch.tensor(STAGES[method])[:, None]
    times = (2 - halves) * a * d + halves * c * b, (2 * b * d).expand(len(halves), -1)
    return times[0].T.flatten(), times[1].T.flatten()


def exactly_guided(t: Ratio, interval: tuple[float, float], open_low: bool) -> Tensor:
    (above, below), (low, high) = t, (round(1000 * end) for end in interval)
    after, before = 1000 * above - low * below, high * below - 1000 * above
    begun = (after > 0) | ((after == 0) & (low == 0)) if open_low else after >= 0
    return begun & ((before > 0) | ((before == 0) & (high == 1000)))


@pytest.mark.parametrize(
    ("method", "shift"), [("euler", 1), ("heun", 1), ("midpoint", 1), ("rk4", 1), ("rk4", 3)]
)
def test_every_stage_of_1_to_200_steps_is_guided_as_exact_arithmetic_says(method, shift):
    asked: list[float] = []
    for steps in range(1, 201):
        times = grid(steps, float(shift))
        solve(lambda t, x: asked.append(t) or x, torch.zeros(1, 1), times, method)
    each = [exact_times(steps, shift, method) for steps in range(1, 201)]
    exact = tuple(torch.cat(part) for part in zip(*each, strict=True))
    for interval in CHOICES:
        for open_low in (False, True):
            guided = guided_at(torch.tensor(asked, dtype=torch.float64), interval, open_low)
            assert torch.equal(guided, exactly_guided(exact, interval, open_low)), interval


def test_ten_steps_from_0_7_to_0_9_guide_two():
    times = torch.tensor(grid(10, 1.0), dtype=torch.float64)
    assert guided_at(times, (0.7, 0.9)).nonzero().flatten().tolist() == [7, 8]


def test_times_of_float32_are_as_near_to_an_end_as_their_dtype_tells():
    times = torch.arange(11, dtype=torch.float32) / 10
    assert guided_at(times, (0.7, 0.9)).nonzero().flatten().tolist() == [7, 8]


@pytest.mark.parametrize("interval", [(0.1, 1.0), (0.1, 0.9), (0.2, 0.7)])
def test_at_its_published_50_steps_jit_guides_the_same_ones(interval):
    """JiT: (t < high) & ((low == 0) | (t > low)) on float32 times (Li & He 2025)."""
    low, high = interval
    theirs = torch.linspace(0.0, 1.0, 51)[:-1]
    published = (theirs < high) & ((low == 0) | (theirs > low))
    ours = torch.tensor(grid(50, 1.0)[:-1], dtype=torch.float64)
    assert guided_at(ours, interval, open_low=True).tolist() == published.tolist()


def test_texts_and_a_null_text_of_another_length_meet_in_one_batch():
    def mean_of_real_tokens(x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        text, mask = condition.text, condition.text_mask
        assert text is not None
        real = torch.ones(text.shape[:2]) if mask is None else mask.float()
        mean = (text.mean(dim=2) * real).sum(dim=1) / real.sum(dim=1)
        return mean.view(-1, 1, 1, 1).expand_as(x_t)

    text = torch.full((3, 2, 5), 3.0)
    guided = Guided(mean_of_real_tokens, Condition(text=torch.ones(1, 4, 5)), 2.0)
    assert_close(guided(X_T, at(0.5), Condition(text=text)), torch.full_like(X_T, 1 + 2 * (3 - 1)))
