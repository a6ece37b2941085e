"""SiT as published, on ImageNet's classes: DiT's networks in latents, trained by flow matching.

Scalable Diffusion Models with Transformers (Peebles & Xie 2023), Exploring Flow and Diffusion-based
Generative Models with Scalable Interpolant Transformers (Ma et al. 2024).

Read ImageNet from `--source.path FOLDER`, a folder a class. The papers' larger patches are
`--backbone.patch 4` and `--backbone.patch 8`. Costs are the network's alone: three times the FLOPs
of its forward pass, counted, at 55 % of an H200's 790 TFLOP/s; the autoencoder adds 0.27 TFLOP a
picture, which is what a step of a DiT between B/2 and L/2 takes. Results are the paper's, and so
is the sampler: Euler-Maruyama in 250 steps.
"""

from flowbrush.backbones import DiTConfig
from flowbrush.data import FolderConfig
from flowbrush.data.batches import BatchConfig
from flowbrush.experiment import ExperimentConfig, TrainConfig, WatchConfig
from flowbrush.flow.denoiser import FlowConfig
from flowbrush.flow.sampling import SamplingConfig
from flowbrush.flow.times import TimesConfig
from flowbrush.spaces import LatentConfig
from flowbrush.text import LabelsConfig

BATCH = 256

SMALL = DiTConfig(depth=12, width=384, heads=6, patch=2, double_output=True)
BASE = DiTConfig(depth=12, width=768, heads=12, patch=2, double_output=True)
LARGE = DiTConfig(depth=24, width=1024, heads=16, patch=2, double_output=True)
EXTRA_LARGE = DiTConfig(depth=28, width=1152, heads=16, patch=2, double_output=True)


def sit_s2() -> ExperimentConfig:
    """SiT-S/2 at 256 px, 33 M parameters.

    Source: the paper. Cost: 400,000 steps, 2.4 H200-hours, estimated. Result: FID-50K 57.6 without
    guidance after the paper, not measured here.
    """
    return _sit("sit-s2", SMALL, steps=400_000)


def sit_b2() -> ExperimentConfig:
    """SiT-B/2 at 256 px, 130 M parameters.

    Source: the paper. Cost: 400,000 steps, 9 H200-hours, estimated. Result: FID-50K 33.0 without
    guidance after the paper, not measured here.
    """
    return _sit("sit-b2", BASE, steps=400_000)


def sit_l2() -> ExperimentConfig:
    """SiT-L/2 at 256 px, 458 M parameters.

    Source: the paper. Cost: 400,000 steps, 32 H200-hours, estimated. Result: FID-50K 18.8 without
    guidance after the paper, not measured here.
    """
    return _sit("sit-l2", LARGE, steps=400_000)


def sit_xl2() -> ExperimentConfig:
    """SiT-XL/2 at 256 px, 675 M parameters.

    Source: the paper. Cost: 7,000,000 steps, 815 H200-hours, estimated. Result: FID-50K 2.06, and
    8.3 without guidance, after the paper, not measured here.
    """
    return _sit("sit-xl2", EXTRA_LARGE, steps=7_000_000)


def _sit(name: str, backbone: DiTConfig, steps: int) -> ExperimentConfig:
    return ExperimentConfig(
        name=name,
        size=256,
        source=FolderConfig(layout="classes"),
        batch=BatchConfig(size=BATCH, flip=True, workers=12),
        space=LatentConfig(),
        text=LabelsConfig(),
        backbone=backbone,
        flow=FlowConfig(times=TimesConfig(distribution="uniform", stratified=False)),
        train=TrainConfig(
            pictures=steps * BATCH,
            lr=1e-4,
            betas=(0.9, 0.999),
            warmup=0,
            clip=0.0,  # none
            ema=(0.9999,),
            ema_warmup=False,
        ),
        sampling=SamplingConfig(
            method="sde_euler", steps=250, last_gap=0.04, scale=1.5, guided_channels=3
        ),
        watch=WatchConfig(log=25_600, checkpoint=50_000 * BATCH, preview=50_000 * BATCH),
    )
