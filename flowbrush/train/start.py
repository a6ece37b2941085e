"""First weights out of another run, rather than by chance."""

from pathlib import Path
from typing import Any

from torch import nn

from flowbrush import checkpoint
from flowbrush.backbones.dit import DiT
from flowbrush.backbones.pixart import PixArt
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
    found = there.state_dict()
    checkpoint.check_fits(found, backbone, f"train.start: {run} is of another network")
    backbone.load_state_dict(found)
