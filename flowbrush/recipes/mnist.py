"""Handwritten digits."""

from flowbrush.backbones import DiTConfig
from flowbrush.data import IdxConfig
from flowbrush.data.batches import BatchConfig
from flowbrush.experiment import ExperimentConfig, TrainConfig, WatchConfig
from flowbrush.flow.denoiser import FlowConfig
from flowbrush.flow.sampling import SamplingConfig
from flowbrush.text import LabelsConfig


def mnist() -> ExperimentConfig:
    """Digits at 28 px from their class, by a small DiT that predicts the velocity."""
    return ExperimentConfig(
        name="mnist",
        size=28,
        source=IdxConfig(),
        batch=BatchConfig(size=64),
        text=LabelsConfig(),
        backbone=DiTConfig(depth=4, width=128, heads=4, patch=4),
        flow=FlowConfig(prediction="velocity"),
        train=TrainConfig(pictures=100_000, lr=1e-3, schedule="cosine", ema=(0.998,)),
        sampling=SamplingConfig(method="heun", steps=16, scale=2.0),
        watch=WatchConfig(prompts=tuple("0123456789")),
    )
