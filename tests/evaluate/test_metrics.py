"""Figures of painted pictures: against closed forms, naive loops, other implementations; and
whether their intervals cover."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

import flowbrush.evaluate.metrics as metrics
from flowbrush.errors import UserError
from flowbrush.evaluate.gaussian import Gaussian, Moments, frechet_distance, gaussian
from flowbrush.evaluate.intervals import Measured, interval, jackknife
from flowbrush.evaluate.metrics import (
    clip_score,
    cmmd,
    cmmd_unbiased,
    fid,
    inception_score,
    kid,
    precision,
    recall,
)

PAIRED = [fid, kid, cmmd, cmmd_unbiased, precision, recall, clip_score]


def drawn(count: int, width: int, seed: int, mean: float = 0.0, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return mean + scale * torch.randn(count, width, generator=generator, dtype=torch.float64)


def random_gaussian(width: int, seed: int) -> Gaussian:
    a = drawn(width, width, seed)
    return Gaussian(drawn(1, width, seed + 1)[0], a @ a.T, 1000)


def ends(one: Measured) -> tuple[float, float]:
    return one.low, one.high


def coverage(figures: Iterator[Measured], truth: float) -> float:
    inside = [one.low <= truth <= one.high for one in figures]
    return sum(inside) / len(inside)


# The Frechet distance


def test_the_frechet_distance_of_diagonal_gaussians_is_that_of_their_deviations():
    s, t = torch.tensor([[1.0, 2.0, 0.5], [3.0, 0.0, 0.25]]).double()
    m, n = torch.tensor([[0.0, 1.0, -1.0], [0.5, 1.0, 2.0]]).double()
    wanted = (m - n).square().sum() + (s - t).square().sum()
    found = frechet_distance(Gaussian(m, s.square().diag(), 9), Gaussian(n, t.square().diag(), 9))
    assert found == pytest.approx(float(wanted), abs=1e-6)


def test_the_frechet_distance_of_commuting_covariances_is_that_of_their_roots():
    turn = torch.linalg.qr(drawn(6, 6, 0)).Q
    s, t = drawn(2, 6, 1).abs()
    a = Gaussian(torch.zeros(6).double(), turn @ s.square().diag() @ turn.T, 9)
    b = Gaussian(torch.ones(6).double(), turn @ t.square().diag() @ turn.T, 9)
    assert frechet_distance(a, b) == pytest.approx(6 + float((s - t).square().sum()), abs=1e-6)


def test_the_frechet_distance_is_scipy_s_matrix_root_s():
    a, b = random_gaussian(12, 0), random_gaussian(12, 5)
    root = scipy.linalg.sqrtm((a.covariance @ b.covariance).numpy()).real
    wanted = (a.mean - b.mean).square().sum() + (a.covariance + b.covariance).trace()
    assert frechet_distance(a, b) == pytest.approx(float(wanted) - 2 * np.trace(root), abs=1e-6)
    assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b), abs=1e-6)


def test_the_frechet_distance_to_itself_is_zero():
    one = gaussian(drawn(8, 20, 0))  # fewer rows than columns: singular
    assert 0 <= frechet_distance(one, one) < 1e-5


class Same(nn.Module):
    """A `network` whose features are its pictures."""

    num_features = 6

    def forward(self, x: Tensor) -> Tensor:
        return x


def test_fid_is_that_of_torchmetrics():
    x, y = drawn(90, 6, 0, mean=0.3), drawn(70, 6, 1) @ drawn(6, 6, 2)
    peer = FrechetInceptionDistance(feature=Same()).set_dtype(torch.float64)
    peer.update(y, real=True)
    peer.update(x, real=False)
    assert fid(x, y, "toy").value == pytest.approx(float(peer.compute()), rel=1e-6)


@pytest.mark.parametrize("sizes", [[50], [1, 49], [17, 1, 30, 2], [0, 50]])
def test_streamed_moments_are_those_of_numpy(sizes):
    x = drawn(50, 4, 0, mean=1e3)
    moments = Moments(4)
    for batch in x.split(sizes):
        moments.add(batch)
    found = moments.gaussian()
    assert found.count == 50
    assert np.allclose(found.mean, x.mean(dim=0), rtol=1e-12)
    assert np.allclose(found.covariance, np.cov(x.numpy(), rowvar=False), atol=1e-9)


def test_a_gaussian_does_not_change_when_more_pictures_are_added():
    moments = Moments(3)
    moments.add(drawn(10, 3, 0))
    before = moments.gaussian()
    kept = before.mean.clone()
    moments.add(drawn(10, 3, 1, mean=5))
    assert torch.equal(before.mean, kept)


def test_fid_leaves_out_blocks_as_if_it_had_not_seen_them():
    x = drawn(33, 4, 0, mean=2)
    chosen = torch.arange(30).view(10, 3)
    for rows, found in zip(chosen, metrics._without_each(x, chosen), strict=True):
        kept = torch.ones(33, dtype=torch.bool)
        kept[rows] = False
        wanted = gaussian(x[kept])
        assert found.count == 30
        assert torch.allclose(found.mean, wanted.mean)
        assert torch.allclose(found.covariance, wanted.covariance)


def test_fid_of_known_real_moments_has_the_narrower_interval():
    x, y = drawn(100, 4, 0, mean=0.5), drawn(100, 4, 1)
    both, known = fid(x, y, "toy"), fid(x, gaussian(y), "toy")
    assert both.value == known.value
    assert known.high - known.low < both.high - both.low


def test_fid_of_painted_moments_has_no_interval():
    one = fid(gaussian(drawn(100, 4, 0)), drawn(100, 4, 1), "toy")
    assert math.isnan(one.low)
    assert math.isnan(one.high)
    assert one.pictures == 100


def test_fid_says_when_its_covariance_is_singular_and_what_it_is_called():
    few = fid(drawn(12, 16, 0), drawn(50, 16, 1), "DINOv2", name="FD-DINOv2")
    assert few.line.startswith("FD-DINOv2 ")
    assert few.by == "DINOv2, singular: 12 pictures in 16 dimensions"
    assert fid(drawn(17, 16, 0), drawn(50, 16, 1), "DINOv2").by == "DINOv2"


# Kernels


def loops(x: Tensor, y: Tensor, kernel: Callable[[Tensor, Tensor], float], own: bool) -> float:
    """Squared MMD by its definition; own: with the pairs of a picture with itself."""

    def mean(a: Tensor, b: Tensor, all_pairs: bool) -> float:
        pairs = [(i, j) for i in range(len(a)) for j in range(len(b)) if all_pairs or i != j]
        return sum(kernel(a[i], b[j]) for i, j in pairs) / len(pairs)

    return mean(x, x, own) + mean(y, y, own) - 2 * mean(x, y, True)


def cubic(a: Tensor, b: Tensor) -> float:
    return (float(a.dot(b)) / len(a) + 1) ** 3


def gauss(a: Tensor, b: Tensor) -> float:
    a, b = a / a.norm(), b / b.norm()
    return math.exp(-float((a - b).square().sum()) / 200)


@pytest.fixture(params=[1024, 5])
def _rows(request, monkeypatch):
    """All rows at once, and blocks of which the last is smaller."""
    monkeypatch.setattr(metrics, "ROWS", request.param)


@pytest.mark.usefixtures("_rows")
def test_kid_and_cmmd_are_their_double_loops():
    x, y = drawn(13, 5, 0, mean=0.4), drawn(17, 5, 1)
    assert kid(x, y, "toy").value == pytest.approx(loops(x, y, cubic, own=False), rel=1e-9)
    assert cmmd(x, y, "toy").value == pytest.approx(1000 * loops(x, y, gauss, own=True), rel=1e-9)
    found = cmmd_unbiased(x, y, "toy").value
    assert found == pytest.approx(1000 * loops(x, y, gauss, own=False), rel=1e-9)


def squared_jackknife(x: Tensor, y: Tensor, value: Callable[[Tensor, Tensor], float]) -> float:
    """The variance from computing the figure anew without each picture."""

    def over(without: list[float]) -> float:
        return (len(without) - 1) * float(np.var(without))

    return over([value(torch.cat([x[:i], x[i + 1 :]]), y) for i in range(len(x))]) + over(
        [value(x, torch.cat([y[:i], y[i + 1 :]])) for i in range(len(y))]
    )


@pytest.mark.usefixtures("_rows")
@pytest.mark.parametrize("metric", [kid, cmmd, cmmd_unbiased])
def test_intervals_of_kernels_are_those_of_computing_anew_without_each_picture(metric):
    x, y = drawn(40, 3, 0, mean=0.4), drawn(50, 3, 1)
    one = metric(x, y, "toy")
    deviation = squared_jackknife(x, y, lambda a, b: metric(a, b, "toy").value) ** 0.5
    assert (one.low + one.high) / 2 == pytest.approx(one.value)
    assert 1.96 < (one.high - one.low) / 2 / deviation < 2.02  # Student's t


def test_cmmd_ignores_the_length_of_embeddings():
    x, y = drawn(20, 4, 0, mean=0.4), drawn(20, 4, 1)
    lengths = torch.linspace(0.1, 9, 20).double()[:, None]
    assert cmmd(lengths * x, y, "toy").value == pytest.approx(cmmd(x, y, "toy").value)


def third_moments(mean: Tensor, variance: float) -> list[Tensor]:
    """The raw moments of order 0 to 3 of a Gaussian of covariance variance I."""
    eye = variance * torch.eye(len(mean)).double()
    three = torch.einsum("i,j,k->ijk", mean, mean, mean)
    for axes in ["i,jk->ijk", "j,ik->ijk", "k,ij->ijk"]:
        three = three + torch.einsum(axes, mean, eye)
    return [torch.ones(()).double(), mean, torch.outer(mean, mean) + eye, three]


def true_kid(mean: float, variance: float, width: int) -> float:
    """sum_j C(3, j) d^-j |M_j - M'_j|^2 from standard normal features."""
    a = third_moments(torch.full((width,), mean).double(), variance)
    b = third_moments(torch.zeros(width).double(), 1.0)
    return sum(math.comb(3, j) * width**-j * float((a[j] - b[j]).square().sum()) for j in range(4))


