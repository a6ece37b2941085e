"""Guidance: the formula, in one call of the field, within its interval."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from flowbrush.condition import Condition
from flowbrush.flow.guidance import Guided

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


def test_by_default_guidance_acts_from_the_noise_on():
    field = Field()
    Guided(field, NULL, 2.0)(X_T, at(0.0), LABELS)
    assert field.batches == [6]


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
