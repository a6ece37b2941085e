"""How much of a picture survives a latent space: PSNR = 10 log10(255^2 / mean squared error)."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from flowbrush.data.source import Source, UnreadablePicture, stacked
from flowbrush.spaces import Space


def readable(
    source: Source, most: int, together: int = 32
) -> Iterator[UInt8[Tensor, "_ 3 size size"]]:
    """About `most` pictures from all over a source, in batches, without the broken ones."""
    held: list[UInt8[np.ndarray, "size size 3"]] = []
    for i in range(0, len(source), -(-len(source) // most) or 1):
        try:
            held.append(source[i].picture)
        except UnreadablePicture:
            continue
        if len(held) == together:
            yield stacked(held)
            held = []
    if held:
        yield stacked(held)


def reconstructed(space: Space, pictures: UInt8[Tensor, "b 3 H W"]) -> UInt8[Tensor, "b 3 H W"]:
    """There and back, on the CPU."""
    return space.decode(space.normalize(space.compress(pictures), range(len(pictures)))).cpu()


def psnr(real: UInt8[Tensor, "b 3 H W"], painted: UInt8[Tensor, "b 3 H W"]) -> Float[Tensor, " b"]:
    """Of each picture, in dB; infinite where nothing was lost."""
    error = (real.float() - painted.float()).square().flatten(1).mean(dim=1)
    return 10 * torch.log10(255**2 / error)


def mean_psnr(space: Space, source: Source, most: int) -> float:
    """The mean over about `most` pictures, in dB. Raises no error for none: it is nan."""
    found = [psnr(real, reconstructed(space, real)) for real in readable(source, most)]
    return float(torch.cat(found).mean()) if found else float("nan")
