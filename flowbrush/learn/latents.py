"""What an autoencoder makes of pictures, drawn; and in how few directions pictures vary."""

from collections.abc import Iterable

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from torch import Tensor

from flowbrush.contact_sheet import to_image

SPAN = 3.0  # standard deviations, which a map's colours reach to


def draw_channels(
    axes: Iterable[Axes], picture: UInt8[Tensor, "3 H W"], latent: Float[Tensor, "c h w"]
) -> None:
    """A picture, and as many of its latent's channels as there are other axes: blue is negative."""
    first, *others = axes
    first.imshow(to_image(picture))
    for ax, channel in zip(others, latent, strict=False):
        ax.imshow(channel.numpy(), cmap="RdBu_r", vmin=-SPAN, vmax=SPAN)
    for ax in (first, *others):
        ax.set(xticks=[], yticks=[])


def blended(
    first: Float[Tensor, "c h w"], last: Float[Tensor, "c h w"], count: int
) -> Float[Tensor, "{count} c h w"]:
    """From one to the other in even steps, both ends included."""
    share = torch.linspace(0, 1, count).view(-1, 1, 1, 1)
    return torch.lerp(first[None], last[None], share)


def patches(
    x: Float[Tensor, "b c h w"], patch: int
) -> Float[Tensor, "b*(h//{patch})*(w//{patch}) c*{patch}*{patch}"]:
    """Every patch as a row of numbers."""
    return rearrange(x, "b c (h p) (w q) -> (b h w) (c p q)", p=patch, q=patch)


def variances(rows: Float[Tensor, "n d"]) -> Float[Tensor, " d"]:
    """Along the principal directions, the largest first; their sum is all there is."""
    return torch.linalg.eigvalsh(rows.T.cov()).flip(0).clamp(min=0)


def explained(variance: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
    """The share of the variance that the first 1, 2, ... directions hold."""
    return variance.cumsum(0) / variance.sum()