def test_kid_is_right_on_average_and_its_interval_covers():
    truth = true_kid(0.4, 1.2**2, 4)
    figures = [
        kid(drawn(150, 4, 2 * i, 0.4, 1.2), drawn(200, 4, 2 * i + 1), "toy") for i in range(200)
    ]
    values = np.array([one.value for one in figures])
    assert abs(values.mean() - truth) < 3 * values.std() / 200**0.5
    assert 0.9 <= coverage(iter(figures), truth) <= 0.99


def test_kid_of_one_distribution_is_zero_within_its_interval():
    figures = [kid(drawn(40, 4, 2 * i), drawn(40, 4, 2 * i + 1), "toy") for i in range(200)]
    assert coverage(iter(figures), 0.0) >= 0.93  # too wide there, as it says


def test_the_interval_of_cmmd_covers():
    truth = cmmd_unbiased(drawn(2000, 4, 1001, 0.3), drawn(2000, 4, 1000), "toy")
    figures = [
        cmmd_unbiased(drawn(60, 4, 2 * i, 0.3), drawn(60, 4, 2 * i + 1), "toy") for i in range(200)
    ]
    assert 0.9 <= coverage(iter(figures), truth.value) <= 0.99


@pytest.mark.parametrize(("n", "m"), [(60, 60), (60, 400)])
def test_the_interval_of_fid_covers_its_mean_with_as_many_pictures(n, m):
    figures = [fid(drawn(n, 4, 2 * i, 0.3), drawn(m, 4, 2 * i + 1), "toy") for i in range(200)]
    mean = sum(one.value for one in figures) / 200
    assert 0.9 <= coverage(iter(figures), mean) <= 0.99
    assert mean > 4 * 0.3**2  # not the truth


