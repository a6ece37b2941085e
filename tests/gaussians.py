"""Networks that are right about a mixture of Gaussians: nothing to train, and not a simple picture.

A field that is the same everywhere, or random weights, hides what a sampler does wrong.
"""

import torch
from torch import Tensor, nn

from flowbrush.condition import Condition
from flowbrush.flow.diffusion import DiffusionConfig

SHAPE = (3, 4, 4)
MEANS = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
STD = 0.3


def kept(config: DiffusionConfig) -> Tensor:
    """The share of the data's variance after each step, as DDPM defines it."""
    if config.betas == "linear":
        betas = torch.linspace(config.first_beta, config.last_beta, 1000, dtype=torch.float64)
    else:
        ends = config.first_beta**0.5, config.last_beta**0.5
        betas = torch.linspace(*ends, 1000, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, dim=0)


def expected_noise(x: Tensor, a: Tensor) -> Tensor:
    """The mean of the noise in x = sqrt(a) data + sqrt(1 - a) noise; `a` of each row."""
    a = a.view(-1, 1, 1, 1, 1)
    from_means = x.double()[:, None] - a.sqrt() * MEANS  # (b, k, c, h, w)
    variance = a * STD**2 + 1 - a
    share = (-from_means.square().sum((2, 3, 4), keepdim=True) / (2 * variance)).softmax(1)
    return (share * (1 - a).sqrt() * from_means / variance).sum(1).to(x)


class PredictsNoise(nn.Module):
    """A discrete diffusion's network; with `variance`, what it says of it fills a second half."""

    def __init__(self, config: DiffusionConfig, variance: bool = False) -> None:
        super().__init__()
        self.kept, self.variance = kept(config), variance

    def at_step(self, x: Tensor, step: float) -> Tensor:
        """As schedulers of diffusers ask for it."""
        return self(x, torch.full((len(x),), 1 - step / 1000, dtype=torch.float64), Condition())

    def forward(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        step = (1000 * (1 - t.double())).clamp(0, 999)
        below = step.floor().long()
        ratios = torch.special.logit(self.kept)
        between = torch.lerp(ratios[below], ratios[(below + 1).clamp(max=999)], step - below)
        noise = expected_noise(x, torch.sigmoid(between))
        return torch.cat([noise, (x + noise).sin()], dim=1) if self.variance else noise


class PredictsVelocity(nn.Module):
    """A flow's network for the same data; "data", "noise": it predicts those instead."""

    def __init__(self, prediction: str = "velocity") -> None:
        super().__init__()
        self.prediction = prediction

    def forward(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        t = t.double()
        size = torch.hypot(t, 1 - t)
        noise = expected_noise(x.double() / size.view(-1, 1, 1, 1), (t / size) ** 2)
        t = t.view(-1, 1, 1, 1)
        velocity = torch.where(t > 0, (x - noise) / t.clamp(min=1e-9), MEANS.mean(0) - x)
        others = {"data": x + (1 - t) * velocity, "noise": x - t * velocity}
        return others.get(self.prediction, velocity).to(x)
