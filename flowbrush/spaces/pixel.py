"""Pixel space: bytes 0..255 to -1..1 and back."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from flowbrush.errors import NotFinite


@dataclass(frozen=True, kw_only=True)
class PixelConfig:
    """Pixels need no choices."""

    def build(self, device: torch.device) -> "PixelSpace":
        return PixelSpace()


class PixelSpace:
    """The trivial Space."""

    def shape(self, height: int, width: int | None = None) -> tuple[int, int, int]:
        return 3, height, width or height

    def compress(self, pictures: UInt8[Tensor, "b 3 H W"]) -> UInt8[Tensor, "b 3 H W"]:
        return pictures

    def normalize(
        self, stored: UInt8[Tensor, "b 3 H W"], keys: Sequence[int]
    ) -> Float[Tensor, "b 3 H W"]:
        return stored.float() / 127.5 - 1

    def decode(self, x: Float[Tensor, "b 3 H W"]) -> UInt8[Tensor, "b 3 H W"]:
        """Raises NotFinite where nan or infinity would become black or white."""
        if not x.isfinite().all():
            raise NotFinite(
                "an image came out as nan or infinity; lower the guidance scale, or if that does "
                "not help, go back to an earlier checkpoint: the weights are spoilt"
            )
        return ((x.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
