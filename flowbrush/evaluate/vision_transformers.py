"""Picture features of CLIP (Radford et al. 2021) and DINOv2 (Oquab et al. 2023)."""

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from flowbrush.errors import UserError
from flowbrush.evaluate.network_input import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    bicubic,
    in_batches,
    standardized,
)
from flowbrush.text.cached import CachedEncoder
from flowbrush.text.clip import CLIPConfig
from flowbrush.text.pretrained import import_transformers, load_model, model_type

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, kw_only=True)
class CLIPFeaturesConfig:
    """A CLIP in transformers' format: for CMMD the one below, for CLIP scores any."""

    model: str = "openai/clip-vit-large-patch14-336"  # a name on the hub, or a folder

    def build(self, device: torch.device) -> "CLIPFeatures":
        """Raises UserError where the model cannot be had."""
        return CLIPFeatures(_loaded(self.model, "CLIPVisionModelWithProjection", device), device)

    def build_text(self, device: torch.device) -> CachedEncoder:
        """Captions -> vectors to compare with the pictures' (`pooled`), not yet of unit length.

        Raises UserError where the model cannot be had.
        """
        with _naming("clip.model"):
            return CLIPConfig(model=self.model, projected=True).build(device)


@dataclass(frozen=True, kw_only=True)
class DINOv2Config:
    """A DINOv2 in transformers' format; FD-DINOv2 (Stein et al. 2023) is of the one below."""

    model: str = "facebook/dinov2-large"  # a name on the hub, or a folder

    def build(self, device: torch.device) -> "DINOv2Features":
        """Raises UserError where the model cannot be had."""
        return DINOv2Features(_loaded(self.model, "Dinov2Model", device), device)


class CLIPFeatures:
    """PictureFeatures: CLIP's picture embedding, of unit length.

    The whole picture is resized as the published code of CMMD does it (jax.image.resize, bicubic).
    """

    def __init__(self, model: Any, device: torch.device) -> None:
        """model: a CLIPVisionModelWithProjection, frozen and on the device."""
        self._model, self._device, self._size = model, device, model.config.image_size
        self.width = model.config.projection_dim
        mark = _mark(model.visual_projection.weight)
        self.name = f"CLIP, {self.width} wide, {self._size} px ({mark})"

    def __call__(self, pictures: UInt8[Tensor, "b 3 H W"]) -> Float[Tensor, "b d"]:
        return in_batches(self._embedding, pictures, self.width, self._device)

    def _embedding(self, pictures: UInt8[Tensor, "b 3 H W"]) -> Float[Tensor, "b d"]:
        x = standardized(bicubic(pictures, self._size), CLIP_MEAN, CLIP_STD)
        return normalize(self._model(pixel_values=x).image_embeds)


class DINOv2Features:
    """PictureFeatures: the class token after the last layer's norm, of the picture at 224 px.

    Resized as by Pillow to bytes. Positions are those of the original code: transformers' lie a
    little aside of them.
    """

    SIZE = 224

    def __init__(self, model: Any, device: torch.device) -> None:
        """model: a Dinov2Model, frozen and on the device; its positions are fitted to 224 px."""
        self._model, self._device, self.width = model, device, model.config.hidden_size
        self.name = f"DINOv2, {self.width} wide, {self.SIZE} px ({_mark(model.layernorm.weight)})"
        side = self.SIZE // model.config.patch_size
        known = model.embeddings.position_embeddings
        fitted = fitted_positions(known.detach(), side)
        model.embeddings.position_embeddings = torch.nn.Parameter(fitted, requires_grad=False)

    def __call__(self, pictures: UInt8[Tensor, "b 3 H W"]) -> Float[Tensor, "b d"]:
        return in_batches(self._class_token, pictures, self.width, self._device)

    def _class_token(self, pictures: UInt8[Tensor, "b 3 H W"]) -> Float[Tensor, "b d"]:
        pixels = bicubic(pictures, self.SIZE).round().clamp(0, 255)
        x = standardized(pixels, IMAGENET_MEAN, IMAGENET_STD)
        return self._model(pixel_values=x).pooler_output


def fitted_positions(known: Float[Tensor, "1 n d"], side: int) -> Float[Tensor, "1 m d"]:
    """For side x side patches, as DINOv2's own code has them: scaled by (side + 0.1) / before."""
    before = math.isqrt(known.shape[1] - 1)
    if before == side:
        return known
    grid = known[:, 1:].unflatten(1, (before, before)).movedim(3, 1)
    scale = (side + 0.1) / before  # 0.1 is there against rounding, and shifts all but the first
    grid = interpolate(grid, scale_factor=(scale, scale), mode="bicubic", align_corners=False)
    return torch.cat([known[:, :1], grid.movedim(1, 3).flatten(1, 2)], dim=1)


def _loaded(place: str, cls: str, device: torch.device) -> Any:
    wanted = "dinov2" if cls == "Dinov2Model" else "clip"
    with _naming(f"{wanted}.model"):
        transformers = import_transformers()
        if (kind := model_type(place)).removesuffix("_vision_model") != wanted:
            raise UserError(f"text: {place} is a {kind}, not a {wanted}")
        return load_model(getattr(transformers, cls).from_pretrained, place, "fp32", device)


@contextmanager
def _naming(field: str) -> Iterator[None]:
    """The readers of text encoders name their own field in what they raise; here it is another."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error).replace("text:", f"{field}:", 1)) from None


def _mark(weights: Float[Tensor, "..."]) -> str:
    """Eight letters that tell two models apart, wherever their files lie."""
    numbers = weights.detach().float().cpu().numpy().tobytes()
    return hashlib.blake2b(numbers, digest_size=4).hexdigest()
