"""JiT as published, on ImageNet's classes.

Back to Basics: Let Denoising Generative Models Denoise (Li & He 2025).

Read ImageNet from `--source.path FOLDER`, a folder a class. Trained on 8 GPUs there; weights that
were published are taken in by `flowbrush import jit FILE --to RUN`. Guidance of 2.9 (B) and 2.2 (H)
is the authors'; L's lies between.
"""

from dataclasses import replace

from flowbrush.backbones import JiTConfig
from flowbrush.data import FolderConfig
from flowbrush.data.batches import BatchConfig
from flowbrush.experiment import ExperimentConfig, TrainConfig, WatchConfig
from flowbrush.flow.denoiser import FlowConfig
from flowbrush.flow.sampling import SamplingConfig
from flowbrush.flow.times import TimesConfig
from flowbrush.text import LabelsConfig

EPOCH = 1_281_167  # pictures of ImageNet

BASE = JiTConfig(depth=12, width=768, heads=12, bottleneck=128, context_start=4)
LARGE = JiTConfig(depth=24, width=1024, heads=16, bottleneck=128, context_start=8)
HUGE = JiTConfig(depth=32, width=1280, heads=16, bottleneck=256, context_start=10, dropout=0.2)


def jit_b16() -> ExperimentConfig:
    """JiT-B/16 at 256 px, 131 M parameters.

    Source: the paper. Cost: 600 epochs, 74 H200-hours at 55 % of its peak, estimated. Result:
    FID-50K 3.66 after the paper, not measured here.
    """
    return _jit("jit-b16", BASE, patch=16, scale=2.9)


def jit_b32() -> ExperimentConfig:
    """JiT-B/32 at 512 px, 133 M parameters.

    Source: the paper. Cost: as `jit-b16`, which has as many tokens. Result: FID-50K 4.02 after the
    paper, not measured here.
    """
    return _jit("jit-b32", BASE, patch=32, scale=2.9)


def jit_l16() -> ExperimentConfig:
    """JiT-L/16 at 256 px, 459 M parameters.

    Source: the paper. Cost: 600 epochs, 259 H200-hours at 55 % of its peak, estimated. Result:
    FID-50K 2.36 after the paper, not measured here.
    """
    return _jit("jit-l16", LARGE, patch=16, scale=2.4)


def jit_l32() -> ExperimentConfig:
    """JiT-L/32 at 512 px, 462 M parameters.

    Source: the paper. Cost: as `jit-l16`. Result: FID-50K 2.53 after the paper, not measured here.
    """
    return _jit("jit-l32", LARGE, patch=32, scale=2.4)


def jit_h16() -> ExperimentConfig:
    """JiT-H/16 at 256 px, 953 M parameters.

    Source: the paper. Cost: 600 epochs, 536 H200-hours at 55 % of its peak, estimated. Result:
    FID-50K 1.86 after the paper, not measured here.
    """
    return _jit("jit-h16", HUGE, patch=16, scale=2.2)


def jit_h32() -> ExperimentConfig:
    """JiT-H/32 at 512 px, 956 M parameters.

    Source: the paper. Cost: as `jit-h16`. Result: FID-50K 1.94 after the paper, not measured here.
    """
    return _jit("jit-h32", HUGE, patch=32, scale=2.2)


def _jit(name: str, backbone: JiTConfig, patch: int, scale: float) -> ExperimentConfig:
    """Both resolutions have 256 patches; 512 px takes twice the noise."""
    return ExperimentConfig(
        name=name,
        size=16 * patch,
        source=FolderConfig(layout="classes"),
        batch=BatchConfig(size=1024, flip=True, workers=12),
        text=LabelsConfig(),
        backbone=replace(backbone, patch=patch),
        flow=FlowConfig(
            prediction="data",
            noise_scale=patch / 16,
            times=TimesConfig(mean=-0.8, std=0.8, stratified=False),
        ),
        train=TrainConfig(
            pictures=600 * EPOCH,
            lr=2e-4,
            warmup=5 * EPOCH,
            clip=0.0,  # none
            ema=(0.9999, 0.9996),
            ema_warmup=False,
        ),
        sampling=SamplingConfig(
            method="heun", steps=50, scale=scale, interval=(0.1, 1.0), interval_open_low=True
        ),
        watch=WatchConfig(log=102_400, checkpoint=EPOCH, preview=10 * EPOCH),
    )
