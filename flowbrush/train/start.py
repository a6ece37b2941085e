"""First weights out of another run, rather than by chance."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from flowbrush.backbones.dit import DiT
from flowbrush.backbones.pixart import PixArt
from flowbrush.errors import UserError
from flowbrush.interchange.reparameterised import start_pixart
from flowbrush.text_to_image import TextToImage


def start_from(run: Path, backbone: nn.Module) -> None:
    """Write the averaged weights of `run` into `backbone`.

    A network of the same sizes takes all of them; a PixArt also those of a DiT of labels.
    Raises UserError where there is no such run, or where it is of another network.
    """
    there: Any = TextToImage.load(run, device="cpu", frozen=False).denoiser.backbone
    device = next(backbone.parameters()).device
    if isinstance(backbone, PixArt) and isinstance(there, DiT):
        start_pixart(backbone, there.to(device))
        return
    found, wanted = there.state_dict(), backbone.state_dict()
    for name in sorted(found.keys() | wanted.keys()):
        one, other = (part[name].shape if name in part else None for part in (found, wanted))
        if one != other:
            raise UserError(
                f"train.start: {run} is of another network: {name} is {_said(one)} there and "
                f"{_said(other)} here"
            )
    backbone.load_state_dict(found)


def _said(shape: torch.Size | None) -> str:
    return "missing" if shape is None else str(tuple(shape))
