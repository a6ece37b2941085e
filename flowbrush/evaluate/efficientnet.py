"""EfficientNet-Lite0 (Tan & Le 2019; Lite: R. Liu 2020), trained on ImageNet, out of packages.

Features for figures without a download. They are not Inception's: no figure of them is an FID.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from flowbrush.evaluate.network_input import bicubic, in_batches
from flowbrush.perceptual import efficientnet_input, efficientnet_lite0

SIZE = 224


@dataclass(frozen=True, kw_only=True)
class EfficientNetConfig:
    """1280 numbers after the last pool. No choices."""

    def build(self, device: torch.device) -> "EfficientNet":
        """Raises UserError where the packages are missing."""
        return EfficientNet(efficientnet_lite0("features"), device)


class EfficientNet:
    """PictureFeatures: the mean over the last map, of the whole picture at 224 px.

    Resized bicubically with antialiasing.
    """

    name, width = "EfficientNet-Lite0", 1280

    def __init__(self, network: Any, device: torch.device) -> None:
        """network: of `efficientnet_lite0`."""
        self._network = network.to(device, memory_format=torch.channels_last)
        self._device = device

    def __call__(self, pictures: UInt8[Tensor, "b 3 H W"]) -> Float[Tensor, "b d"]:
        return in_batches(self._pooled, pictures, self.width, self._device)

    def _pooled(self, pictures: UInt8[Tensor, "b 3 H W"]) -> Float[Tensor, "b 1280"]:
        x = efficientnet_input(bicubic(pictures, SIZE).clamp(0, 255))
        return self._network.extract_features(x).mean(dim=(2, 3))
