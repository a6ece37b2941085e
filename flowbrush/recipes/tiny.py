"""A recipe's whole way in a minute, without a download: every part small, its weights random.

The data are the drawn world, or a few emoji where the recipe learns classes.
"""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from flowbrush.backbones import (
    BackboneConfig,
    DiTConfig,
    FluxConfig,
    JiTConfig,
    MMDiTConfig,
    PixArtConfig,
    UNetConfig,
)
from flowbrush.data import EmojiConfig, ShapesWorldConfig
from flowbrush.experiment import ExperimentConfig
from flowbrush.spaces import LatentConfig
from flowbrush.spaces.tiny import tiny_autoencoder
from flowbrush.text import CLIPConfig, LabelsConfig, LLMConfig, T5Config
from flowbrush.text.tiny import tiny_clip, tiny_llm, tiny_t5

SIZE, BATCH, STEPS = 32, 8, 20
WORLD = ShapesWorldConfig(scenes=1_000)


def tiny(config: ExperimentConfig, models: Path) -> ExperimentConfig:
    """The recipe with small parts; its models are written into `models`."""
    labels = isinstance(config.text, LabelsConfig)
    space = config.space
    if isinstance(space, LatentConfig):
        place = models / "vae"
        if not place.exists():
            tiny_autoencoder(place, factor=4)
        space = replace(space, model=str(place))
    return replace(
        config,
        name=f"{config.name}-tiny",
        size=SIZE,
        source=EmojiConfig(concepts=8, languages=("en",)) if labels else WORLD,
        batch=replace(config.batch, size=BATCH, workers=0, captions=()),
        space=space,
        text=_text(config.text, models),
        backbone=_backbone(config.backbone),
        train=replace(
            config.train, pictures=STEPS * BATCH, warmup=BATCH, accumulate=1, precision="fp32"
        ),
        sampling=replace(config.sampling, steps=2),
        watch=replace(config.watch, log=BATCH, checkpoint=10 * BATCH, preview=10 * BATCH),
    )


def _text(text: Any, models: Path) -> Any:
    """Of the same kind, with every model in it tiny."""
    if isinstance(text, CLIPConfig):
        place = models / ("clip-projected" if text.projected else "clip")
        if not place.exists():
            tiny_clip(place, place, projection=32 if text.projected else None)
        return replace(text, model=str(place), tokenizer="", dtype="fp32")
    if isinstance(text, T5Config):
        place = models / "t5"
        if not place.exists():
            tiny_t5(place, place)
        return replace(text, model=str(place), tokenizer="", dtype="fp32")
    if isinstance(text, LLMConfig):
        place = models / "llm"
        if not place.exists():
            tiny_llm(place, place)
        return replace(text, model=str(place), tokenizer="", dtype="fp32")
    parts = {f.name: getattr(text, f.name) for f in fields(text)}
    inner = {k: _text(v, models) for k, v in parts.items() if isinstance(v, CLIPConfig | T5Config)}
    return replace(text, **inner)


def _backbone(backbone: BackboneConfig) -> BackboneConfig:
    """Of the same kind, with a few blocks of width 64."""
    size: dict[str, Any] = {"width": 64, "heads": 4}
    match backbone:
        case JiTConfig():
            return replace(backbone, **size, depth=3, patch=8, bottleneck=16, context_start=1)
        case FluxConfig():
            axes = (4, 6, 6)
            return replace(backbone, **size, double_depth=1, single_depth=2, axes=axes, patch=2)
        case MMDiTConfig():
            dual = min(1, backbone.dual_attention_blocks)
            return replace(backbone, **size, depth=3, patch=2, dual_attention_blocks=dual)
        case DiTConfig() | PixArtConfig():
            return replace(backbone, **size, depth=3, patch=2)
        case UNetConfig():
            return replace(backbone, width=16)
