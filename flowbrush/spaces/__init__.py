"""Where the flow lives: pictures in, what the network sees, pictures out."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Float, UInt8
from torch import Tensor

from flowbrush.spaces.latent import LatentConfig
from flowbrush.spaces.pixel import PixelConfig


@runtime_checkable
class Space(Protocol):
    """Pictures (b 3 H W, bytes) to and from the flow's own (b c h w) at unit scale."""

    def shape(self, height: int, width: int | None = None) -> tuple[int, int, int]:
        """(c, h, w) for pictures of so many pixels; square ones without a width."""
        ...

    def compress(self, pictures: UInt8[Tensor, "b 3 H W"]) -> Tensor:
        """Costly and deterministic: what may be stored."""
        ...

    def normalize(self, stored: Tensor, keys: Sequence[int]) -> Float[Tensor, "b c h w"]:
        """Cheap, at each step. keys: one a picture, for what is drawn by chance."""
        ...

    def decode(self, x: Float[Tensor, "b c h w"]) -> UInt8[Tensor, "b 3 H W"]: ...


SpaceConfig = PixelConfig | LatentConfig
