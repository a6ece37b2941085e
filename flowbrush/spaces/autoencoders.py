"""Published autoencoders in diffusers' format, read from a folder or from the hub."""

from typing import Any

import torch
from torch import nn

from flowbrush.errors import UserError
from flowbrush.finite import check_finite
from flowbrush.hub import located, reading

FIELD, HELD = "space.model", "config.json (of a pipeline: in vae)"
KINDS = ("AutoencoderKL", "AutoencoderDC", "AutoencoderTiny")


def load_autoencoder(model: str) -> nn.Module:
    """The autoencoder as it was published, in fp32 on the CPU. Reads safetensors alone.

    model: a folder, or a name on the hub, which may go on with a folder in it: `owner/name/vae`.
    Raises UserError where diffusers, the model or a weight is missing, a weight is not finite,
    or its kind is unknown.
    """
    diffusers = import_diffusers()
    place, subfolder = located(model, ("config.json",), HELD, FIELD)
    with reading(model, FIELD):
        settings = diffusers.AutoencoderKL.load_config(place, subfolder=subfolder or None)
    kind = settings.get("_class_name") if isinstance(settings, dict) else None
    if kind not in KINDS:
        raise UserError(f"{FIELD}: {model} is of kind {kind}; known are {', '.join(KINDS)}")
    with reading(model, FIELD):
        autoencoder, report = getattr(diffusers, kind).from_pretrained(
            place,
            subfolder=subfolder or None,
            torch_dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
        )
    if missing := report["missing_keys"]:  # diffusers only warns, and leaves them unset
        raise UserError(
            f"{FIELD}: {model} lacks {len(missing)} of its weights ({missing[0]}); fetch it again"
        )
    check_finite(autoencoder.state_dict(), f"{FIELD}: {model}")
    return autoencoder


def import_diffusers() -> Any:
    """Raises UserError where it is not installed."""
    try:
        import diffusers
    except ImportError:
        raise UserError("space: diffusers is missing; pip install 'flowbrush[hf]'") from None
    return diffusers
