"""How near painted pictures are to real ones, and to their captions, as functions of features.

All is computed in float64 on the CPU. Each figure has a 95 % interval for the choice of pictures;
it covers what the estimator would give on average *with as many pictures*. That is the truth for
the unbiased ones (KID, unbiased CMMD, CLIP score) and not for FID, IS, precision and recall.
`groups` numbers the painted ones: several of one prompt are left out together, and so are copies
among the real ones. What of either set is less than its rows, is said.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor
from torch.nn.functional import normalize

from flowbrush.errors import UserError
from flowbrush.evaluate.gaussian import (
    Gaussian,
    finite,
    frechet,
    frechet_distance,
    gaussian,
    root,
    same_width,
)
from flowbrush.evaluate.intervals import (
    UNKNOWN,
    Groups,
    Interval,
    Measured,
    RowBlocks,
    Spread,
    binomial_of_groups,
    by_of,
    copies_of,
    interval,
    jackknife,
    of_mean,
    row_blocks,
    sums_by_group,
)

ROWS = 1024  # of a matrix over pairs of pictures that are held at once

Kernel = Callable[[Tensor, Tensor], Tensor]
Count = int | Tensor
Estimate = Callable[[Tensor, Tensor, Tensor, Count, Count], Tensor]


def _set(features: Float[Tensor, "n d"], whose: str) -> Float64[Tensor, "n d"]:
    if len(features) < 2:
        raise UserError(f"{whose} pictures: 2 or more are needed, there are {len(features)}")
    return finite(features)


def fid(
    painted: Float[Tensor, "n d"] | Gaussian,
    real: Float[Tensor, "m _"] | Gaussian,
    features: str,
    name: str = "FID",
    seed: int = 0,
    groups: Groups = None,
) -> Measured:
    """The Frechet distance of features (Heusel et al. 2017; FD-DINOv2: Stein et al. 2023).

    Its interval leaves out each of 20 random blocks of either set (`seed`): bootstrap sets would
    repeat pictures, which raises FID. It covers FID's mean with as many pictures, not its bias,
    which falls as 1 / pictures. A Gaussian counts as known; a painted one gives no interval.
    """
    a = painted if isinstance(painted, Gaussian) else gaussian(_set(painted, "painted"))
    b = real if isinstance(real, Gaussian) else gaussian(_set(real, "real"))
    value = frechet_distance(a, b)
    counts, spreads, copies = [a.count, b.count], [UNKNOWN], None
    if not isinstance(painted, Gaussian):
        counts[0] = len(copies_of(painted).unique())
        spreads = [_fid_spread(painted, b, seed, groups)]
    if not isinstance(real, Gaussian):
        copies = copies_of(real)
        counts[1] = len(copies.unique())
        spreads.append(_fid_spread(real, a, seed, copies))
    ends = interval(value, *spreads, within=(0.0, math.inf))
    by = by_of(features, groups, copies)
    if min(counts) <= len(a.mean):
        by += f", singular: {min(counts):,} pictures in {len(a.mean):,} dimensions"
    return Measured(name, value, *ends, a.count, by, better="lower", bias="upwards")


def _fid_spread(
    features: Float[Tensor, "n d"], other: Gaussian, seed: int, groups: Groups
) -> Spread:
    chosen = row_blocks(len(features), seed, groups)
    root_b = root(other.covariance)
    rests = _without_each(finite(features), chosen.rows)
    estimates = torch.tensor([frechet(other, rest, root_b) for rest in rests]).double()
    return jackknife(estimates, chosen.groups, chosen.size)


def _without_each(
    x: Float64[Tensor, "n d"], chosen: Iterable[Int64[Tensor, " _"]]
) -> Iterator[Gaussian]:
    """The Gaussian of all rows but those of a block, for each block, in one pass over the rows."""
    mean = x.mean(dim=0)
    x = x - mean
    scatter = x.T @ x
    for rows in chosen:
        left = len(x) - len(rows)
        shift = -x[rows].sum(dim=0) / left
        rest = scatter - x[rows].T @ x[rows] - left * torch.outer(shift, shift)
        yield Gaussian(mean + shift, rest / (left - 1), left)


def kid(
    painted: Float[Tensor, "n d"], real: Float[Tensor, "m _"], features: str, groups: Groups = None
) -> Measured:
    """Squared MMD with the kernel (x.y / d + 1)^3, unbiased (Binkowski et al. 2018).

    Over all pairs, not over subsets, and not multiplied. The interval is the jackknife over both
    sets; where both are of one distribution it is too wide, by up to sqrt(2).
    """
    x, y = _pair(painted, real)
    copies = copies_of(real)
    value, ends = _mmd(x, y, groups, copies, _cubic, _unbiased, scale=1.0)
    by = by_of(f"{features}, cubic kernel, unbiased", groups, copies)
    return Measured("KID", value, *ends, len(x), by, better="lower", bias="none")


def cmmd(
    painted: Float[Tensor, "n d"], real: Float[Tensor, "m _"], features: str, groups: Groups = None
) -> Measured:
    """1000 times the squared MMD of unit vectors with a Gaussian kernel of sigma 10, biased.

    As the published code of Jayasumana et al. (2024): the V-statistic, which counts each picture
    with itself and is therefore above the unbiased one by about 10 (1 / n + 1 / m) at most.
    """
    x, y = _pair(painted, real)
    copies = copies_of(real)
    value, ends = _mmd(normalize(x), normalize(y), groups, copies, _gauss, _biased, scale=1000.0)
    by = by_of(f"{features}, sigma 10, biased as published", groups, copies)
    return Measured("CMMD", value, *ends, len(x), by, better="lower", bias="upwards")


def cmmd_unbiased(
    painted: Float[Tensor, "n d"], real: Float[Tensor, "m _"], features: str, groups: Groups = None
) -> Measured:
    """CMMD as the U-statistic, which leaves out pairs of a picture with itself; ours, not the
    published code's."""
    x, y = _pair(painted, real)
    copies = copies_of(real)
    value, ends = _mmd(normalize(x), normalize(y), groups, copies, _gauss, _unbiased, scale=1000.0)
    by = by_of(f"{features}, sigma 10, unbiased", groups, copies)
    return Measured("unbiased CMMD", value, *ends, len(x), by, better="lower", bias="none")


