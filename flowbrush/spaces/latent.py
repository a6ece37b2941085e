"""Latent space (Rombach et al. 2022): the flow lives in what a frozen autoencoder sees.

x = (latent - mean) * scale, as diffusers does with `shift_factor` and `scaling_factor`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from flowbrush.errors import UserError
from flowbrush.processes import choose_device
from flowbrush.randomness import normal
from flowbrush.spaces.autoencoders import load_autoencoder
from flowbrush.spaces.pixel import PixelSpace

DECODING = ("decoder", "post_quant_conv")  # the parts of an autoencoder that work on latents
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
LOG_VARIANCE = (-30.0, 20.0)  # diffusers' bounds


@dataclass(frozen=True, kw_only=True)
class LatentConfig:
    """An autoencoder, and how its latents are brought to unit scale."""

    model: str = "stabilityai/sd-vae-ft-mse"  # diffusers' format: a folder, or a name on the hub
    mean: tuple[float, ...] = ()  # one number, or one a channel; empty = the autoencoder's, or 0
    scale: tuple[float, ...] = ()  # of latent - mean; empty = the autoencoder's
    sample: bool = True  # from the posterior, anew at each step; False takes its mean
    slice: int = 8  # pictures that go through the autoencoder together
    dtype: Literal["fp32", "bf16"] = "fp32"  # of the autoencoder's weights and computing
    decode_device: str = ""  # empty = where the network is; "cpu" leaves a full GPU alone

    def __post_init__(self) -> None:
        if self.slice < 1 or 0 in self.scale:
            raise UserError("space: slice must be 1 or more, and scale not 0")

    def load(self, device: torch.device) -> nn.Module:
        """The autoencoder as it was published, in fp32. Raises as `load_autoencoder` does."""
        return load_autoencoder(self.model).to(device)

    def build(self, device: torch.device) -> "LatentSpace":
        """Raises UserError as `load` does, and where mean or scale do not fit the channels."""
        return LatentSpace(self.load(torch.device("cpu")), self, device)


class LatentSpace:
    """A Space over a ready autoencoder of diffusers, which it freezes, casts and moves."""

    def __init__(self, autoencoder: nn.Module, config: LatentConfig, device: torch.device) -> None:
        """Raises UserError where mean or scale do not fit the channels, or a device is missing."""
        self.autoencoder: Any = autoencoder.eval().requires_grad_(False)
        self.config, self.device, self.dtype = config, device, DTYPES[config.dtype]
        self.decode_device = _decode_device(config.decode_device) or device
        parts: Any = autoencoder.named_children()  # torch's stubs know no memory_format
        for name, part in parts:
            place = self.decode_device if name in DECODING else device
            part.to(place, self.dtype, memory_format=torch.channels_last)  # 1.1 x as fast on a CPU
        self.pixels = PixelSpace()

        settings: Any = autoencoder.config
        widths = settings.get("encoder_block_out_channels") or settings["block_out_channels"]
        self.factor = 2 ** (len(widths) - 1)
        self.channels: int = settings["latent_channels"]
        shift, std = settings.get("shift_factor") or 0.0, settings.get("latents_std") or (1.0,)
        scale = config.scale or [settings["scaling_factor"] / channel for channel in std]
        mean = config.mean or settings.get("latents_mean") or (shift,)
        self.mean, self.scale = self._by_channel("mean", mean), self._by_channel("scale", scale)

    def _by_channel(self, name: str, numbers: Sequence[float]) -> Float[Tensor, "c 1 1"]:
        if len(numbers) not in (1, self.channels):
            raise UserError(
                f"space.{name}: {len(numbers)} numbers for {self.channels} channels; "
                f"give 1 or {self.channels}"
            )
        return torch.tensor(numbers, dtype=torch.float32, device=self.device).view(-1, 1, 1)

    def shape(self, height: int, width: int | None = None) -> tuple[int, int, int]:
        """(c, h, w). Raises UserError where a side is no multiple of the compression."""
        sides = height, width or height
        if odd := next((side for side in sides if side % self.factor), None):
            raise UserError(
                f"size: {odd} pixels; this autoencoder wants a multiple of {self.factor}"
            )
        return self.channels, sides[0] // self.factor, sides[1] // self.factor

    @torch.no_grad()
    def compress(
        self, pictures: UInt8[Tensor, "b 3 H W"] | Float[Tensor, "b s h w"]
    ) -> Float[Tensor, "b s h w"]:
        """fp32 latents (s = c); of AutoencoderKL the posterior's mean and log-variance (s = 2c).

        What was compressed and stored before passes as it is.
        """
        if pictures.is_floating_point():
            return pictures
        return torch.cat([self._encode(part) for part in pictures.split(self.config.slice)])

    def _encode(self, pictures: UInt8[Tensor, "b 3 H W"]) -> Float[Tensor, "b s h w"]:
        x = self.pixels.normalize(pictures.to(self.device), ())
        x = x.to(self.dtype, memory_format=torch.channels_last)
        encoded = self.autoencoder.encode(x, return_dict=False)[0]
        stored = encoded if isinstance(encoded, Tensor) else encoded.parameters
        return stored.float().contiguous()

    def draw(
        self, stored: Float[Tensor, "b s h w"], keys: Sequence[int]
    ) -> Float[Tensor, "b c h w"]:
        """The autoencoder's own latents, before mean and scale; of a posterior, by each key."""
        stored = stored.to(self.device, torch.float32)
        if stored.shape[1] == self.channels:
            return stored
        mean, log_variance = stored.chunk(2, dim=1)
        if not self.config.sample:
            return mean
        std = (log_variance.clamp(*LOG_VARIANCE) / 2).exp()
        noise = normal(keys, mean.shape[1:], self.device)
        return mean + std * noise.view(mean.shape)  # one key for many would broadcast unseen

    def normalize(
        self, stored: Float[Tensor, "b s h w"], keys: Sequence[int]
    ) -> Float[Tensor, "b c h w"]:
        """Unit scale. keys: one a picture, from which the posterior's noise is drawn."""
        return (self.draw(stored, keys) - self.mean) * self.scale

    @torch.no_grad()
    def decode(self, x: Float[Tensor, "b c h w"]) -> UInt8[Tensor, "b 3 H W"]:
        """Pictures on `decode_device`."""
        latents = x.to(self.device, torch.float32) / self.scale + self.mean
        latents = latents.to(self.decode_device, self.dtype, memory_format=torch.channels_last)
        return torch.cat([self._decode(part) for part in latents.split(self.config.slice)])

    def _decode(self, latents: Float[Tensor, "b c h w"]) -> UInt8[Tensor, "b 3 H W"]:
        decoded = self.autoencoder.decode(latents, return_dict=False)[0]
        return self.pixels.decode(decoded).contiguous()


def _decode_device(wanted: str) -> torch.device | None:
    try:
        return choose_device(wanted) if wanted else None
    except UserError as error:
        raise UserError(str(error).replace("--device", "space.decode_device")) from None