# The inception score


def naive_score(p: np.ndarray) -> float:
    marginal = p.mean(axis=0)
    return math.exp(
        np.mean([sum(a * math.log(a / b) for a, b in zip(row, marginal, strict=True)) for row in p])
    )


def test_the_inception_score_is_its_formula_and_its_tenths_are_averaged():
    p = drawn(53, 6, 0).mul(2).softmax(dim=1)
    assert inception_score(p, "toy").value == pytest.approx(naive_score(p.numpy()))
    tenths = [p.numpy()[i * 53 // 10 : (i + 1) * 53 // 10] for i in range(10)]
    wanted = sum(naive_score(part) for part in tenths) / 10
    assert inception_score(p, "toy", splits=10).value == pytest.approx(wanted)


def test_the_inception_score_goes_from_one_to_the_number_of_classes():
    assert inception_score(torch.full((20, 4), 0.25), "toy").value == pytest.approx(1)
    assert inception_score(torch.eye(4).repeat(5, 1), "toy").value == pytest.approx(4)


@pytest.mark.usefixtures("_rows")
@pytest.mark.parametrize("splits", [1, 2])
def test_the_interval_of_the_inception_score_is_that_of_computing_anew(splits):
    p = drawn(60, 5, 0).mul(2).softmax(dim=1)
    variance = 0.0
    for part in p.split(60 // splits):
        without = [naive_score(np.delete(part.numpy(), i, axis=0)) for i in range(len(part))]
        variance += (len(part) - 1) * float(np.var(without)) / splits**2
    one = inception_score(p, "toy", splits)
    assert 1.96 < (one.high - one.low) / 2 / variance**0.5 < 2.02


def test_the_interval_of_the_inception_score_covers_its_mean_with_as_many_pictures():
    figures = [inception_score(drawn(80, 5, i).mul(2).softmax(dim=1), "toy") for i in range(200)]
    mean = sum(one.value for one in figures) / 200
    assert 0.9 <= coverage(iter(figures), mean) <= 0.99


def test_logits_are_no_probabilities():
    with pytest.raises(UserError, match="softmax"):
        inception_score(drawn(20, 5, 0), "toy")


def test_a_split_needs_two_pictures():
    with pytest.raises(UserError, match="10 splits of 19 pictures"):
        inception_score(torch.full((19, 4), 0.25), "toy", splits=10)


# Precision and recall


def naive_share(points: Tensor, centres: Tensor, k: int) -> float:
    inside = 0
    for point in points:
        for centre in centres:
            others = (centres - centre).norm(dim=1).sort().values[1:]  # the first is itself
            if (point - centre).norm() <= others[k - 1]:
                inside += 1
                break
    return inside / len(points)


@pytest.mark.usefixtures("_rows")
@pytest.mark.parametrize("k", [1, 3])
def test_precision_and_recall_are_their_definitions(k):
    x, y = drawn(31, 3, 0, mean=1.0, scale=1.5), drawn(23, 3, 1)
    found, wanted = precision(x, y, "toy", k).value, naive_share(x, y, k)
    assert 0.05 < wanted < 0.95
    assert found == pytest.approx(wanted)
    assert recall(x, y, "toy", k).value == pytest.approx(naive_share(y, x, k))


@pytest.mark.usefixtures("_rows")
def test_balls_without_a_block_are_those_that_never_saw_it():
    points, centres = drawn(40, 2, 0, scale=2.0), drawn(33, 2, 1)
    chosen = list(torch.arange(30).view(10, 3))
    found = metrics._inside(points, centres, chosen, k=2).double().mean(dim=1)
    wanted = [naive_share(points, centres, 2)]
    for rows in chosen:
        kept = [i for i in range(33) if i not in rows]
        wanted.append(naive_share(points, centres[kept], 2))
    assert len(set(wanted)) > 2
    assert found.tolist() == pytest.approx(wanted)


def test_copies_have_a_precision_of_one_even_where_a_ball_is_a_point():
    same = drawn(12, 7, 0, mean=100.0).repeat_interleave(4, dim=0)
    one = precision(same, same.flip(0), "toy")
    assert one.value == one.high == 1
    assert one.low < 1


def test_equal_rows_are_at_a_distance_of_exactly_zero():
    x = drawn(60, 65, 0, mean=100.0)
    assert not metrics._squared_distances(x, x).diagonal().any()


def test_precision_does_not_depend_on_where_the_features_lie():
    x, y = drawn(40, 3, 0, mean=1.0, scale=1.5), drawn(40, 3, 1)
    assert precision(x + 1e6, y + 1e6, "toy").value == precision(x, y, "toy").value < 0.9


def test_a_far_set_has_neither_precision_nor_recall():
    far, near = drawn(30, 3, 0, mean=50), drawn(30, 3, 1)
    assert precision(far, near, "toy").value == recall(far, near, "toy").value == 0


def test_painting_one_mode_of_two_keeps_the_precision_and_halves_the_recall():
    real = torch.cat([drawn(50, 2, 0), drawn(50, 2, 1, mean=50)])
    painted = drawn(100, 2, 2)
    assert precision(painted, real, "toy").value > 0.8
    assert 0.4 < recall(painted, real, "toy").value <= 0.5


@pytest.mark.parametrize("metric", [precision, recall])
def test_the_interval_of_a_share_covers_its_mean_with_as_many_pictures(metric):
    figures = [metric(drawn(60, 2, 2 * i, 1.0), drawn(60, 2, 2 * i + 1), "toy") for i in range(200)]
    mean = sum(one.value for one in figures) / 200
    assert 0.4 < mean < 0.9
    assert coverage(iter(figures), mean) >= 0.9


def test_more_neighbours_than_pictures_are_refused():
    with pytest.raises(UserError, match="k must be from 1 to 9"):
        precision(drawn(20, 3, 0), drawn(10, 3, 1), "toy", k=10)


# The CLIP score


def test_the_clip_score_cuts_each_picture_s_cosine_at_zero():
    pictures = torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 1.0]])
    captions = torch.tensor([[5.0, 0.0], [0.0, -1.0], [1.0, 0.0]])
    wanted = (100 + 0 + 100 / math.sqrt(2)) / 3
    assert clip_score(pictures, captions, "toy").value == pytest.approx(wanted)


