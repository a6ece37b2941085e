"""The straight path, and the conversions between what a network may predict about it."""

from itertools import product

import pytest
import torch
from torch.testing import assert_close

from flowbrush.flow.path import convert, from_velocity, interpolate, to_velocity, truth

KINDS = ("velocity", "data", "noise")
PAIRS = list(product(KINDS, KINDS))
GENERATOR = torch.Generator().manual_seed(0)
DATA, NOISE = torch.randn(2, 9, 3, 4, 5, generator=GENERATOR, dtype=torch.float64)
T = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)  # away from the clamp at 0.05
X_T = interpolate(DATA, NOISE, T)


def test_the_path_begins_at_the_noise():
    assert torch.equal(interpolate(DATA, NOISE, torch.zeros(9)), NOISE)


def test_the_path_ends_at_the_data():
    assert torch.equal(interpolate(DATA, NOISE, torch.ones(9)), DATA)


def test_each_row_is_at_its_own_time():
    data, noise = torch.full((3, 1, 1, 1), 10.0), torch.full((3, 1, 1, 1), 2.0)
    x_t = interpolate(data, noise, torch.tensor([0.25, 0.5, 0.75]))
    assert x_t.flatten().tolist() == [4, 6, 8]


def test_the_velocity_is_the_derivative_of_the_path():
    later, earlier = interpolate(DATA, NOISE, T + 0.05), interpolate(DATA, NOISE, T - 0.05)
    assert_close(truth("velocity", DATA, NOISE), (later - earlier) / 0.1)


@pytest.mark.parametrize(("kind", "wanted"), PAIRS)
def test_a_true_prediction_is_true_in_every_other_kind(kind, wanted):
    converted = convert(truth(kind, DATA, NOISE), kind, wanted, X_T, T, 0.05)
    assert_close(converted, truth(wanted, DATA, NOISE))


@pytest.mark.parametrize(("kind", "wanted"), PAIRS)
def test_any_prediction_survives_the_way_there_and_back(kind, wanted):
    said = torch.randn(DATA.shape, generator=torch.Generator().manual_seed(1)).double()
    there = convert(said, kind, wanted, X_T, T, 0.05)
    assert_close(convert(there, wanted, kind, X_T, T, 0.05), said)


@pytest.mark.parametrize("kind", KINDS)
def test_the_true_velocity_points_at_the_true_prediction_at_any_time(kind):
    t = torch.linspace(0, 1, 9, dtype=torch.float64)
    x_t = interpolate(DATA, NOISE, t)
    said = from_velocity(DATA - NOISE, kind, x_t, t)
    assert_close(said, truth(kind, DATA, NOISE))


@pytest.mark.parametrize("gap", [0.0, 1e-3, 0.04, 0.05])
def test_the_gap_to_the_data_is_clamped_near_the_data(gap):
    velocity = to_velocity(DATA, "data", X_T, torch.full((9,), 1 - gap, dtype=torch.float64), 0.05)
    assert_close(velocity, (DATA - X_T) / 0.05)


@pytest.mark.parametrize("gap", [0.0, 1e-3, 0.04, 0.05])
def test_the_gap_to_the_noise_is_clamped_near_the_noise(gap):
    velocity = to_velocity(NOISE, "noise", X_T, torch.full((9,), gap, dtype=torch.float64), 0.05)
    assert_close(velocity, (X_T - (1 - gap) * NOISE) / 0.05 - NOISE)


@pytest.mark.parametrize(
    ("kind", "t"), [("data", 0.94), ("data", 0.0), ("noise", 0.06), ("noise", 1.0)]
)
def test_the_clamp_is_out_of_force_beyond_its_gap(kind, t):
    said, times = truth(kind, DATA, NOISE), torch.full((9,), t, dtype=torch.float64)
    velocity = to_velocity(said, kind, interpolate(DATA, NOISE, times), times, 0.05)
    assert_close(velocity, DATA - NOISE)


@pytest.mark.parametrize("t", [0.0, 1.0])
def test_a_predicted_velocity_is_never_clamped(t):
    assert torch.equal(to_velocity(DATA, "velocity", X_T, torch.full((9,), t), 0.05), DATA)


def test_pictures_keep_their_dtype_beside_times_of_another():
    assert interpolate(DATA.float(), NOISE.float(), T).dtype == torch.float32
