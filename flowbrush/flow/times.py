"""Which times a network is trained at and which times a solver visits.

A time is drawn through the inverse of its distribution function from a uniform number, so that
stratified and independent draws, and every distribution, share one path.

A shift by s moves the times towards the noise, as large pictures need: t -> t / (t + s (1 - t))
(Esser et al. 2024, eq. 23, there in noise time).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from flowbrush.errors import UserError
from flowbrush.flow.diffusion import DiffusionConfig
from flowbrush.randomness import uniform

Time = TypeVar("Time", float, Tensor)
ShiftLaw = Literal["root", "exponential"]
FLUX_GROWTH = (1.15 - 0.5) / (4096 / 256 - 1)  # of the shift's logarithm, for each 256 tokens


@dataclass(frozen=True, kw_only=True)
class TimesConfig:
    """The distribution of training times."""

    # diffusion: each of flow.diffusion's steps as often, as DDPM, DiT and PixArt draw them.
    distribution: Literal["uniform", "logit_normal", "diffusion"] = "logit_normal"
    mean: float = 0.0  # of the normal number inside the sigmoid; below 0 is nearer the noise
    std: float = 1.0
    shift: float = 1.0  # 1 = none
    shift_reference: int | None = None  # tokens or pixels (h * w) at which the shift is `shift`
    # How the shift grows with tokens: by the root of their number, or as Flux's dynamic shift.
    shift_law: ShiftLaw = "root"
    stratified: bool = True  # one time from each of b equal parts of the distribution

    def __post_init__(self) -> None:
        if self.std <= 0 or self.shift <= 0:
            raise UserError(f"times: std {self.std} and shift {self.shift} must be above 0")

    def draw(
        self,
        seed: int,
        places: Sequence[int],
        b: int,
        positions: int,
        diffusion: DiffusionConfig | None = None,
    ) -> Float[Tensor, " k"]:
        """Times for a batch of `b`, or a process's part of it; each a function of its place."""
        if self.stratified:
            offset = float(uniform(seed, "times", [places[0] // b])[0])
            u = stratify(offset, torch.tensor(places) % b, b)
        else:
            u = uniform(seed, "times", places)
        return self.sample(u, positions, diffusion)

    def sample(
        self, u: Float64[Tensor, " b"], positions: int, diffusion: DiffusionConfig | None = None
    ) -> Float[Tensor, " b"]:
        """Times in (0, 1], fp32, from uniform numbers; `positions` = h * w of the flow's space.

        diffusion: whose steps the distribution of that name draws.
        """
        t = u
        if self.distribution == "logit_normal":
            t = torch.sigmoid(self.mean + self.std * torch.special.ndtri(u))
        elif self.distribution == "diffusion":
            assert diffusion is not None, "FlowConfig has refused it"
            t = diffusion.quantile(u)
        shift = resolution_shift(self.shift, positions, self.shift_reference, self.shift_law)
        return shifted(t, shift).float()


def shifted(t: Time, shift: float) -> Time:
    """Times moved towards the noise by `shift` (1 = not at all)."""
    return t / (t + shift * (1 - t))


def resolution_shift(
    shift: float, positions: int, reference: int | None, law: ShiftLaw = "root"
) -> float:
    """The shift at `positions`, of which `reference` have `shift`.

    By the root of their number the signal-to-noise ratio of an image stays as it is. By the
    exponential law it is Flux's exp(0.5 + 0.65 (n - 256) / 3840) at n tokens, where the shift is
    exp(0.5) at a reference of 256 tokens.
    """
    if reference is None:
        return shift
    if law == "exponential":
        return shift * math.exp(FLUX_GROWTH * (positions / reference - 1))
    return shift * math.sqrt(positions / reference)


def stratify(offset: float, places: Int[Tensor, " b"], b: int) -> Float64[Tensor, " b"]:
    """Numbers that cover (0, 1) evenly: place i of a batch of `b` gets (offset + i / b) mod 1.

    Each is uniform on its own, since the offset is (Kingma et al. 2021, appendix I.1).
    """
    return ((offset + places.double() / b) % 1.0).clamp(1e-9, 1 - 1e-9)


def grid(steps: int, shift: float, last_gap: float | None = None) -> list[float]:
    """`steps` + 1 times from 0 to 1 for a solver, shifted like the training times.

    last_gap: of the last step, before the shift; None = as long as the others.
    """
    even = [i / steps for i in range(steps + 1)]
    if last_gap is not None and steps > 1:
        even = [(1 - last_gap) * i / (steps - 1) for i in range(steps)] + [1.0]
    return [shifted(t, shift) for t in even]
