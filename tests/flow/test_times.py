"""The times of training and of solving, against their closed forms."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from flowbrush.errors import UserError
from flowbrush.flow.times import TimesConfig, grid, resolution_shift, shifted, stratify


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def normal_cdf(z: float) -> float:
    return (1 + math.erf(z / math.sqrt(2))) / 2


def sd3(t: float, shift: float) -> float:
    """Esser et al. 2024, eq. 23, with their noise at time 1: s' = a s / (1 + (a - 1) s)."""
    s = 1 - t
    return 1 - shift * s / (1 + (shift - 1) * s)


def test_uniform_times_are_the_uniform_numbers():
    u = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    assert_close(TimesConfig(distribution="uniform").sample(u, positions=64), u.float())


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (-0.6, 0.8), (1.0, 2.0)])
@pytest.mark.parametrize("z", [-3.0, -1.0, 0.0, 1.0, 3.0])  # 0 is the median, at sigmoid(mean)
def test_logit_normal_times_have_the_quantiles_of_the_formula(mean, std, z):
    u = torch.tensor([normal_cdf(z)], dtype=torch.float64)
    t = TimesConfig(distribution="logit_normal", mean=mean, std=std).sample(u, positions=64)
    assert_close(float(t[0]), sigmoid(mean + std * z), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0, 6.93])
