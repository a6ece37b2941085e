"""jax-flow (Frans 2024), on ImageNet's classes: DiT in latents, trained by flow matching in JAX.

https://github.com/kvfrans/jax-flow. Read ImageNet from `--source.path FOLDER`, a folder a class.
Costs are the network's alone: three times the FLOPs of its forward pass, counted, at 55 % of an
H200's 790 TFLOP/s; the autoencoder adds 0.27 TFLOP a picture. There all is fp32, and t is at most
0.99 where noise and data are mixed; here neither.
"""

from dataclasses import replace

from flowbrush.backbones import BackboneConfig, DiTConfig, FluxConfig, PixArtConfig
from flowbrush.data import FolderConfig
from flowbrush.data.batches import BatchConfig
from flowbrush.experiment import ExperimentConfig, TrainConfig, WatchConfig
from flowbrush.flow.denoiser import FlowConfig
from flowbrush.flow.sampling import SamplingConfig
from flowbrush.flow.times import TimesConfig
from flowbrush.spaces import LatentConfig
from flowbrush.text import CLIPConfig, FluxTextConfig, LabelsConfig, T5Config, TextConfig

STEPS, BATCH, SCALE = 1_000_000, 256, 10_000.0

DIT = DiTConfig(time_scale=SCALE, init="jax_flow")
DEBUG = replace(DIT, depth=2, width=64, heads=2, patch=8, mlp_ratio=1.0)
BIG = replace(DIT, depth=12, width=768, heads=12, patch=2)
SEMILARGE = replace(DIT, depth=22, width=1024, heads=16, patch=2)
LARGE = replace(DIT, depth=24, width=1024, heads=16, patch=2)
XLARGE = replace(DIT, depth=28, width=1152, heads=16, patch=2)


def jax_flow_debug() -> ExperimentConfig:
    """jax-flow's smallest preset, 0.2 M parameters: to see that everything runs.

    Source: the repository. Cost: as much as reading and encoding the pictures. Result: none
    published.
    """
    return _jax_flow("jax-flow-debug", DEBUG)


def jax_flow_big() -> ExperimentConfig:
    """jax-flow's DiT-B/2 at 256 px, 130 M parameters.

    Source: the repository. Cost: 1,000,000 steps, 23 H200-hours, estimated. Result: FID-50K 17.9 at
    20 Euler steps, 15.5 at 500, after its README, which took 16 heads (`--backbone.heads 16`) and
    batches of 512; not measured here.
    """
    return _jax_flow("jax-flow-big", BIG)


def jax_flow_semilarge() -> ExperimentConfig:
    """jax-flow's DiT-L/2 less two blocks at 256 px, 420 M parameters.

    Source: the repository. Cost: 1,000,000 steps, 73 H200-hours, estimated. Result: none published.
    """
    return _jax_flow("jax-flow-semilarge", SEMILARGE)


def jax_flow_large() -> ExperimentConfig:
    """jax-flow's DiT-L/2 at 256 px, 458 M parameters.

    Source: the repository. Cost: 1,000,000 steps, 79 H200-hours, estimated. Result: none published.
    """
    return _jax_flow("jax-flow-large", LARGE)


def jax_flow_xlarge() -> ExperimentConfig:
    """jax-flow's DiT-XL/2 at 256 px, 675 M parameters.

    Source: the repository. Cost: 1,000,000 steps, 116 H200-hours, estimated. Result: none
    published.
    """
    return _jax_flow("jax-flow-xlarge", XLARGE)


def jax_flow_text() -> ExperimentConfig:
    """Text to image as a fork of jax-flow does it: cross-attention to CLIP's tokens, 119 M.

    Captions come from `--source.path FOLDER`. Source: the fork. Cost: 1,000,000 steps, 28
    H200-hours, estimated. Result: none published.
    """
    backbone = PixArtConfig(depth=12, width=768, heads=12, time_scale=SCALE)
    return _jax_flow("jax-flow-text", backbone, CLIPConfig(model="openai/clip-vit-base-patch32"))


def jax_flow_flux() -> ExperimentConfig:
    """Text to image with streams of text and picture that become one, as Flux: 238 M.

    T5's tokens are attended to as far as they are real; time and CLIP's vector are in adaLN-Zero.
    Captions come from `--source.path FOLDER`. Source: the fork's plan. Cost: 1,000,000 steps, 52
    H200-hours, estimated. Result: none published.
    """
    backbone = FluxConfig(
        double_depth=6,
        single_depth=12,
        width=768,
        heads=12,
        axes=(16, 24, 24),
        mask_text=True,
        time_scale=SCALE,
    )
    t5 = T5Config(model="google/flan-t5-base", tokens=128)
    return _jax_flow("jax-flow-flux", backbone, FluxTextConfig(t5=t5))


def _jax_flow(
    name: str, backbone: BackboneConfig, text: TextConfig | None = None
) -> ExperimentConfig:
    """text: None = labels."""
    return ExperimentConfig(
        name=name,
        size=256,
        source=FolderConfig(layout="auto" if text else "classes"),
        batch=BatchConfig(size=BATCH, flip=True, workers=12),
        space=LatentConfig(),
        text=text or LabelsConfig(),
        backbone=backbone,
        flow=FlowConfig(times=TimesConfig(mean=0.0, std=1.0, stratified=False)),
        train=TrainConfig(
            pictures=STEPS * BATCH,
            lr=1e-4,
            betas=(0.9, 0.99),
            warmup=0,
            clip=0.0,  # none
            ema=(0.9999,),
            ema_warmup=False,
        ),
        sampling=SamplingConfig(method="euler", steps=32, scale=4.0),
        watch=WatchConfig(log=25_600, checkpoint=50_000 * BATCH, preview=50_000 * BATCH),
    )