def _pair(
    painted: Float[Tensor, "n d"], real: Float[Tensor, "m _"]
) -> tuple[Float64[Tensor, "n d"], Float64[Tensor, "m d"]]:
    same_width(painted.shape[1], real.shape[1])
    return _set(painted, "painted"), _set(real, "real")


def _cubic(x: Float64[Tensor, "n d"], y: Float64[Tensor, "m d"]) -> Float64[Tensor, "n m"]:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _gauss(x: Float64[Tensor, "n d"], y: Float64[Tensor, "m d"]) -> Float64[Tensor, "n m"]:
    return torch.exp(-_squared_distances(x, y) / (2 * 10**2))


def _unbiased(xx: Tensor, yy: Tensor, xy: Tensor, n: Count, m: Count) -> Tensor:
    """From the sums of kernels over pairs of different pictures, and over those of both sets."""
    return xx / (n * (n - 1)) + yy / (m * (m - 1)) - 2 * xy / (n * m)


def _biased(xx: Tensor, yy: Tensor, xy: Tensor, n: Count, m: Count) -> Tensor:
    """The same with each picture's pair with itself, whose kernel is 1."""
    return (xx + n) / n**2 + (yy + m) / m**2 - 2 * xy / (n * m)


def _mmd(
    x: Float64[Tensor, "n d"],
    y: Float64[Tensor, "m d"],
    groups: Groups,
    copies: Groups,
    kernel: Kernel,
    estimate: Estimate,
    scale: float,
) -> tuple[float, Interval]:
    """All estimates without one group come from the sums of the kernel's rows, and of its own."""
    n, m = len(x), len(y)
    of_x, of_y = _sums_within(x, kernel), _sums_within(y, kernel)
    x_to_y, y_to_x = torch.zeros(n).double(), torch.zeros(m).double()
    for start in range(0, n, ROWS):
        values = kernel(x[start : start + ROWS], y)
        x_to_y[start : start + ROWS] = values.sum(dim=1)
        y_to_x += values.sum(dim=0)
    xx, yy, xy = of_x.sum(), of_y.sum(), x_to_y.sum()
    value = scale * float(estimate(xx, yy, xy, n, m))
    x_out, sizes = sums_by_group(x_to_y, groups)
    rest = xx - 2 * sums_by_group(of_x, groups)[0] + _sums_of_groups(x, kernel, groups)
    without_x = scale * estimate(rest, yy, xy - x_out, n - sizes, m)
    y_out, sizes = sums_by_group(y_to_x, copies)
    rest = yy - 2 * sums_by_group(of_y, copies)[0] + _sums_of_groups(y, kernel, copies)
    without_y = scale * estimate(xx, rest, xy - y_out, n, m - sizes)
    spreads = jackknife(without_x, len(without_x)), jackknife(without_y, len(without_y))
    return value, interval(value, *spreads)


