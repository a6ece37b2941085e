"""A figure's line, and intervals from the jackknife."""

import math

import pytest
import scipy.stats
import torch

from flowbrush.evaluate.intervals import (
    UNKNOWN,
    Bias,
    Measured,
    Spread,
    binomial,
    blocks,
    cautions,
    groups_of,
    interval,
    jackknife,
    of_mean,
    of_share,
    ordered,
    student,
)


def measured(name: str, bias: Bias = "none", pictures: int = 1000) -> Measured:
    return Measured(name, 0.01234, 0.0101, 0.0145, pictures, "toy", "lower", bias)


def test_a_line_has_two_digits_of_the_interval_s_half_width():
    assert measured("KID").line == "KID 0.0123 (0.0101 to 0.0145), 1,000 pictures, toy"
    fid = Measured("FID", 104.271, 101.2, 107.3, 50_000, "toy", "lower", "upwards")
    assert fid.line == "FID 104.3 (101.2 to 107.3), 50,000 pictures, toy"


def test_a_line_without_an_interval_has_none():
    one = Measured("FID", 12.5, math.nan, math.nan, 5, "toy", "lower", "upwards")
    assert one.line == "FID 12.5000, 5 pictures, toy"


def test_biased_figures_of_few_pictures_come_last_with_a_caution():
    fid, kid, score = measured("FID", "upwards"), measured("KID"), measured("IS", "downwards")
    assert ordered([fid, kid, score]) == [kid, fid, score]
    assert cautions([fid, kid, score]) == [
        "FID of 1,000 pictures is biased upwards; compare it only with FID of as many",
        "IS of 1,000 pictures is biased downwards; compare it only with IS of as many",
    ]


def test_of_ten_thousand_pictures_figures_stay_in_their_order():
    fid, kid = measured("FID", "upwards", 10_000), measured("KID", "none", 10_000)
    assert ordered([fid, kid]) == [fid, kid]
    assert cautions([fid, kid]) == []


@pytest.mark.parametrize("freedom", [9.0, 19.0, 38.5, 1000.0])
def test_the_point_of_student_s_t_is_scipy_s(freedom):
    assert student(freedom) == pytest.approx(scipy.stats.t.ppf(0.975, freedom), abs=1e-3)


def test_the_jackknife_of_a_mean_is_its_squared_standard_error():
    x = torch.randn(37, generator=torch.Generator().manual_seed(0)).double()
    spread = jackknife((x.sum() - x) / 36, 37)
    assert spread == pytest.approx((float(x.var()) / 37, 36))


@pytest.mark.parametrize("count", [40, 57, 59])
def test_blocks_that_do_not_divide_the_pictures_give_the_same_variance_on_average(count):
    variances = []
    for seed in range(400):
        x = torch.randn(count, generator=torch.Generator().manual_seed(seed)).double()
        chosen = blocks(count, seed)
        size = chosen.shape[1]
        without = torch.stack([(x.sum() - x[rows].sum()) / (count - size) for rows in chosen])
        variances.append(jackknife(without, count, size).variance)
    assert sum(variances) / 400 * count == pytest.approx(1, abs=4 * (2 / 19 / 400) ** 0.5)


@pytest.mark.parametrize("count", [10, 19, 20, 57])
def test_blocks_are_equal_and_share_no_row(count):
    chosen = blocks(count, seed=0)
    assert chosen.shape == (min(20, count), count // min(20, count))
    assert len(chosen.unique()) == chosen.numel()
    assert 0 <= int(chosen.min()) <= int(chosen.max()) < count


def test_blocks_depend_on_the_seed_alone():
    assert torch.equal(blocks(100, 1), blocks(100, 1))
    assert not torch.equal(blocks(100, 1), blocks(100, 2))


def test_fewer_than_ten_pictures_give_no_interval():
    assert len(blocks(9, 0)) == 0
    assert math.isnan(jackknife(torch.randn(9).double(), 9).variance)
    assert math.isnan(binomial(0.5, 9).variance)
    assert all(math.isnan(end) for end in interval(1.0, Spread(1.0, 9.0), UNKNOWN))


def test_variances_of_two_sets_add_with_welch_s_degrees_of_freedom():
    # equal variances and freedoms: the freedoms add
    low, high = interval(3.0, Spread(2.0, 10), Spread(2.0, 10))
    assert (low + high) / 2 == pytest.approx(3)
    assert (high - low) / 2 == pytest.approx(2 * scipy.stats.t.ppf(0.975, 20), abs=1e-3)


def test_an_interval_stays_within_its_bounds():
    assert interval(0.5, Spread(1.0, 50), within=(0.0, 1.0)) == (0.0, 1.0)


def test_without_variance_an_interval_is_a_point():
    assert interval(0.5, Spread(0.0, 50), Spread(0.0, 50)) == (0.5, 0.5)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_variance_of_none_and_of_all_is_not_zero(share):
    assert binomial(share, 100).variance > 0


def repeated(seed: int, sizes: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows around their groups' own means, both of variance 1; the number of each row's group."""
    generator = torch.Generator().manual_seed(seed)
    groups = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    means = torch.randn(len(sizes), generator=generator).double()
    return means[groups] + torch.randn(len(groups), generator=generator).double(), groups


@pytest.mark.parametrize("sizes", [[15] * 17, [1, 2, 3, 4, 5] * 8, [1] * 30])
def test_the_interval_of_a_mean_covers_where_rows_come_in_groups(sizes):
    ends = [of_mean(*repeated(seed, sizes))[1:] for seed in range(400)]
    assert 0.92 <= sum(low < 0 < high for low, high in ends) / 400 <= 0.98


@pytest.mark.parametrize("sizes", [[15] * 30, [1, 2, 3, 4, 5] * 8, [1] * 40])
def test_the_interval_of_a_share_covers_where_rows_come_in_groups(sizes):
    drawn = [repeated(seed, sizes) for seed in range(400)]
    ends = [of_share(rows > 0, groups)[1:] for rows, groups in drawn]
    assert 0.92 <= sum(low < 0.5 < high for low, high in ends) / 400 <= 0.99


def test_groups_of_one_row_change_no_interval():
    rows = torch.randn(30, generator=torch.Generator().manual_seed(0)).double()
    assert of_mean(rows, torch.arange(30)) == of_mean(rows)
    assert of_share(rows > 0, torch.arange(30)) == of_share(rows > 0)


def test_rows_of_few_groups_give_no_interval():
    rows, groups = torch.randn(90).double(), torch.arange(90) % 9
    assert math.isnan(of_mean(rows, groups)[1])
    assert math.isnan(of_share(rows > 0, groups)[1])


def test_a_share_of_all_counts_the_groups_not_their_rows():
    groups = torch.arange(300) % 20
    assert of_share(torch.ones(300, dtype=torch.bool), groups)[1] == pytest.approx(
        of_share(torch.ones(20, dtype=torch.bool))[1]
    )


def test_equal_rows_are_a_group():
    assert groups_of("abacb").tolist() == [0, 1, 0, 2, 1]
