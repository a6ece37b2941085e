"""Averages whose length is chosen after training (Karras et al. 2024, section 3 and appendix C).

The power profile p(τ) = (γ + 1) τ^γ / t^(γ + 1), 0 <= τ <= t, weighs the weights of step τ in an
average at step t. Its standard deviation over t is the average's relative length σ. Any other
profile is about a sum of those kept at a few lengths and many steps, so their averages' sum is
about its average.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from flowbrush import checkpoint
from flowbrush.errors import UserError
from flowbrush.experiment import LONGEST_POWER_EMA, ExperimentConfig

# Of a run: checkpoints of the power averages alone. In fp32: with a snapshot each twentieth of an
# emoji run, 0.075 made of 0.05 and 0.1 was 2e-6 from the one kept; 2e-4 in fp16, as published, with
# 0.05 and 0.075 no further than 6e-3 apart. Shares above 1 multiply what fp16 rounds.
AVERAGES_FOLDER = "averages"
POWER = "power_"  # before the relative length, in the name of an average


@dataclass(frozen=True)
class Profile:
    """The power profile of a relative length, at a step counted from 1."""

    length: float
    step: int


@dataclass(frozen=True)
class Fit:
    """Shares of the kept profiles whose sum is about the wanted one; they add up to 1."""

    shares: Float64[np.ndarray, " n"]
    residual: float  # norm of what is not met, over the wanted profile's


def exponent(length: float) -> float:
    """γ of the profile of that relative length: σ² = (γ + 1) / ((γ + 2)² (γ + 3)); eq. 123, 126."""
    inverse = length**-2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())


def fit(kept: Sequence[Profile], wanted: Profile) -> Fit:
    """The least-squares sum of the kept profiles (algorithm 3), divided by its integral.

    So does the authors' code. What stays the same all along is then met exactly, and the weights
    ten times better than by the sum itself.
    """
    among, towards = _inner_products(kept, kept), _inner_products(kept, [wanted])[:, 0]
    shares = np.linalg.solve(among, towards)
    shares /= shares.sum()
    own = _inner_products([wanted], [wanted]).item()
    missed = own - 2 * shares @ towards + shares @ among @ shares
    return Fit(shares, math.sqrt(max(0.0, missed) / own))  # rounding may fall below 0


def _inner_products(one: Sequence[Profile], other: Sequence[Profile]) -> Float64[np.ndarray, "n m"]:
    """∫ p q of each profile with each (eq. 151), as a power of a ratio, which cannot overflow."""
    t, s = (np.array([p.step for p in profiles], float) for profiles in (one, other))
    g, h = (np.array([exponent(p.length) for p in profiles]) for profiles in (one, other))
    t, g = t[:, None], g[:, None]
    earlier, later = np.minimum(t, s), np.maximum(t, s)
    of_later = np.where(t < s, h, g)
    return (g + 1) * (h + 1) * (earlier / later) ** of_later / ((g + h + 1) * later)


@torch.no_grad()
def weighted_sum(parts: Iterable[tuple[float, dict[str, Tensor]]]) -> dict[str, Tensor]:
    """Σ share * state in fp32; of a lazy iterable no more than one state is in memory beside it."""
    total: dict[str, Tensor] = {}
    for share, state in parts:
        for name, tensor in state.items():
            if name not in total:
                total[name] = torch.zeros_like(tensor, dtype=torch.float32)
            total[name].add_(tensor, alpha=share)
    return total


def load(
    run: Path,
    found: Path,
    name: str,
    config: ExperimentConfig,
    device: torch.device,
    say: Callable[[str], None],
) -> dict[str, Tensor]:
    """The average `name`, such as power_0.075, at the checkpoint `found` of a run.

    One that the run keeps is read; of any other length it is a sum of those kept until then, and
    `say` is told where more than 1 % of its profile is missed.
    Raises UserError where the name is no length, or fewer than two lengths are kept.
    """
    wanted = Profile(_length(name), int(found.name) // config.batch.size)
    name, kept = f"{POWER}{wanted.length}", config.train.power_ema
    if name in checkpoint.names(found):
        return checkpoint.load(found, name, device)
    if len(kept) < 2:
        there = f"{POWER}{kept[0]} alone" if kept else "no power averages"
        raise UserError(
            f"{run}: keeps {there}, and {name} is made of two lengths or more; "
            "train with --train.power_ema 0.05 0.10"
        )
    # Snapshots after the checkpoint are not of its past. Going on from it writes them anew.
    snapshots = checkpoint.whole(run / AVERAGES_FOLDER, say)
    folders = [found, *(folder for folder in snapshots if int(folder.name) < int(found.name))]
    sources = {
        Profile(length, int(folder.name) // config.batch.size): folder
        for folder in folders
        for length in kept
    }
    fitted = fit(list(sources), wanted)
    if fitted.residual > 0.01:
        say(
            f"{run}: {name} misses {fitted.residual:.1%} of its profile; lengths nearer to it "
            "(train.power_ema) or more snapshots (watch.average) miss less"
        )
    return weighted_sum(
        (float(share), checkpoint.load(folder, f"{POWER}{profile.length}", device))
        for share, (profile, folder) in zip(fitted.shares, sources.items(), strict=True)
    )


def _length(name: str) -> float:
    try:
        length = float(name.removeprefix(POWER))
    except ValueError:
        length = math.nan
    if not 0 < length < LONGEST_POWER_EMA:
        raise UserError(
            f"weights: {name}; after {POWER} comes a relative length above 0 and below "
            f"{LONGEST_POWER_EMA:.4f}, as in power_0.075"
        )
    return length
