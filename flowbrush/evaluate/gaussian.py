"""What FID knows of a set of images, and how far apart two sets are by it."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from flowbrush.errors import UserError


def finite(features: Float[Tensor, "n d"]) -> Float64[Tensor, "n d"]:
    """In fp64 on the CPU. Raises UserError where some are not finite."""
    wrong = int((~features.isfinite().all(dim=1)).sum())
    if wrong:
        raise UserError(f"features of {wrong:,} of {len(features):,} pictures are not finite")
    return features.detach().cpu().double()


def same_width(painted: int, real: int) -> None:
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
        x = finite(features)
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
    same_width(len(a.mean), len(b.mean))
    return frechet(a, b, root(a.covariance))


def root(covariance: Float64[Tensor, "d d"]) -> Float64[Tensor, "d d"]:
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def frechet(a: Gaussian, b: Gaussian, root_a: Float64[Tensor, "d d"]) -> float:
    """frechet_distance, with the root of a's covariance."""
    values = torch.linalg.eigvalsh(root_a @ b.covariance @ root_a)
    traces = a.covariance.trace() + b.covariance.trace() - 2 * values.clamp(min=0).sqrt().sum()
    return max(0.0, float((a.mean - b.mean).square().sum() + traces))
