"""Pictures as a notebook shows them, and the colours of its drawings."""

import torch
from einops import rearrange
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

from flowbrush.contact_sheet import to_image

# Told apart by every eye (Okabe & Ito 2008).
BLUE, VERMILION, ORANGE, GREEN = "#0072B2", "#D55E00", "#E69F00", "#009E73"


def grid(pictures: UInt8[Tensor, "b 3 H W"], columns: int = 10, enlarged: int = 2) -> Image.Image:
    """Pictures side by side in rows, without captions, each pixel `enlarged` times as large."""
    missing = -len(pictures) % columns
    white = pictures.new_full((missing, *pictures.shape[1:]), 255)
    cells = pad(torch.cat([pictures, white]), (1, 1, 1, 1), value=255)
    sheet = rearrange(cells, "(r k) c h w -> c (r h) (k w)", k=columns)
    image = to_image(sheet)
    size = image.width * enlarged, image.height * enlarged
    return image.resize(size, Image.Resampling.NEAREST)