def test_the_interval_of_the_clip_score_covers():
    captions = torch.tensor([[1.0, 0.0, 0.0]]).double()
    # a unit vector's coordinate is uniform on the sphere: the mean of max(u, 0) is 1 / 4
    figures = (clip_score(drawn(50, 3, i), captions.expand(50, 3), "toy") for i in range(400))
    assert 0.9 <= coverage(figures, 25.0) <= 0.99


def test_each_picture_has_its_caption():
    with pytest.raises(UserError, match="10 pictures and 11 captions"):
        clip_score(drawn(10, 3, 0), drawn(11, 3, 1), "toy")


# All


@pytest.mark.parametrize("metric", PAIRED)
def test_the_order_of_pictures_changes_no_figure(metric):
    x, y = drawn(40, 4, 0, mean=0.5), drawn(40, 4, 1)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    other = order if metric is clip_score else order.flip(0)
    assert metric(x[order], y[other], "toy").value == pytest.approx(metric(x, y, "toy").value)


def test_the_order_of_pictures_does_not_change_the_inception_score():
    p = drawn(40, 4, 0).softmax(dim=1)
    assert inception_score(p.flip(0), "toy").value == pytest.approx(inception_score(p, "t").value)


@pytest.mark.parametrize("metric", PAIRED)
def test_a_figure_lies_in_its_interval_and_comes_again_to_the_last_bit(metric):
    x, y = drawn(40, 4, 0, mean=0.5), drawn(40, 4, 1)
    one = metric(x, y, "toy")
    assert one.low < one.value < one.high
    assert one.pictures == 40
    assert one.by.startswith("toy")
    assert one == metric(x, y, "toy")


