"""Whether a prompt was followed, for a data set of one picture a concept: the share of painted pictures whose nearest
real picture, in squared pixel distance, is the one that the prompt names."""

import torch
from jaxtyping import UInt8
from torch import Tensor

WHITE = 250  # a pixel whose channels all reach this belongs to the ground


def right_first(painted: UInt8[Tensor, "b 3 H W"], real: UInt8[Tensor, "b 3 H W"]) -> float:
    """The share of rows of `painted` that are nearer to their own row of `real` than to any other."""
    distance = torch.cdist(painted.flatten(1).float(), real.flatten(1).float())
    return float((distance.argmin(dim=1) == torch.arange(len(painted))).float().mean())


def ground_error(painted: UInt8[Tensor, "b 3 H W"], real: UInt8[Tensor, "b 3 H W"]) -> float:
    """The mean distance from white, of 255, where the real picture is white."""
    ground = (real >= WHITE).all(dim=1, keepdim=True).expand_as(real)
    return float((255 - painted.float())[ground].mean())
