"""Weights are checked for NaN and infinity wherever they come in."""

from collections.abc import Mapping

import torch
from torch import Tensor

from flowbrush.errors import UserError


@torch.no_grad()
def check_finite(weights: Mapping[str, Tensor], told: str) -> None:
    """Raises UserError, which begins with `told`, for the first tensor with NaN or infinity."""
    for name, weight in weights.items():
        if weight.is_floating_point() and weight.numel():
            low, high = weight.aminmax()  # one pass without a copy; a NaN is the least and the most
            if not (low.isfinite() and high.isfinite()):
                raise UserError(
                    f"{told}: {name} holds NaN or infinity, so all images would be spoilt; use an "
                    "earlier checkpoint, or other weights"
                )
