"""Runs of text-to-image networks with every part tiny and every weight random, on a disk."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from flowbrush import checkpoint, config_io
from flowbrush.backbones import FluxConfig, MMDiTConfig, PixArtConfig
from flowbrush.config_io import to_json
from flowbrush.experiment import ExperimentConfig, TrainConfig, build_denoiser, build_shapes
from flowbrush.flow.denoiser import FlowConfig
from flowbrush.flow.diffusion import DiffusionConfig
from flowbrush.flow.sampling import SamplingConfig
from flowbrush.spaces import LatentConfig
from flowbrush.spaces.tiny import tiny_autoencoder
from flowbrush.text import CLIPConfig, FluxTextConfig, SD3TextConfig, T5Config
from flowbrush.text.tiny import tiny_clip, tiny_t5

CPU = torch.device("cpu")


def write_models(folder: Path) -> None:
    """An autoencoder, three CLIPs and a T5, each beside its tokenizer."""
    tiny_autoencoder(folder / "vae", channels=4, factor=4)
    tiny_clip(folder / "clip", folder / "clip")
    tiny_clip(folder / "clip_l", folder / "clip_l", projection=32)
    tiny_clip(folder / "clip_g", folder / "clip_g", width=16, projection=48)
    tiny_t5(folder / "t5", folder / "t5")


def experiments(models: Path) -> dict[str, ExperimentConfig]:
    def sd3_clip(name: str) -> CLIPConfig:
        return CLIPConfig(
            model=str(models / name), layer="penultimate", projected=True, padding="attended"
        )

    t5 = T5Config(model=str(models / "t5"), tokens=20, padding="attended")
    base = ExperimentConfig(
        name="picture",
        size=32,
        space=LatentConfig(model=str(models / "vae")),
        train=TrainConfig(precision="fp32", ema=()),
        sampling=SamplingConfig(method="euler", steps=7, scale=3.3, shift=3.0, last_gap=0.013),
    )
    shifted = replace(base, space=replace(base.space, mean=(0.1,), scale=(0.9,)))
    flux = FluxConfig(double_depth=1, single_depth=2, width=32, heads=2, axes=(4, 6, 6))
    mmdit = MMDiTConfig(
        depth=3, width=32, heads=2, qk_norm=True, dual_attention_blocks=1, positions=16,
        position_span=8.0,
    )  # fmt: skip
    pixart = PixArtConfig(depth=2, width=32, heads=2, time_scale=-1000.0)
    flux_text = FluxTextConfig(clip=CLIPConfig(model=str(models / "clip")), t5=t5)
    sd3_text = SD3TextConfig(clip_l=sd3_clip("clip_l"), clip_g=sd3_clip("clip_g"), t5=t5, width=64)
    own_guidance = replace(base.sampling, scale=1.0, last_gap=None)
    pixart_text = replace(t5, padding="masked", lowercase=True)
    diffusion = DiffusionConfig()
    return {
        "flux": replace(shifted, backbone=flux, text=flux_text),
        "flux-dev": replace(
            shifted, backbone=replace(flux, guidance=2.5), text=flux_text, sampling=own_guidance
        ),
        "sd3": replace(shifted, backbone=mmdit, text=sd3_text),
        "sd3 without t5": replace(shifted, backbone=mmdit, text=replace(sd3_text, t5=None)),
        "pixart": replace(base, backbone=pixart, text=pixart_text),
        "pixart of a diffusion": replace(
            base,
            backbone=pixart,
            text=pixart_text,
            flow=FlowConfig(
                prediction="noise",
                loss_space="noise",
                t_eps=diffusion.first_time,
                diffusion=diffusion,
            ),
            sampling=SamplingConfig(method="dpmsolver++", steps=17, scale=4.5),
        ),
    }


def write_run(config: ExperimentConfig, run: Path) -> None:
    space, encoder = config.space.build(CPU), config.text.build(CPU)
    backbone = build_denoiser(config, build_shapes(config, space, encoder), CPU).backbone
    torch.manual_seed(1)
    for weight in backbone.parameters():
        torch.nn.init.normal_(weight, std=0.15)
    states = {
        "model": backbone.state_dict(), "progress": {"pictures": 0}, "config": to_json(config)
    }  # fmt: skip
    checkpoint.save(run / "checkpoints", 0, states, keep=1)
    config_io.save(config, run / "config.json")


def ks(one: Tensor, other: Tensor) -> float:
    """The Kolmogorov-Smirnov statistic of two samples of the same size."""
    one, other = one.sort().values, other.double().sort().values
    every = torch.cat([one, other])
    shares = [torch.searchsorted(x, every, right=True) / len(x) for x in (one, other)]
    return float((shares[0] - shares[1]).abs().max())
