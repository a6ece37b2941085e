"""A figure and its 95 % interval, from the jackknife (Efron & Stein 1981; Shao & Wu 1989).

    variance = (n - s)^2 / (n s (B - 1)) sum_b (estimate without block b - their mean)^2

for B blocks of s of n pictures; (n - 1) / n sum for s = 1. On average it is not too small for any
estimate symmetric in the pictures, up to the step from n to n - s; it is too large, by up to twice
and more, where pictures act in pairs (FID of many dimensions) or by leaps (precision).

Rows that are not independent, such as several images of one example, are left out together:
`groups` numbers them alike, and the interval is that of as many groups. None: each by itself.
"""

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from flowbrush.randomness import derive

FEWEST = 10  # pictures from which an interval is given
BLOCKS = 20
FEW = 10_000  # pictures below which a biased metric says little by itself

Groups = Int64[Tensor, " _"] | None  # of each row: those of one number are not independent
Bias = Literal["none", "upwards", "downwards", "up or down"]


@dataclass(frozen=True)
class Measured:
    """One figure, the ends of its 95 % interval (nan: none can be given) and how it came about."""

    name: str
    value: float
    low: float
    high: float
    pictures: int  # painted ones
    by: str  # the features and settings, in words
    better: Literal["lower", "higher"]
    bias: Bias  # of the estimator with so many pictures
    note: str = ""  # what is wrong with the images, in words

    @property
    def line(self) -> str:
        """`KID 0.0123 (0.0101 to 0.0145), 1,000 pictures, DINOv2, cubic kernel, unbiased`."""
        half = (self.high - self.low) / 2
        places = max(0, 1 - math.floor(math.log10(half))) if half > 0 else 4
        ends = "" if math.isnan(half) else f" ({self.low:.{places}f} to {self.high:.{places}f})"
        return f"{self.name} {self.value:.{places}f}{ends}, {self.pictures:,} pictures, {self.by}"


def ordered(measured: Iterable[Measured]) -> list[Measured]:
    """The same, those that are biased with so few pictures (below 10,000) last."""
    return sorted(measured, key=_is_doubtful)


def cautions(measured: Iterable[Measured]) -> list[str]:
    """Each figure's note once, and a sentence for each that is biased with so few pictures (below
    10,000)."""
    measured = list(measured)
    notes = dict.fromkeys(one.note for one in measured if one.note)
    return [*notes] + [
        f"{one.name} of {one.pictures:,} pictures is biased {one.bias}; "
        f"compare it only with {one.name} of as many"
        for one in measured
        if _is_doubtful(one)
    ]


def _is_doubtful(one: Measured) -> bool:
    return one.bias != "none" and one.pictures < FEW


class Spread(NamedTuple):
    """The variance of an estimate that comes from the choice of one set of pictures."""

    variance: float
    freedom: float  # degrees of freedom of the variance


class Interval(NamedTuple):
    low: float
    high: float


UNKNOWN = Spread(math.nan, math.nan)


def blocks(count: int, seed: int) -> Int64[Tensor, "B s"]:
    """Up to 20 random blocks of equal size of `count` rows; the rows left over are in none.

    Equal, since the bias of an estimate depends on its number of pictures. None below 10 rows.
    """
    many = min(BLOCKS, count) if count >= FEWEST else 0
    size = count // many if many else 1
    generator = torch.Generator().manual_seed(derive(seed, "jackknife", count))
    return torch.randperm(count, generator=generator)[: many * size].view(many, size)


class RowBlocks(NamedTuple):
    """Blocks of `size` of all `groups`. rows: those of each block."""

    rows: Sequence[Int64[Tensor, " s"]]
    groups: int
    size: int


def row_blocks(rows: int, seed: int, groups: Groups) -> RowBlocks:
    """`blocks` of whole groups, whose rows may differ in number."""
    if groups is None or len(groups.unique()) == rows:
        chosen = blocks(rows, seed)
        return RowBlocks(list(chosen), rows, chosen.shape[1])
    number = groups.unique(return_inverse=True)[1]
    count = int(number.max()) + 1
    chosen = blocks(count, seed)
    found = [torch.isin(number, block).nonzero()[:, 0] for block in chosen]
    return RowBlocks(found, count, chosen.shape[1])


