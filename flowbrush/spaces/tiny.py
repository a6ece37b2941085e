"""A small autoencoder with random weights: latents for mock runs and tests, without a download."""

from pathlib import Path

import torch

from flowbrush.errors import UserError
from flowbrush.spaces.autoencoders import import_diffusers


def tiny_autoencoder(
    folder: Path, channels: int = 4, factor: int = 8, width: int = 8, seed: int = 0
) -> Path:
    """Writes an AutoencoderKL that compresses `factor` times into `folder`, in diffusers' format.

    width: of its layers, a multiple of 4. Its latents need no scale.
    Raises UserError where diffusers is missing or `factor` is no power of 2.
    """
    if factor < 1 or factor & (factor - 1):
        raise UserError(f"space: an autoencoder compresses by a power of 2, not by {factor}")
    levels = factor.bit_length()
    diffusers = import_diffusers()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        autoencoder = diffusers.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=(width,) * levels,
            norm_num_groups=4,
            latent_channels=channels,
            scaling_factor=1.0,
        )
    autoencoder.save_pretrained(folder)
    return folder