@pytest.mark.parametrize("metric", PAIRED)
def test_single_precision_is_enough_for_a_figure(metric):
    x, y = drawn(40, 4, 0, mean=0.5), drawn(40, 4, 1)
    assert metric(x.float(), y.float(), "toy").value == pytest.approx(
        metric(x, y, "toy").value, rel=1e-5
    )


@pytest.mark.parametrize("metric", PAIRED)
def test_few_pictures_give_a_figure_without_an_interval(metric):
    one = metric(drawn(5, 3, 0), drawn(5, 3, 1), "toy")
    assert math.isfinite(one.value)
    assert all(math.isnan(end) for end in ends(one))


@pytest.mark.parametrize("metric", PAIRED)
def test_one_picture_is_too_few(metric):
    with pytest.raises(UserError, match="there are 1"):
        metric(drawn(1, 3, 0), drawn(9, 3, 1), "toy")
    with pytest.raises(UserError, match="there are 1"):
        metric(drawn(9, 3, 0), drawn(1, 3, 1), "toy")


@pytest.mark.parametrize("metric", PAIRED)
def test_features_of_two_networks_are_refused(metric):
    with pytest.raises(UserError, match="3 wide, of real ones 4"):
        metric(drawn(9, 3, 0), drawn(9, 4, 1), "toy")