def jackknife(estimates: Float64[Tensor, " B"], count: int, size: int = 1) -> Spread:
    """From the estimates without each block of `size` of `count` pictures; nan below 10."""
    if count < FEWEST or len(estimates) < 2:
        return UNKNOWN
    freedom = len(estimates) - 1
    squares = float((estimates - estimates.mean()).square().sum())
    return Spread((count - size) ** 2 / (count * size * freedom) * squares, freedom)


def binomial(share: float, count: int | float) -> Spread:
    """Of a share of `count` pictures, as with two more on either side (Agresti & Coull 1998), so
    that it is not zero for a share of 0 or 1."""
    if count < FEWEST:
        return UNKNOWN
    softened = (share * count + 2) / (count + 4)
    return Spread(softened * (1 - softened) / count, count - 1)


def binomial_of_groups(right: Bool[Tensor, " n"], groups: Groups) -> Spread:
    """The same where rows come in groups: of as many independent rows as vary as much (Kish 1965).

    Where all rows are equal, that number is the one of groups within which rows are all alike.
    """
    value, n = float(right.double().mean()), len(right)
    sums, sizes = sums_by_group(right.double(), groups)
    if len(sums) == n or len(sums) < FEWEST:
        return binomial(value, len(sums))
    varied = jackknife((sums.sum() - sums) / (n - sizes), len(sums)).variance
    effective = value * (1 - value) / varied if varied else math.inf
    if value in (0.0, 1.0):
        effective = n**2 / float(sizes.square().sum())
    softened = binomial(value, max(FEWEST, min(n, effective)))
    return softened._replace(freedom=len(sums) - 1)


def interval(
    value: float, *spreads: Spread, within: tuple[float, float] = (-math.inf, math.inf)
) -> Interval:
    """95 % around `value`, whose variance is the sum over independent sets of pictures.

    Student's t with the degrees of freedom of Welch (1947).
    """
    variance = sum(spread.variance for spread in spreads)
    if math.isnan(variance) or variance == 0:
        return Interval(value + variance, value + variance)
    freedom = variance**2 / sum(s.variance**2 / s.freedom for s in spreads)
    half = student(freedom) * math.sqrt(variance)
    return Interval(max(value - half, within[0]), min(value + half, within[1]))


def of_share(right: Bool[Tensor, " n"], groups: Groups = None) -> tuple[float, float, float]:
    """The share of True, and the ends of its interval."""
    value = float(right.double().mean())
    return value, *interval(value, binomial_of_groups(right, groups), within=(0.0, 1.0))


def of_mean(each: Float[Tensor, " n"], groups: Groups = None) -> tuple[float, float, float]:
    """The mean, and the ends of its interval."""
    each = each.double()
    sums, sizes = sums_by_group(each, groups)
    left_out = (each.sum() - sums) / (len(each) - sizes).clamp(min=1)
    return float(each.mean()), *interval(float(each.mean()), jackknife(left_out, len(sums)))


def sums_by_group(
    each: Float64[Tensor, " n"], groups: Groups
) -> tuple[Float64[Tensor, " g"], Float64[Tensor, " g"]]:
    """Of each group: the sum of its rows, and their number."""
    if groups is None:
        return each, torch.ones_like(each)
    number = groups.unique(return_inverse=True)[1]
    zeros = torch.zeros(int(number.max()) + 1, dtype=torch.float64)
    return zeros.index_add(0, number, each), zeros.index_add(0, number, torch.ones_like(each))


def groups_of(rows: Iterable[Hashable]) -> Int64[Tensor, " n"]:
    """Equal rows have one number, by the order in which they first come."""
    numbers: dict[Hashable, int] = {}
    return torch.tensor([numbers.setdefault(row, len(numbers)) for row in rows])


def copies_of(features: Float[Tensor, "n d"]) -> Int64[Tensor, " n"]:
    """Equal rows are a group: features are the same to the last bit for equal images."""
    return groups_of(row.tobytes() for row in features.numpy())


def by_of(features: str, groups: Groups, real: Groups = None) -> str:
    """`Measured.by`: with the numbers of prompts and of real images, where they are below those of
    the rows."""
    for what, numbers in (("prompts", groups), ("distinct real images", real)):
        if numbers is not None and (distinct := len(numbers.unique())) < len(numbers):
            features += f", {distinct:,} {what}"
    return features


def student(freedom: float) -> float:
    """The 97.5 % point of Student's t, to 1e-3 from 9 degrees of freedom on (Abramowitz & Stegun
    26.7.5)."""
    z = 1.959963984540054
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )
