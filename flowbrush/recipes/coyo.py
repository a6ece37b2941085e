"""Text to image from pairs off the web (COYO-700M: Byeon et al. 2022), in latents.

img2dataset downloads the pairs into tar shards: `--source.path 'coyo/{00000..69999}.tar'`, here or
in remote storage. Of parquet files a recipe of one's own is made by `replace(coyo(),
source=ParquetConfig(path=Path("coyo")))`. Costs are the network's alone: three times the FLOPs of
its forward pass, counted, at 55 % of an H200's 790 TFLOP/s; `flowbrush prepare` encodes pictures
and texts beforehand, once. A mock run that needs nothing: `flowbrush train coyo --tiny`.
"""

from flowbrush.backbones import BackboneConfig, MMDiTConfig, PixArtConfig
from flowbrush.data import TarShardsConfig
from flowbrush.data.batches import BatchConfig
from flowbrush.experiment import ExperimentConfig, TrainConfig, WatchConfig
from flowbrush.flow.denoiser import FlowConfig
from flowbrush.flow.sampling import SamplingConfig
from flowbrush.flow.times import TimesConfig
from flowbrush.spaces import LatentConfig
from flowbrush.text import CLIPConfig, FluxTextConfig, T5Config, TextConfig

STEPS, BATCH = 500_000, 256
PROMPTS = (
    "a beautiful sunset over mountains",
    "a photo of a cat on a sofa",
    "a red bicycle in front of a shop",
    "a bowl of ramen, from above",
)
LARGE = PixArtConfig(depth=24, width=1024, heads=16)


def coyo() -> ExperimentConfig:
    """COYO with CLIP ViT-L/14: 413 M parameters that attend to its tokens, at 256 px.

    Source: the guide of a jax-flow fork. Cost: 500,000 steps of 256, 48 H200-hours, estimated.
    Result: none published.
    """
    return _coyo("coyo", CLIPConfig(), LARGE)


def coyo_t5() -> ExperimentConfig:
    """COYO with T5-XXL, which reads long descriptions: 416 M parameters at 256 px.

    Source: as `coyo`, after PixArt. Cost: 500,000 steps of 256, 50 H200-hours, estimated. Result:
    none published.
    """
    return _coyo("coyo-t5", T5Config(tokens=120, dtype="bf16"), LARGE)


def coyo_clip_t5() -> ExperimentConfig:
    """COYO with both: an MMDiT of 903 M parameters with T5's tokens and CLIP's vector, at 256 px.

    Source: as `coyo`, after Stable Diffusion 3. Cost: 500,000 steps of 256, 60 H200-hours,
    estimated. Result: none published.
    """
    text = FluxTextConfig(t5=T5Config(tokens=128, dtype="bf16"))
    backbone = MMDiTConfig(depth=24, width=1024, heads=16, qk_norm=True)
    return _coyo("coyo-clip-t5", text, backbone)


def _coyo(name: str, text: TextConfig, backbone: BackboneConfig) -> ExperimentConfig:
    return ExperimentConfig(
        name=name,
        size=256,
        source=TarShardsConfig(path="coyo"),
        batch=BatchConfig(size=BATCH, workers=12, window=64),
        space=LatentConfig(),
        text=text,
        backbone=backbone,
        flow=FlowConfig(times=TimesConfig(mean=0.0, std=1.0)),
        train=TrainConfig(pictures=STEPS * BATCH, lr=1e-4, warmup=1_000 * BATCH, ema=(0.9999,)),
        sampling=SamplingConfig(method="heun", steps=25, scale=4.0, interval=(0.05, 0.95)),
        watch=WatchConfig(
            log=25_600, checkpoint=10_000 * BATCH, preview=10_000 * BATCH, prompts=PROMPTS
        ),
    )
