"""How near painted pictures are to real ones, and to their captions, as functions of features.

All is computed in float64 on the CPU. Each figure has a 95 % interval for the choice of pictures;
it covers what the estimator would give on average *with as many pictures*. That is the truth for
the unbiased ones (KID, unbiased CMMD, CLIP score) and not for FID, IS, precision and recall.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor
from torch.nn.functional import normalize

from flowbrush.errors import UserError
from flowbrush.evaluate.intervals import (
    UNKNOWN,
    Interval,
    Measured,
    Spread,
    binomial,
    blocks,
    interval,
    jackknife,
    of_mean,
)

ROWS = 1024  # of a matrix over pairs of pictures that are held at once

Kernel = Callable[[Tensor, Tensor], Tensor]
Estimate = Callable[[Tensor, Tensor, Tensor, int, int], Tensor]


def _checked(features: Float[Tensor, "n d"]) -> Float64[Tensor, "n d"]:
    wrong = int((~features.isfinite().all(dim=1)).sum())
    if wrong:
        raise UserError(f"features of {wrong:,} of {len(features):,} pictures are not finite")
    return features.detach().cpu().double()


def _set(features: Float[Tensor, "n d"], whose: str) -> Float64[Tensor, "n d"]:
    if len(features) < 2:
        raise UserError(f"{whose} pictures: 2 or more are needed, there are {len(features)}")
    return _checked(features)


def _same_width(painted: int, real: int) -> None:
    if painted != real:
        raise UserError(f"features of painted pictures are {painted} wide, of real ones {real}")


@dataclass(frozen=True)
class Gaussian:
    """What FID knows of a set of pictures; the covariance is unbiased, as numpy.cov's."""

    mean: Float64[Tensor, " d"]
    covariance: Float64[Tensor, "d d"]
    count: int


class Moments:
    """Mean and covariance of features that come in batches (Chan, Golub & LeVeque 1979).

    Memory does not grow with the pictures.
    """

    def __init__(self, width: int) -> None:
        self.count = 0
        self._mean = torch.zeros(width, dtype=torch.float64)
        self._scatter = torch.zeros(width, width, dtype=torch.float64)

    def add(self, features: Float[Tensor, "n d"]) -> None:
        """Raises UserError for another width, or numbers that are not finite."""
        if features.shape[1] != len(self._mean):
            raise UserError(f"features are {features.shape[1]} wide, not {len(self._mean)}")
        if len(features) == 0:
            return
        x = _checked(features)
        count, mean = len(x), x.mean(dim=0)
        apart = mean - self._mean
        together = self.count + count
        self._scatter += (x - mean).T @ (x - mean)
        self._scatter += torch.outer(apart, apart) * (self.count * count / together)
        self._mean += apart * (count / together)
        self.count = together

    def gaussian(self) -> Gaussian:
        """Raises UserError before two pictures were added."""
        if self.count < 2:
            raise UserError(f"2 pictures or more are needed, there are {self.count}")
        return Gaussian(self._mean.clone(), self._scatter / (self.count - 1), self.count)


def gaussian(features: Float[Tensor, "n d"]) -> Gaussian:
    """Mean and unbiased covariance. Raises UserError for fewer than 2 pictures."""
    moments = Moments(features.shape[1])
    moments.add(features)
    return moments.gaussian()


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """|m_a - m_b|^2 + Tr(S_a + S_b - 2 (S_a^1/2 S_b S_a^1/2)^1/2)   (Dowson & Landau 1982)."""
    _same_width(len(a.mean), len(b.mean))
    return _frechet(a, b, _root(a.covariance))


def _root(covariance: Float64[Tensor, "d d"]) -> Float64[Tensor, "d d"]:
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def _frechet(a: Gaussian, b: Gaussian, root: Float64[Tensor, "d d"]) -> float:
    """root: that of a's covariance."""
    values = torch.linalg.eigvalsh(root @ b.covariance @ root)
    traces = a.covariance.trace() + b.covariance.trace() - 2 * values.clamp(min=0).sqrt().sum()
    return max(0.0, float((a.mean - b.mean).square().sum() + traces))


def fid(
    painted: Float[Tensor, "n d"] | Gaussian,
    real: Float[Tensor, "m _"] | Gaussian,
    features: str,
    name: str = "FID",
    seed: int = 0,
) -> Measured:
    """The Frechet distance of features (Heusel et al. 2017; FD-DINOv2: Stein et al. 2023).

    Its interval leaves out each of 20 random blocks of either set (`seed`): bootstrap sets would
    repeat pictures, which raises FID. It covers FID's mean with as many pictures, not its bias,
    which falls as 1 / pictures. A Gaussian counts as known; a painted one gives no interval.
    """
    a = painted if isinstance(painted, Gaussian) else gaussian(_set(painted, "painted"))
    b = real if isinstance(real, Gaussian) else gaussian(_set(real, "real"))
    value = frechet_distance(a, b)
    spreads = [UNKNOWN if isinstance(painted, Gaussian) else _fid_spread(painted, b, seed)]
    if not isinstance(real, Gaussian):
        spreads.append(_fid_spread(real, a, seed))
    ends = interval(value, *spreads, within=(0.0, math.inf))
    few, by = min(a.count, b.count), features
    if few <= len(a.mean):
        by += f", singular: {few:,} pictures in {len(a.mean):,} dimensions"
    return Measured(name, value, *ends, a.count, by, better="lower", bias="upwards")


