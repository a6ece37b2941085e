"""From pictures in bytes to what a network reads, and through it in batches of one size."""

from collections.abc import Callable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

TOGETHER = 32  # pictures at once on an accelerator

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def bicubic(pictures: UInt8[Tensor, "b 3 H W"], size: int) -> Float[Tensor, "b 3 size size"]:
    """As Pillow's: a = -1/2, and wider where it shrinks. In 0 ... 255 and, at edges, beyond it."""
    side = (size, size)
    return interpolate(pictures.float(), side, mode="bicubic", align_corners=False, antialias=True)


def tensorflow_bilinear(
    pictures: UInt8[Tensor, "b 3 H W"], size: int
) -> Float[Tensor, "b 3 size size"]:
    """As ResizeBilinear of TensorFlow 1: pixel i is read at i * H / size, without antialiasing."""
    x = pictures.float()
    top, bottom, down = _neighbours(x.shape[2], size, x.device)
    left, right, across = _neighbours(x.shape[3], size, x.device)
    upper, lower = x[:, :, top], x[:, :, bottom]
    upper = upper[..., left].lerp(upper[..., right], across)
    lower = lower[..., left].lerp(lower[..., right], across)
    return upper.lerp(lower, down[:, None])


def _neighbours(length: int, size: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The two pixels on each side of every new one, and the second one's share."""
    at = torch.arange(size, dtype=torch.float32, device=device) * (length / size)
    low = at.long()
    return low, (low + 1).clamp(max=length - 1), at - low


def standardized(
    pixels: Float[Tensor, "b 3 H W"], mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[Tensor, "b 3 H W"]:
    """pixels: 0 ... 255; mean and std of each channel in 0 ... 1."""
    centre, scale = (
        255 * torch.tensor(numbers, device=pixels.device)[:, None, None] for numbers in (mean, std)
    )
    return (pixels - centre) / scale


def in_batches(
    network: Callable[[UInt8[Tensor, "k 3 H W"]], Float[Tensor, "k d"]],
    pictures: UInt8[Tensor, "b 3 H W"],
    width: int,
    device: torch.device,
) -> Float[Tensor, "b d"]:
    """What `network` makes of the pictures, in fp32 on the CPU, without TF32.

    Each call of it has as many pictures (one on the CPU), so that a picture's vector is the same
    to the last bit whatever came beside it.
    """
    together = 1 if device.type == "cpu" else TOGETHER
    rows = [torch.empty(0, width)]
    with torch.no_grad(), torch.backends.cudnn.flags(True, deterministic=True, allow_tf32=False):
        for few in pictures.split(together):
            filled = torch.cat([few, few.new_zeros(together - len(few), *few.shape[1:])])
            rows.append(network(filled.to(device))[: len(few)].float().cpu())
    return torch.cat(rows)
