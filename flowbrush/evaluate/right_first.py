"""Whether a prompt was followed, for a data set of one picture a concept: is the nearest real
picture, in pixels, the one that the prompt names?"""

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

WHITE = 250  # a pixel whose channels all reach this belongs to the ground


def is_right_first(
    painted: UInt8[Tensor, "b 3 H W"], real: UInt8[Tensor, "n _ _ _"], first: int = 0
) -> Bool[Tensor, " b"]:
    """Whether each row of `painted` is nearer to its own row of `real`, `first` + its place, than
    to any other.

    Nearer in squared pixel distance; a tie with an earlier row counts as wrong.
    """
    distance = torch.cdist(painted.flatten(1).double(), real.flatten(1).double())
    return distance.argmin(dim=1) == torch.arange(first, first + len(painted))


def ground_errors(
    painted: UInt8[Tensor, "b 3 H W"], real: UInt8[Tensor, "b _ _ _"]
) -> Float[Tensor, " b"]:
    """The mean distance from white, of 255, where the real picture is white (nan: nowhere)."""
    ground = (real >= WHITE).all(dim=1, keepdim=True).expand_as(real).flatten(1)
    off = (255 - painted.float()).flatten(1)
    return (off * ground).sum(dim=1) / ground.sum(dim=1)