def _fid_spread(features: Float[Tensor, "n d"], other: Gaussian, seed: int) -> Spread:
    chosen = blocks(len(features), seed)
    root = _root(other.covariance)
    without = [_frechet(other, rest, root) for rest in _without_each(_checked(features), chosen)]
    estimates = torch.tensor(without, dtype=torch.float64)
    return jackknife(estimates, len(features), chosen.shape[1])


def _without_each(x: Float64[Tensor, "n d"], chosen: Int64[Tensor, "B s"]) -> Iterator[Gaussian]:
    """The Gaussian of all rows but those of a block, for each block, in one pass over the rows."""
    mean = x.mean(dim=0)
    x = x - mean
    scatter = x.T @ x
    left = len(x) - chosen.shape[1]
    for rows in chosen:
        shift = -x[rows].sum(dim=0) / left
        rest = scatter - x[rows].T @ x[rows] - left * torch.outer(shift, shift)
        yield Gaussian(mean + shift, rest / (left - 1), left)


def kid(painted: Float[Tensor, "n d"], real: Float[Tensor, "m _"], features: str) -> Measured:
    """Squared MMD with the kernel (x.y / d + 1)^3, unbiased (Binkowski et al. 2018).

    Over all pairs, not over subsets, and not multiplied. The interval is the jackknife over both
    sets; where both are of one distribution it is too wide, by up to sqrt(2).
    """
    x, y = _pair(painted, real)
    value, ends = _mmd(x, y, _cubic, _unbiased, scale=1.0)
    by = f"{features}, cubic kernel, unbiased"
    return Measured("KID", value, *ends, len(x), by, better="lower", bias="none")


def cmmd(painted: Float[Tensor, "n d"], real: Float[Tensor, "m _"], features: str) -> Measured:
    """1000 times the squared MMD of unit vectors with a Gaussian kernel of sigma 10, biased.

    As the published code of Jayasumana et al. (2024): the V-statistic, which counts each picture
    with itself and is therefore above the unbiased one by about 10 (1 / n + 1 / m) at most.
    """
    x, y = _pair(painted, real)
    value, ends = _mmd(normalize(x), normalize(y), _gauss, _biased, scale=1000.0)
    by = f"{features}, sigma 10, biased as published"
    return Measured("CMMD", value, *ends, len(x), by, better="lower", bias="upwards")


def cmmd_unbiased(
    painted: Float[Tensor, "n d"], real: Float[Tensor, "m _"], features: str
) -> Measured:
    """CMMD as the U-statistic, which leaves out pairs of a picture with itself; ours, not the
    published code's."""
    x, y = _pair(painted, real)
    value, ends = _mmd(normalize(x), normalize(y), _gauss, _unbiased, scale=1000.0)
    by = f"{features}, sigma 10, unbiased"
    return Measured("unbiased CMMD", value, *ends, len(x), by, better="lower", bias="none")


def _pair(
    painted: Float[Tensor, "n d"], real: Float[Tensor, "m _"]
) -> tuple[Float64[Tensor, "n d"], Float64[Tensor, "m d"]]:
    _same_width(painted.shape[1], real.shape[1])
    return _set(painted, "painted"), _set(real, "real")


def _cubic(x: Float64[Tensor, "n d"], y: Float64[Tensor, "m d"]) -> Float64[Tensor, "n m"]:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _gauss(x: Float64[Tensor, "n d"], y: Float64[Tensor, "m d"]) -> Float64[Tensor, "n m"]:
    return torch.exp(-_squared_distances(x, y) / (2 * 10**2))


def _unbiased(xx: Tensor, yy: Tensor, xy: Tensor, n: int, m: int) -> Tensor:
    """From the sums of kernels over pairs of different pictures, and over those of both sets."""
    return xx / (n * (n - 1)) + yy / (m * (m - 1)) - 2 * xy / (n * m)


def _biased(xx: Tensor, yy: Tensor, xy: Tensor, n: int, m: int) -> Tensor:
    """The same with each picture's pair with itself, whose kernel is 1."""
    return (xx + n) / n**2 + (yy + m) / m**2 - 2 * xy / (n * m)


