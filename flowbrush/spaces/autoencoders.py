"""Published autoencoders in diffusers' format, read from a folder or from the hub."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from flowbrush.errors import UserError

KINDS = ("AutoencoderKL", "AutoencoderDC", "AutoencoderTiny")


def load_autoencoder(model: str) -> nn.Module:
    """The autoencoder as it was published, in fp32 on the CPU. Reads safetensors alone.

    model: a folder, or a name on the hub, which may go on with a folder in it: `owner/name/vae`.
    Raises UserError where diffusers, the model or a weight is missing, or its kind is unknown.
    """
    diffusers, folder = import_diffusers(), Path(model)
    is_here = folder.is_dir()
    words = [model] if is_here else model.split("/")
    place, subfolder = "/".join(words[:2]), "/".join(words[2:]) or None
    if is_here and not (folder / "config.json").is_file():
        raise UserError(
            f"space.model: {folder} has no config.json; give the folder of a diffusers "
            "autoencoder (of a pipeline: its folder vae)"
        )
    try:
        settings = diffusers.AutoencoderKL.load_config(place, subfolder=subfolder)
    except (OSError, ValueError) as error:
        if is_here:
            raise _unreadable(folder, error) from None
        raise UserError(
            f"space.model: '{model}' is no folder here, and not to be had from the hub "
            "(unknown, closed, or no network); download it elsewhere and give its folder"
        ) from None
    kind = settings.get("_class_name") if isinstance(settings, dict) else None
    if kind not in KINDS:
        raise UserError(f"space.model: {folder} is of kind {kind}; known are {', '.join(KINDS)}")
    try:
        autoencoder, report = getattr(diffusers, kind).from_pretrained(
            place,
            subfolder=subfolder,
            torch_dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise _unreadable(folder, error) from None
    if missing := report["missing_keys"]:  # diffusers only warns, and leaves them unset
        raise UserError(
            f"space.model: {folder} lacks {len(missing)} of its weights ({missing[0]}); "
            "fetch it again"
        )
    return autoencoder


def _unreadable(folder: Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:200]  # it may go on below "Error(s) in loading ...:"
    return UserError(f"space.model: {folder} cannot be read ({reason})")


def import_diffusers() -> Any:
    """Raises UserError where it is not installed."""
    try:
        import diffusers
    except ImportError:
        raise UserError("space: diffusers is missing; pip install 'flowbrush[hf]'") from None
    return diffusers