@pytest.mark.parametrize("t", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_the_shift_is_that_of_stable_diffusion_3(t, shift):
    assert shifted(t, shift) == pytest.approx(sd3(t, shift), abs=1e-15)


def test_a_shift_above_one_moves_times_towards_the_noise():
    assert shifted(0.5, 3.0) == 0.25


def test_two_shifts_in_turn_are_their_product():
    assert shifted(shifted(0.3, 2.0), 5.0) == pytest.approx(shifted(0.3, 10.0))


@pytest.mark.parametrize(("positions", "shift"), [(256, 3.0), (1024, 6.0), (64, 1.5)])
def test_the_shift_grows_with_the_root_of_the_number_of_positions(positions, shift):
    assert resolution_shift(3.0, positions, reference=256) == pytest.approx(shift)


def test_without_a_reference_the_shift_is_the_same_at_every_resolution():
    assert resolution_shift(3.0, 1024, reference=None) == 3.0


@pytest.mark.parametrize("tokens", [256, 1024, 2304, 4096])
def test_the_exponential_law_is_the_dynamic_shift_of_flux(tokens: int) -> None:
    """Its exp(mu), mu from 0.5 at 256 tokens to 1.15 at 4096. A token is 4 positions."""
    flux = math.exp(0.5 + (1.15 - 0.5) * (tokens - 256) / (4096 - 256))
    shift = resolution_shift(math.exp(0.5), 4 * tokens, reference=1024, law="exponential")
    assert shift == pytest.approx(flux)
    assert shift == pytest.approx({256: 1.65, 1024: 1.88, 4096: 3.16}.get(tokens, shift), abs=0.005)
    config = TimesConfig(
        distribution="uniform",
        shift=math.exp(0.5),
        shift_reference=1024,
        shift_law="exponential",
    )
    drawn = config.sample(torch.tensor([0.3], dtype=torch.float64), positions=4 * tokens)
    assert float(drawn) == pytest.approx(sd3(0.3, flux))


def test_training_times_are_shifted_by_the_resolution():
    config = TimesConfig(distribution="uniform", shift=2.0, shift_reference=256)
    u = torch.tensor([0.2, 0.5], dtype=torch.float64)
    wanted = torch.tensor([sd3(0.2, 4.0), sd3(0.5, 4.0)])
    assert_close(config.sample(u, positions=1024), wanted)


@settings(deadline=None)
@given(
    first=st.floats(1e-9, 1 - 1e-9),
    second=st.floats(1e-9, 1 - 1e-9),
    distribution=st.sampled_from(["uniform", "logit_normal"]),
    shift=st.floats(0.1, 10),
)
def test_times_rise_with_the_uniform_number_and_stay_on_the_path(
    first, second, distribution, shift
):
    u = torch.tensor([min(first, second), max(first, second)], dtype=torch.float64)
    t = TimesConfig(distribution=distribution, shift=shift).sample(u, positions=64)
    assert 0 <= t[0] <= t[1] <= 1


@settings(deadline=None)
@given(b=st.integers(1, 64), part=st.integers(0, 63), within=st.floats(0.01, 0.99))
def test_a_stratified_batch_has_one_number_in_each_of_its_equal_parts(b, part, within):
    offset = (part % b + within) / b
    u = stratify(offset, torch.arange(b), b)
    assert sorted((u * b).floor().int().tolist()) == list(range(b))


@pytest.mark.parametrize("place", range(4))
def test_each_stratified_number_is_uniform_over_the_offsets(place):
    offsets = [(k + 0.5) / 100 for k in range(100)]
    places = torch.tensor([place])
    numbers = sorted(float(stratify(offset, places, 4)[0]) for offset in offsets)
    assert numbers == pytest.approx(offsets)


def test_stratified_numbers_stay_inside_the_open_interval():
    u = stratify(0.0, torch.tensor([0]), 4)
    assert 0 < float(u[0]) < 1


@pytest.mark.parametrize("stratified", [True, False])
def test_a_process_draws_for_its_part_of_a_batch_what_one_alone_would(stratified):
    config, batch = TimesConfig(stratified=stratified), list(range(32, 48))
    whole = config.draw(0, batch, b=16, positions=64)
    for rank in range(4):
        assert torch.equal(config.draw(0, batch[rank::4], b=16, positions=64), whole[rank::4])


@pytest.mark.parametrize("first", [0, 16, 160])
def test_the_times_of_a_batch_are_one_from_each_of_its_equal_parts(first):
    config = TimesConfig(distribution="uniform")
    t = config.draw(0, list(range(first, first + 16)), b=16, positions=64)
    assert sorted((t * 16).floor().int().tolist()) == list(range(16))


@pytest.mark.parametrize(("seed", "first"), [(0, 16), (1, 0)])
@pytest.mark.parametrize("stratified", [True, False])
def test_another_batch_and_another_seed_draw_other_times(stratified, seed, first):
    config = TimesConfig(stratified=stratified)
    one = config.draw(0, list(range(16)), b=16, positions=64).sort().values
    other = config.draw(seed, list(range(first, first + 16)), b=16, positions=64).sort().values
    assert (one - other).abs().max() > 1e-3


def test_drawn_times_are_shifted_by_the_resolution():
    config = TimesConfig(shift_reference=64)
    near = config.draw(0, [0, 1, 2, 3], b=4, positions=256)
    assert_close(near, shifted(config.draw(0, [0, 1, 2, 3], b=4, positions=64), 2.0))


def test_an_even_grid_has_equal_steps():
    assert grid(4, shift=1.0) == [0.0, 0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("shift", [0.3, 1.0, 3.0, 12.0])
@pytest.mark.parametrize("steps", [1, 2, 7, 50])
def test_a_grid_goes_from_exactly_zero_to_exactly_one(steps, shift):
    times = grid(steps, shift)
    assert (times[0], times[-1], len(times)) == (0.0, 1.0, steps + 1)


def test_a_grid_is_shifted_like_the_training_times():
    assert grid(5, shift=3.0) == pytest.approx([sd3(i / 5, 3.0) for i in range(6)])


@pytest.mark.parametrize("wrong", [{"std": 0.0}, {"std": -1.0}, {"shift": 0.0}, {"shift": -2.0}])
def test_a_spread_or_shift_that_is_not_positive_is_refused(wrong):
    with pytest.raises(UserError, match="must be above 0"):
        TimesConfig(**wrong)


@pytest.mark.parametrize("steps", [1, 4, 28])
def test_the_last_gap_gives_the_times_of_stable_diffusion_3_in_diffusers(steps: int) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(steps)
    ours = grid(steps, 3.0, last_gap=float(scheduler.sigma_min))
    assert torch.allclose(1 - torch.tensor(ours), scheduler.sigmas, atol=1e-6)
