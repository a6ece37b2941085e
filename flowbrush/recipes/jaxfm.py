"""JaxFM: first ImageNet's classes, then long and short captions, in Stable Diffusion 3's latents.

Both read ArrayRecord files of latents, which were made beforehand: `--source.path FOLDER`. Other
latents than the repository's own need their `--space.mean` and `--space.scale`.
Stage 2 begins with stage 1: `flowbrush train jaxfm-stage2 --train.start runs/jaxfm-stage1`.
Costs are the network's alone: three times the FLOPs of its forward pass, counted, at 55 % of an
H200's 790 TFLOP/s; `flowbrush prepare` encodes pictures and texts beforehand, once. A mock run that
needs nothing: `flowbrush train jaxfm-stage1 --tiny`.
"""

from pathlib import Path

from flowbrush.backbones import DiTConfig, PixArtConfig
from flowbrush.data import ArrayRecordConfig
from flowbrush.data.batches import BatchConfig
from flowbrush.experiment import ExperimentConfig, TrainConfig, WatchConfig
from flowbrush.flow.denoiser import FlowConfig
from flowbrush.flow.sampling import SamplingConfig
from flowbrush.flow.times import TimesConfig
from flowbrush.spaces import LatentConfig
from flowbrush.text import LabelsConfig, T5Config

SCALE = 1.5305
SD3 = LatentConfig(
    model="stabilityai/stable-diffusion-3-medium-diffusers/vae",
    mean=(0.177456 / SCALE,),  # JaxFM subtracts its mean after the scale
    scale=(SCALE,),
)
FLOW = FlowConfig(times=TimesConfig(mean=0.0, std=1.0, stratified=False))
SAMPLING = SamplingConfig(method="euler", steps=24, scale=3.0)


def jaxfm_stage1() -> ExperimentConfig:
    """A DiT of 675 M parameters on classes at 256 px.

    Source: the repository; its average of decay 0.99 every 100 steps is 0.9999 every step. Cost:
    300,000 steps of 1,024, 140 H200-hours, estimated. Result: none published.
    """
    return ExperimentConfig(
        name="jaxfm-stage1",
        size=256,
        source=ArrayRecordConfig(path=Path("imagenet-latents")),
        batch=BatchConfig(size=1024, workers=12),
        space=SD3,
        text=LabelsConfig(),
        backbone=DiTConfig(depth=28, width=1152, heads=16, qk_norm=True),
        flow=FLOW,
        train=TrainConfig(
            pictures=300_000 * 1024,
            lr=1e-4,
            betas=(0.9, 0.999),
            weight_decay=0.03,
            warmup=2_000 * 1024,
            ema=(0.9999,),
        ),
        sampling=SAMPLING,
        watch=WatchConfig(log=102_400, checkpoint=10_000 * 1024, preview=10_000 * 1024),
    )


def jaxfm_stage2() -> ExperimentConfig:
    """A PixArt of 609 M parameters on captions, 5 % of them short, read by T5Gemma.

    Captions are the fields `short_caption` and `long_caption`. Source: the repository. Cost:
    150,000 steps of 1,280, 110 H200-hours, estimated. Result: none published.
    """
    return ExperimentConfig(
        name="jaxfm-stage2",
        size=256,
        source=ArrayRecordConfig(path=Path("captioned-latents")),
        batch=BatchConfig(size=1280, workers=12, captions=(("short", 0.05), ("long", 0.95))),
        space=SD3,
        text=T5Config(model="google/t5gemma-xl-xl-ul2", tokens=120, dtype="bf16"),
        backbone=PixArtConfig(depth=28, width=1152, heads=16, qk_norm=True, time_scale=1.0),
        flow=FLOW,
        train=TrainConfig(
            pictures=150_000 * 1280,
            accumulate=4,
            lr=1e-4,
            betas=(0.9, 0.999),
            weight_decay=0.03,
            warmup=2_000 * 1280,
            ema=(0.9999,),
        ),
        sampling=SAMPLING,
        watch=WatchConfig(log=128_000, checkpoint=5_000 * 1280, preview=5_000 * 1280),
    )
