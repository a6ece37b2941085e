"""Experiments small enough for a test; `tiny.py:tiny` is a recipe for the command line as well."""

from dataclasses import replace

import torch

from flowbrush.backbones import DiTConfig, JiTConfig
from flowbrush.data import ShapesWorldConfig
from flowbrush.data.batches import BatchConfig
from flowbrush.experiment import (
    ExperimentConfig,
    TrainConfig,
    WatchConfig,
    build_denoiser,
    build_shapes,
)
from flowbrush.flow.denoiser import FlowConfig
from flowbrush.flow.sampling import SamplingConfig
from flowbrush.text_to_image import TextToImage


def tiny() -> ExperimentConfig:
    """A JiT of 10,000 weights on 200 drawn scenes; two averages, dropout, accumulation."""
    return ExperimentConfig(
        name="tiny",
        size=16,
        source=ShapesWorldConfig(scenes=200),
        batch=BatchConfig(size=8, flip=True),
        backbone=JiTConfig(
            depth=2, width=16, heads=2, patch=8, bottleneck=8, context_start=1, tokens_per_text=2
        ),
        flow=FlowConfig(prediction="data"),
        train=TrainConfig(
            pictures=160,
            accumulate=2,
            lr=1e-3,
            warmup=32,
            schedule="cosine",
            ema=(0.9, 0.5),
            precision="fp32",
        ),
        sampling=SamplingConfig(steps=2),
        watch=WatchConfig(
            log=16, checkpoint=40, preview=80, prompts=("a large red circle", "青い四角が三つ")
        ),
    )


def untrained(config: ExperimentConfig) -> TextToImage:
    """What would paint, if it had learned anything."""
    device = torch.device("cpu")
    encoder, space = config.text.build(device), config.space.build(device)
    denoiser = build_denoiser(config, build_shapes(config, space, encoder), device)
    return TextToImage(config, denoiser, encoder, space, device)


def longer() -> ExperimentConfig:
    """Long enough to be killed in the middle: 375 steps, a checkpoint every 10."""
    config = tiny()
    return replace(
        config,
        train=replace(config.train, pictures=3_000),
        watch=replace(config.watch, checkpoint=80, preview=3_000),
    )


def endless() -> ExperimentConfig:
    """With a learning rate that Python lets one write."""
    return replace(tiny(), train=replace(tiny().train, lr=float("inf")))


def tiny_dit() -> ExperimentConfig:
    """The same for labels."""
    from flowbrush.data import IdxConfig
    from flowbrush.text import LabelsConfig

    return replace(
        tiny(),
        size=28,
        source=IdxConfig(),
        text=LabelsConfig(),
        backbone=DiTConfig(depth=1, width=16, heads=2, patch=7),
        flow=FlowConfig(prediction="velocity"),
        watch=WatchConfig(prompts=("3", "7")),
    )