def _sums_of_groups(
    x: Float64[Tensor, "n d"], kernel: Kernel, groups: Groups
) -> Float64[Tensor, " g"]:
    """Of each group: the kernels over its pairs of different rows."""
    if groups is None:
        return torch.zeros(len(x)).double()
    sizes = groups.unique(return_counts=True)[1].tolist()
    parts = x[groups.argsort(stable=True)].split(sizes)
    zero = torch.zeros(()).double()
    return torch.stack([_sums_within(p, kernel).sum() if len(p) > 1 else zero for p in parts])


def _sums_within(x: Float64[Tensor, "n d"], kernel: Kernel) -> Float64[Tensor, " n"]:
    sums = []
    for start in range(0, len(x), ROWS):
        values = kernel(x[start : start + ROWS], x)
        sums.append(values.sum(dim=1) - values.diagonal(start))
    return torch.cat(sums)


def _squared_distances(
    x: Float64[Tensor, "n d"], y: Float64[Tensor, "m d"]
) -> Float64[Tensor, "n m"]:
    """Zero, not a rounding error, between equal rows."""
    sizes = x.square().sum(dim=1)[:, None] + y.square().sum(dim=1)
    distances = sizes - 2 * x @ y.T
    return torch.where(distances < 1e-12 * sizes, 0.0, distances)


