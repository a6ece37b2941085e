"""What a picture is to a metric: a vector that a frozen network makes of it."""

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from jaxtyping import Float, UInt8
from torch import Tensor

from flowbrush.evaluate.efficientnet import EfficientNetConfig
from flowbrush.evaluate.inception import InceptionConfig
from flowbrush.evaluate.vision_transformers import CLIPFeaturesConfig, DINOv2Config

FeaturesName = Literal["efficientnet", "inception", "clip", "dinov2"]
FeaturesConfig = EfficientNetConfig | InceptionConfig | CLIPFeaturesConfig | DINOv2Config


@dataclass(frozen=True)
class FeaturesModels:
    """Where the networks are that no package brings."""

    inception: InceptionConfig = InceptionConfig()
    clip: CLIPFeaturesConfig = CLIPFeaturesConfig()
    dinov2: DINOv2Config = DINOv2Config()

    def named(self, name: FeaturesName) -> FeaturesConfig:
        return EfficientNetConfig() if name == "efficientnet" else getattr(self, name)


@runtime_checkable
class PictureFeatures(Protocol):
    """One vector a picture, in fp32 on the CPU.

    On one device it is always the same, to the last bit, and whatever else is in the batch.
    """

    @property
    def name(self) -> str:
        """What figures and statistics are marked with: only those of one name compare."""
        ...

    @property
    def width(self) -> int: ...

    def __call__(self, pictures: UInt8[Tensor, "b 3 H W"]) -> Float[Tensor, "b d"]: ...
