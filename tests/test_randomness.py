"""Every random number is a function of (seed, purpose, index), and of nothing else."""

import hashlib

import pytest
import torch

from flowbrush import randomness
from flowbrush.randomness import derive, normal, uniform

CPU = torch.device("cpu")


def test_a_derived_seed_is_the_same_for_ever():
    assert derive(0, "noise", 0) == 9_144_587_515_262_914_129


def test_a_derived_seed_is_63_bits_of_the_blake2b_hash():
    digest = hashlib.blake2b(b"7/times/640", digest_size=8).digest()
    assert derive(7, "times", 640) == int.from_bytes(digest, "little") // 2


@pytest.mark.parametrize("other", [(1, "noise", 5), (0, "times", 5), (0, "noise", 6)])
def test_seed_purpose_and_index_all_change_the_derived_seed(other):
    assert derive(*other) != derive(0, "noise", 5)


def test_ten_thousand_indices_have_ten_thousand_seeds():
    assert len({derive(0, "noise", i) for i in range(10_000)}) == 10_000


@pytest.mark.parametrize("seed", [0, 2**63 - 1])
def test_even_the_extreme_seeds_give_uniform_numbers_inside_the_open_interval(monkeypatch, seed):
    monkeypatch.setattr(randomness, "derive", lambda *_: seed)
    assert 0 < float(uniform(0, "times", [0])[0]) < 1


def test_uniform_numbers_are_uniformly_distributed():
    numbers = uniform(3, "times", range(10_000)).sort().values
    distance = (numbers - (torch.arange(10_000) + 0.5) / 10_000).abs().max()
    assert distance < 1.63 / 10_000**0.5  # Kolmogorov-Smirnov, one in a hundred


def test_a_uniform_number_depends_on_its_own_index_alone():
    assert uniform(0, "dropout", range(16))[5] == uniform(0, "dropout", [5])[0]


@pytest.mark.parametrize("shape", [(2,), (3, 5, 7), (3, 32, 32)])
def test_a_row_of_noise_is_the_same_alone_and_in_a_batch_of_sixteen(shape):
    batch = normal(range(16), shape, CPU)
    for seed, row in enumerate(batch):
        assert torch.equal(row, normal([seed], shape, CPU)[0])


def test_different_seeds_draw_uncorrelated_noise():
    noise = normal([derive(0, "noise", i) for i in range(8)], (10_000,), CPU)
    correlation = torch.corrcoef(noise) - torch.eye(8)
    assert correlation.abs().max() < 4 / 10_000**0.5


@pytest.mark.parametrize(
    ("power", "moment", "spread"), [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)]
)
def test_noise_has_the_moments_of_the_standard_normal(power, moment, spread):
    noise = normal([1, 2], (3, 100, 100), CPU).double()
    sigma = (spread / noise.numel()) ** 0.5  # of the estimate
    assert abs(float((noise**power).mean()) - moment) < 4 * sigma


def test_drawing_noise_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    normal([1], (4,), CPU)
    assert torch.equal(torch.get_rng_state(), before)
