"""Imported discrete diffusions through TextToImage, as a user has them."""

from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler
from gaussians import SHAPE, PredictsNoise
from tiny import tiny_dit, untrained
from torch import nn

from flowbrush import TextToImage, text_to_image
from flowbrush.backbones import DiTConfig
from flowbrush.experiment import ExperimentConfig
from flowbrush.flow.denoiser import Denoiser, FlowConfig
from flowbrush.flow.diffusion import DiffusionConfig
from flowbrush.flow.sampling import SamplingConfig
from flowbrush.randomness import derive, normal
from flowbrush.text import LabelsConfig

CPU = torch.device("cpu")
PROMPTS, SEEDS = ["3", "7", "1", "0"], [5, 6, 7, 8]


def config(variance: str = "learned_range") -> ExperimentConfig:
    diffusion = DiffusionConfig(variance=variance)
    return replace(
        tiny_dit(),
        text=LabelsConfig(names=tuple("0123456789")),
        backbone=DiTConfig(
            depth=1, width=16, heads=2, patch=7, time_scale=-1000.0, double_output=True
        ),
        flow=FlowConfig(prediction="noise", t_eps=diffusion.first_time, diffusion=diffusion),
    )


@pytest.fixture(scope="module")
def frozen() -> TextToImage:
    model = untrained(config())
    torch.manual_seed(1)
    for weight in model.denoiser.parameters():
        nn.init.normal_(weight, std=0.2)
    parts = model.config, model.denoiser, model.encoder, model.space, CPU
    return TextToImage(*parts, frozen=True)


def knowing(variance: str) -> TextToImage:
    """Knows its data exactly, whatever the prompt; images of four pixels a side."""
    settings, parts = replace(config(variance), size=SHAPE[1]), untrained(config())
    network = PredictsNoise(DiffusionConfig(), variance=True)
    denoiser = Denoiser(network, "noise", settings.flow.t_eps)
    return TextToImage(settings, denoiser, parts.encoder, parts.space, CPU)


@pytest.mark.parametrize(
    ("method", "steps", "most"), [("heun", 25, 0.5), ("dpmsolver++", 50, 1.0), ("euler", 250, 0.5)]
)
def test_its_images_are_those_of_ddim_in_1000_steps(method, steps, most):
    model = knowing("fixed_small")
    sampling = SamplingConfig(method=method, steps=steps, scale=1.0)
    ours = model.generate(PROMPTS, sampling, SEEDS).float()
    network = PredictsNoise(DiffusionConfig())

    scheduler = DDIMScheduler(clip_sample=False)
    scheduler.set_timesteps(1000)
    x = normal([derive(seed, "picture", 0) for seed in SEEDS], SHAPE, CPU)
    for step in scheduler.timesteps:
        x = scheduler.step(network.at_step(x, float(step)), step, x).prev_sample
    assert (ours - model.space.decode(x).float()).abs().mean() < most  # of 255


@pytest.mark.parametrize("method", ["ddpm", "sde_heun"])
def test_fresh_noise_is_of_the_seed_alone(frozen, method):
    sampling = SamplingConfig(method=method, steps=9, scale=2.0)
    together = frozen.generate(PROMPTS, sampling, SEEDS).int()
    alone = frozen.generate(PROMPTS, sampling, SEEDS, batch=1).int()
    assert (together - alone).abs().max() <= 1
    other = frozen.generate(PROMPTS, sampling, [seed + 1 for seed in SEEDS]).int()
    assert (together - other).abs().float().mean() > 5


def test_ddpm_reads_the_learned_variance():
    sampling = SamplingConfig(method="ddpm", steps=9, scale=1.0)
    learned, fixed = (
        knowing(variance).generate(PROMPTS, sampling, SEEDS).float()
        for variance in ("learned_range", "fixed_small")
    )
    assert (learned - fixed).abs().mean() > 3


def test_the_times_that_the_network_sees_are_computed_ahead(frozen):
    seen = []
    hook = frozen.denoiser.backbone.time.register_forward_hook(lambda *_: seen.append(1))
    frozen.generate(PROMPTS, SamplingConfig(method="euler", steps=20, scale=2.0), SEEDS)
    hook.remove()
    assert len(seen) == 1


def test_auto_precision_keeps_a_diffusion_in_fp32(monkeypatch):
    def choose(wanted: str, device: torch.device) -> torch.dtype:
        return torch.float32 if wanted == "fp32" else torch.bfloat16

    monkeypatch.setattr(text_to_image, "choose_dtype", choose)
    for settings, dtype in ((config(), torch.float32), (tiny_dit(), torch.bfloat16)):
        auto = replace(settings, train=replace(settings.train, precision="auto"))
        assert untrained(auto).dtype == dtype
    asked = replace(config(), train=replace(config().train, precision="bf16"))
    assert untrained(asked).dtype == torch.bfloat16
