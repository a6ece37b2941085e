"""What an autoencoder's run shows of its averaged weights: a folder in diffusers' format, previews.

Each call computes with a copy of the weights, so training goes on as if it had not been made.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import UInt8
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from flowbrush.autoencoding import AutoencoderExperiment, build_autoencoder
from flowbrush.contact_sheet import contact_sheet
from flowbrush.data.source import Source
from flowbrush.errors import UserError
from flowbrush.evaluate.reconstruction import mean_psnr, psnr, readable, reconstructed
from flowbrush.spaces.latent import LatentConfig, LatentSpace
from flowbrush.spaces.statistics import latent_statistics

MOST_MEASURED, MOST_SHOWN = 2_000, 8  # pictures


def space_of(
    config: AutoencoderExperiment, weights: Mapping[str, Tensor], sample: bool
) -> LatentSpace:
    """The latent space of a copy of the weights, where they are, at the autoencoder's own scale."""
    device = next(iter(weights.values())).device
    autoencoder = build_autoencoder(config, device)
    autoencoder.load_state_dict(weights)
    return LatentSpace(autoencoder, LatentConfig(sample=sample), device)


def write_autoencoder(
    config: AutoencoderExperiment, weights: Mapping[str, Tensor], source: Source, folder: Path
) -> None:
    """Write the weights in diffusers' format, so that the folder is whole or not there.

    Its shift_factor and scaling_factor bring the latents of the source, all channels together, to
    mean 0 and variance 1. Raises UserError where the folder cannot be written.
    """
    space = space_of(config, weights, sample=True)
    (mean,), (std,) = latent_statistics(space, readable(source, MOST_MEASURED)).together()
    space.autoencoder.register_to_config(shift_factor=mean, scaling_factor=1 / std)

    aside, before = (folder.with_name(f".{folder.name}-{word}") for word in ("aside", "before"))
    shutil.rmtree(aside, ignore_errors=True)
    try:
        space.autoencoder.save_pretrained(aside)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise UserError(f"{folder}: cannot be written ({error})") from None
    shutil.rmtree(before, ignore_errors=True)
    if folder.exists():
        folder.rename(before)
    aside.rename(folder)
    shutil.rmtree(before, ignore_errors=True)


def preview_pairs(space: LatentSpace, real: UInt8[Tensor, "b 3 H W"]) -> Image.Image:
    """The real pictures above what the autoencoder makes of them, with its PSNR."""
    again = reconstructed(space, real)
    captions = [""] * len(real) + [f"{value:.1f} dB" for value in psnr(real, again).tolist()]
    return contact_sheet(torch.cat([real, again]), captions, columns=len(real))


def shown_pictures(held_out: Source, source: Source) -> UInt8[Tensor, "_ 3 size size"]:
    """What the previews show: held-out pictures, or else those trained on.

    Raises UserError where none can be read.
    """
    for part in (held_out, source):
        for pictures in readable(part, MOST_SHOWN, MOST_SHOWN):
            return pictures
    raise UserError("source: none of the pictures for the previews can be read")


def psnr_of(space: LatentSpace, held_out: Source, source: Source) -> str:
    """The mean PSNR in words: of held-out pictures, or else of those trained on."""
    which, part = ("held-out", held_out) if len(held_out) else ("training", source)
    return f"{mean_psnr(space, part, MOST_MEASURED):.2f} dB PSNR on {which} pictures"
