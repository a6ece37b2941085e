"""What the latents of one's own pictures look like, so that they can be brought to unit scale."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from jaxtyping import UInt8
from torch import Tensor

from flowbrush.errors import UserError
from flowbrush.randomness import derive
from flowbrush.spaces.latent import LatentSpace


class LatentStatistics(NamedTuple):
    """One number a channel: what LatentConfig calls `mean`, and 1 / its `scale`."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def together(self) -> "LatentStatistics":
        """The mean and deviation of all channels as one."""
        mean, std = (torch.tensor(numbers, dtype=torch.float64) for numbers in self)
        variance = (mean.square() + std.square()).mean() - mean.mean().square()
        return LatentStatistics((float(mean.mean()),), (float(variance.sqrt()),))


def latent_statistics(
    space: LatentSpace, pictures: Iterable[UInt8[Tensor, "_ 3 _ _"]]
) -> LatentStatistics:
    """Over all places, before mean and scale. Batches are joined in fp64 (Chan et al. 1979).

    Raises UserError where there are no pictures.
    """
    n, seen = 0, 0
    mean = squares = torch.zeros(space.channels, dtype=torch.float64)
    for batch in pictures:
        keys = [derive(0, "latent statistics", seen + i) for i in range(len(batch))]
        latents = space.draw(space.compress(batch), keys).cpu().double()
        values = latents.transpose(0, 1).flatten(1)  # (c, m)
        m, its_mean = values.shape[1], values.mean(dim=1, keepdim=True)
        ahead, share = its_mean[:, 0] - mean, m / (n + m)
        squares = squares + (values - its_mean).square().sum(dim=1) + ahead.square() * n * share
        mean, n, seen = mean + ahead * share, n + m, seen + len(batch)
    if not n:
        raise UserError("space: no pictures to take the latents' statistics of")
    return LatentStatistics(tuple(mean.tolist()), tuple((squares / n).sqrt().tolist()))