def _mmd(
    x: Float64[Tensor, "n d"],
    y: Float64[Tensor, "m d"],
    kernel: Kernel,
    estimate: Estimate,
    scale: float,
) -> tuple[float, Interval]:
    """All estimates without one picture come from the sums of the kernel's rows."""
    n, m = len(x), len(y)
    of_x, of_y = _sums_within(x, kernel), _sums_within(y, kernel)
    x_to_y, y_to_x = torch.zeros(n).double(), torch.zeros(m).double()
    for start in range(0, n, ROWS):
        values = kernel(x[start : start + ROWS], y)
        x_to_y[start : start + ROWS] = values.sum(dim=1)
        y_to_x += values.sum(dim=0)
    xx, yy, xy = of_x.sum(), of_y.sum(), x_to_y.sum()
    value = scale * float(estimate(xx, yy, xy, n, m))
    without_x = scale * estimate(xx - 2 * of_x, yy, xy - x_to_y, n - 1, m)
    without_y = scale * estimate(xx, yy - 2 * of_y, xy - y_to_x, n, m - 1)
    return value, interval(value, jackknife(without_x, n), jackknife(without_y, m))


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
    probabilities: Float[Tensor, "n c"], features: str, splits: int = 1
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
    scores = [_score(p[start:end]) for start, end in pairwise(cuts)]
    value = sum(score for score, _ in scores) / splits
    ends = interval(value, *(Spread(s.variance / splits**2, s.freedom) for _, s in scores))
    by = features if splits == 1 else f"{features}, {splits} splits"
    return Measured("IS", value, *ends, len(p), by, better="higher", bias="downwards")


def _score(p: Float64[Tensor, "n c"]) -> tuple[float, Spread]:
    n = len(p)
    total = p.sum(dim=0)
    # log IS = mean sum_c p log p - sum_c q log q with q = mean p
    own = torch.xlogy(p, p).sum(dim=1)
    value = (own.mean() - torch.xlogy(total / n, total / n).sum()).exp()
    rests = ((total - part).clamp(min=0) / (n - 1) for part in p.split(ROWS))
    marginal = [torch.xlogy(rest, rest).sum(dim=1) for rest in rests]
    without = ((own.sum() - own) / (n - 1) - torch.cat(marginal)).exp()
    return float(value), jackknife(without, n)


def precision(
    painted: Float[Tensor, "n d"],
    real: Float[Tensor, "m _"],
    features: str,
    k: int = 3,
    seed: int = 0,
) -> Measured:
    """The share of painted pictures no farther from some real one than its k-th nearest real
    neighbour is (Kynkaanniemi et al. 2019).

    The interval adds the binomial variance over the painted ones to the jackknife over 20 random
    blocks (`seed`) of the real ones. It does not cover the bias.
    """
    x, y = _pair(painted, real)
    value, ends = _covered(x, y, k, seed)
    by = f"{features}, {k} neighbours"
    return Measured("precision", value, *ends, len(x), by, better="higher", bias="up or down")


def recall(
    painted: Float[Tensor, "n d"],
    real: Float[Tensor, "m _"],
    features: str,
    k: int = 3,
    seed: int = 0,
) -> Measured:
    """`precision` with the two sets exchanged: the share of real pictures near a painted one."""
    x, y = _pair(painted, real)
    value, ends = _covered(y, x, k, seed)
    by = f"{features}, {k} neighbours"
    return Measured("recall", value, *ends, len(x), by, better="higher", bias="up or down")


def _covered(
    points: Float64[Tensor, "n d"], centres: Float64[Tensor, "m d"], k: int, seed: int
) -> tuple[float, Interval]:
    m = len(centres)
    if not 1 <= k < m:
        raise UserError(
            f"{k} nearest neighbours: k must be from 1 to {m - 1:,}, for {m:,} pictures"
        )
    middle = centres.mean(dim=0)
    chosen = blocks(m, seed)
    if m - chosen.shape[1] <= k:
        chosen = chosen[:0]
    shares = _inside(points - middle, centres - middle, chosen, k).double().mean(dim=1)
    value = float(shares[0])
    spreads = binomial(value, len(points)), jackknife(shares[1:], m, chosen.shape[1])
    return value, interval(value, *spreads, within=(0.0, 1.0))


def _inside(
    points: Float64[Tensor, "n d"],
    centres: Float64[Tensor, "m d"],
    chosen: Int64[Tensor, "B s"],
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
    centres: Float64[Tensor, "m d"], chosen: Int64[Tensor, "B s"], k: int
) -> Float64[Tensor, "B1 m"]:
    """To the k-th nearest other centre, with all and without each block, whose own are -1."""
    block_of = torch.full((len(centres),), -1)
    block_of[chosen] = torch.arange(len(chosen))[:, None].expand_as(chosen)
    most = min(len(centres) - 1, k + chosen.shape[1])  # enough even if a whole block is nearest
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
    pictures: Float[Tensor, "n d"], captions: Float[Tensor, "m _"], features: str
) -> Measured:
    """The mean of 100 max(cos(picture, its caption), 0)  (Hessel et al. 2021, with 2.5 for 100).

    Each picture's is cut at zero; torchmetrics cuts the mean. The interval is Student's.
    """
    x, y = _pair(pictures, captions)
    if len(x) != len(y):
        raise UserError(f"CLIP score: {len(x):,} pictures and {len(y):,} captions")
    scores = 100 * (normalize(x) * normalize(y)).sum(dim=1).clamp(min=0)
    figure = of_mean(scores)
    return Measured("CLIP score", *figure, len(scores), features, better="higher", bias="none")