@pytest.mark.parametrize("metric", PAIRED)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_features_that_are_not_finite_are_refused(metric, bad):
    x = drawn(9, 3, 0)
    x[4, 1] = bad
    with pytest.raises(UserError, match="1 of 9 pictures are not finite"):
        metric(x, drawn(9, 3, 1), "toy")
    with pytest.raises(UserError, match="1 of 9 pictures are not finite"):
        metric(drawn(9, 3, 1), x, "toy")


def test_a_batch_of_another_width_is_refused():
    moments = Moments(3)
    with pytest.raises(UserError, match="4 wide, not 3"):
        moments.add(drawn(9, 4, 0))


# Rows that are not independent


TOGETHER = torch.arange(30).repeat(4)  # four painted images of each of thirty prompts


def of_prompts(seed: int, mean: float = 1.0) -> Tensor:
    """120 rows around the 30 means of their prompts; each coordinate has variance 1 in all."""
    means = drawn(30, 3, seed, mean, scale=0.9**0.5)
    return means[TOGETHER] + drawn(120, 3, seed + 10**6, scale=0.1**0.5)


@pytest.mark.parametrize("metric", [kid, cmmd_unbiased, precision, recall, fid])
def test_intervals_cover_where_a_prompt_has_several_images(metric):
    pairs = [(of_prompts(i), drawn(300, 3, 2000 + i)) for i in range(150)]
    found = [metric(x, y, "toy", groups=TOGETHER) for x, y in pairs]
    truth = sum(one.value for one in found) / len(found)
    # thirty prompts of a skewed estimate (KID) cover a little less; as independent rows 0.7
    assert coverage(iter(found), truth) >= 0.86
    if metric in (kid, fid):
        assert coverage((metric(x, y, "toy") for x, y in pairs), truth) < 0.8
    assert all(one.by.endswith(", 30 prompts") for one in found)


@pytest.mark.parametrize("metric", [kid, cmmd_unbiased])
def test_intervals_cover_where_real_images_come_again(metric):
    pairs = [(drawn(100, 3, i), of_prompts(i, 1.0)[:30].repeat(4, 1)) for i in range(150)]
    found = [metric(x, y, "toy") for x, y in pairs]
    truth = sum(one.value for one in found) / len(found)
    assert coverage(iter(found), truth) >= 0.9
    assert all(one.by.endswith(", 30 distinct real images") for one in found)


def test_the_interval_of_the_clip_score_covers_where_a_prompt_has_several_images():
    captions = torch.tensor([[1.0, 0.0, 0.0]]).double().expand(120, 3)
    pictures = (drawn(30, 3, i).repeat(4, 1) for i in range(300))
    figures = (clip_score(x, captions, "toy", TOGETHER) for x in pictures)
    assert 0.9 <= coverage(figures, 25.0) <= 0.99


def test_the_interval_of_the_inception_score_covers_where_a_prompt_has_several_images():
    found = [inception_score(of_prompts(i).softmax(1), "toy", groups=TOGETHER) for i in range(200)]
    truth = sum(one.value for one in found) / len(found)
    assert 0.88 <= coverage(iter(found), truth) <= 0.99


def test_kernels_without_a_prompt_are_those_that_never_saw_it():
    x, y, together = drawn(24, 3, 0), drawn(15, 3, 1), torch.arange(12).repeat(2)
    one, without = kid(x, y, "toy", groups=together), []
    for prompt in range(12):
        without.append(kid(x[together != prompt], y, "toy").value)
    spread = jackknife(torch.tensor(without).double(), 12)
    alone = [kid(x, y[torch.arange(15) != i], "toy").value for i in range(15)]
    wanted = interval(one.value, spread, jackknife(torch.tensor(alone).double(), 15))
    assert ends(one) == pytest.approx(tuple(wanted))


def test_groups_of_one_image_change_no_figure():
    x, y = drawn(40, 3, 0, mean=0.5), drawn(30, 3, 1)
    for metric in (kid, cmmd, fid, precision, recall):
        alone, grouped = metric(x, y, "toy"), metric(x, y, "toy", groups=torch.arange(40))
        assert ends(alone) == ends(grouped)