def inception_score(
    probabilities: Float[Tensor, "n c"], features: str, splits: int = 1, groups: Groups = None
) -> Measured:
    """exp(mean KL(p(class | picture) | p(class)))  (Salimans et al. 2016).

    probabilities: a classifier's `logits.softmax(1)`. splits=10 is the classic mean over tenths, in
    the order given. The interval is the jackknife; it does not cover the bias.
    """
    p = _set(probabilities, "painted")
    if p.min() < 0 or (p.sum(dim=1) - 1).abs().max() > 1e-3:
        raise UserError("IS: each row must be probabilities; apply softmax to logits")
    if splits < 1 or len(p) < 2 * splits:
        raise UserError(f"IS: {splits} splits of {len(p):,} pictures; each needs 2 or more")
    cuts = [i * len(p) // splits for i in range(splits + 1)]
    scores = [
        _score(p[start:end], None if groups is None else groups[start:end])
        for start, end in pairwise(cuts)
    ]
    value = sum(score for score, _ in scores) / splits
    ends = interval(value, *(Spread(s.variance / splits**2, s.freedom) for _, s in scores))
    by = by_of(features if splits == 1 else f"{features}, {splits} splits", groups)
    return Measured("IS", value, *ends, len(p), by, better="higher", bias="downwards")


def _score(p: Float64[Tensor, "n c"], groups: Groups) -> tuple[float, Spread]:
    n, total, parts = len(p), p.sum(dim=0), p
    # log IS = mean sum_c p log p - sum_c q log q with q = mean p
    own = torch.xlogy(p, p).sum(dim=1)
    value = (own.mean() - torch.xlogy(total / n, total / n).sum()).exp()
    sums, sizes = sums_by_group(own, groups)
    if groups is not None:
        number = groups.unique(return_inverse=True)[1]
        parts = p.new_zeros(len(sums), p.shape[1]).index_add(0, number, p)
    left = n - sizes
    marginal = []
    for part, count in zip(parts.split(ROWS), left.split(ROWS), strict=True):
        rest = (total - part).clamp(min=0) / count[:, None]
        marginal.append(torch.xlogy(rest, rest).sum(dim=1))
    without = ((own.sum() - sums) / left - torch.cat(marginal)).exp()
    return float(value), jackknife(without, len(sums))


def precision(
    painted: Float[Tensor, "n d"],
    real: Float[Tensor, "m _"],
    features: str,
    k: int = 3,
    seed: int = 0,
    groups: Groups = None,
) -> Measured:
    """The share of painted pictures no farther from some real one than its k-th nearest real
    neighbour is (Kynkaanniemi et al. 2019).

    The interval adds the binomial variance over the painted ones to the jackknife over 20 random
    blocks (`seed`) of the real ones. It does not cover the bias.
    """
    x, y = _pair(painted, real)
    copies = copies_of(real)
    value, ends = _covered(x, y, k, seed, groups, copies)
    by = by_of(f"{features}, {k} neighbours", groups, copies)
    return Measured("precision", value, *ends, len(x), by, better="higher", bias="up or down")


def recall(
    painted: Float[Tensor, "n d"],
    real: Float[Tensor, "m _"],
    features: str,
    k: int = 3,
    seed: int = 0,
    groups: Groups = None,
) -> Measured:
    """`precision` with the two sets exchanged: the share of real pictures near a painted one."""
    x, y = _pair(painted, real)
    copies = copies_of(real)
    value, ends = _covered(y, x, k, seed, copies, groups)
    by = by_of(f"{features}, {k} neighbours", groups, copies)
    return Measured("recall", value, *ends, len(x), by, better="higher", bias="up or down")


def _covered(
    points: Float64[Tensor, "n d"],
    centres: Float64[Tensor, "m d"],
    k: int,
    seed: int,
    groups: Groups,
    of_centres: Groups,
) -> tuple[float, Interval]:
    m = len(centres)
    if not 1 <= k < m:
        raise UserError(
            f"{k} nearest neighbours: k must be from 1 to {m - 1:,}, for {m:,} pictures"
        )
    middle = centres.mean(dim=0)
    chosen = row_blocks(m, seed, of_centres)
    if m - max(map(len, chosen.rows), default=0) <= k:
        chosen = RowBlocks([], chosen.groups, chosen.size)
    inside = _inside(points - middle, centres - middle, chosen.rows, k)
    shares = inside.double().mean(dim=1)
    value = float(shares[0])
    of_points = binomial_of_groups(inside[0], groups)
    of_balls = jackknife(shares[1:], chosen.groups, chosen.size)
    return value, interval(value, of_points, of_balls, within=(0.0, 1.0))


def _inside(
    points: Float64[Tensor, "n d"],
    centres: Float64[Tensor, "m d"],
    chosen: Sequence[Int64[Tensor, " _"]],
    k: int,
) -> Bool[Tensor, "B1 n"]:
    """Whether a point is in any centre's ball: first with all centres, then without each block."""
    radii = _squared_radii(centres, chosen, k)
    parts = []
    for part in points.split(ROWS):
        distances = _squared_distances(part, centres)
        parts.append(torch.stack([(distances <= radius).any(dim=1) for radius in radii]))
    return torch.cat(parts, dim=1)


def _squared_radii(
    centres: Float64[Tensor, "m d"], chosen: Sequence[Int64[Tensor, " _"]], k: int
) -> Float64[Tensor, "B1 m"]:
    """To the k-th nearest other centre, with all and without each block, whose own are -1."""
    block_of = torch.full((len(centres),), -1)
    for block, rows in enumerate(chosen):
        block_of[rows] = block
    most = min(
        len(centres) - 1, k + max(map(len, chosen), default=0)
    )  # enough even if a whole block is nearest
    radii = torch.full((1 + len(chosen), len(centres)), -1.0, dtype=torch.float64)
    for start in range(0, len(centres), ROWS):
        distances = _squared_distances(centres[start : start + ROWS], centres)
        distances.diagonal(start).fill_(math.inf)
        near, who = distances.topk(most, largest=False)  # sorted
        whose = block_of[who]
        radii[0, start : start + ROWS] = near[:, k - 1]
        for block in range(len(chosen)):
            kth = ((whose != block).cumsum(dim=1) < k).sum(dim=1, keepdim=True)
            radii[1 + block, start : start + ROWS] = near.gather(1, kth).squeeze(1)
    for block, rows in enumerate(chosen):
        radii[1 + block, rows] = -1
    return radii


def clip_score(
    pictures: Float[Tensor, "n d"],
    captions: Float[Tensor, "m _"],
    features: str,
    groups: Groups = None,
) -> Measured:
    """The mean of 100 max(cos(picture, its caption), 0)  (Hessel et al. 2021, with 2.5 for 100).

    Each picture's is cut at zero; torchmetrics cuts the mean. The interval is Student's.
    """
    x, y = _pair(pictures, captions)
    if len(x) != len(y):
        raise UserError(f"CLIP score: {len(x):,} pictures and {len(y):,} captions")
    scores = 100 * (normalize(x) * normalize(y)).sum(dim=1).clamp(min=0)
    figure = of_mean(scores, groups)
    by = by_of(features, groups)
    return Measured("CLIP score", *figure, len(scores), by, better="higher", bias="none")
