"""A trained text-to-image run leaves as a folder that diffusers' own pipelines load.

The folder is reloaded and paints two steps beside ours before it gets its name.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from flowbrush import config_io
from flowbrush.backbones import FluxConfig, MMDiTConfig, PixArtConfig
from flowbrush.errors import UserError
from flowbrush.experiment import ExperimentConfig
from flowbrush.flow.denoiser import Denoiser
from flowbrush.flow.guidance import Guided
from flowbrush.interchange import flux, pixart, sd3
from flowbrush.interchange.rules import to_theirs
from flowbrush.interchange.text_runs import OWN_FILE
from flowbrush.randomness import normal
from flowbrush.shapes import Shapes
from flowbrush.spaces import LatentConfig
from flowbrush.text import FluxTextConfig, SD3TextConfig, T5Config, TextEncoder
from flowbrush.text.joined import T5_TOKENS

CPU = torch.device("cpu")
TOLERANCE = 1e-3  # of what two steps may differ by, in standard deviations
PROMPT = "a red apple"


@dataclass(frozen=True)
class Leaving:
    """A run on its way out, on the CPU in fp32."""

    config: ExperimentConfig
    shapes: Shapes
    backbone: nn.Module
    encoder: TextEncoder


@dataclass(frozen=True)
class Built:
    """A pipeline of diffusers. pack, unpack: our latents (b c h w) to its own, and back."""

    pipeline: Any
    call: dict[str, Any]  # how it is asked to paint as the run does
    pack: Callable[[Tensor], Tensor] = lambda x: x
    unpack: Callable[[Tensor, int], Tensor] = lambda x, rows: x
    absent: tuple[str, ...] = ()  # parts that must be said to be missing, when it is loaded


def write_folder(leaving: Leaving, folder: Path) -> str:
    """Write a pipeline into an empty folder; returns the lines of Python that paint with it.

    Raises UserError where the run cannot be said in diffusers' terms, or paints otherwise there.
    """
    builders: dict[type, Callable[[Leaving], Built]] = {
        FluxConfig: _flux,
        MMDiTConfig: _sd3,
        PixArtConfig: _pixart,
    }
    config, kind = leaving.config, type(leaving.config.backbone)
    if kind not in builders:
        raise UserError(f"backbone: diffusers has no text-to-image pipeline for a {kind.__name__}")
    if config.flow.prediction != "velocity" and config.flow.diffusion is None:
        raise UserError(
            f"flow.prediction: '{config.flow.prediction}'; this pipeline of diffusers takes a "
            "network that predicts the velocity"
        )
    if config.flow.noise_scale != 1:
        raise UserError(f"flow.noise_scale: {config.flow.noise_scale}; diffusers has 1 only")
    if config.sampling.guided_channels is not None:
        raise UserError("sampling.guided_channels: set; diffusers guides all channels")
    built = builders[kind](leaving)
    built.pipeline.save_pretrained(folder)
    _check(built, leaving, folder)
    lines = _usage(built, config)
    (folder / "README.md").write_text(_card(config, lines), "utf-8")
    config_io.save(config, folder / OWN_FILE)
    return lines


# -- the pipelines


def _flux(leaving: Leaving) -> Built:
    import diffusers

    config, backbone, text = leaving.config, leaving.config.backbone, leaving.config.text
    assert isinstance(backbone, FluxConfig)
    published = flux.published_config(backbone, leaving.shapes)  # refuses
    if not isinstance(text, FluxTextConfig) or text.clip.projected:
        raise UserError("text: FluxPipeline has a CLIP without projection and a T5")
    _must_attend({"text.t5": text.t5})
    weights = to_theirs(flux.rules(backbone), 0, leaving.backbone.state_dict())
    clip, words = text.clip.load(CPU)
    t5, pieces = text.t5.load(CPU)
    pipeline = diffusers.FluxPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=config.sampling.shift),
        vae=_autoencoder(config),
        text_encoder=clip,
        tokenizer=words,
        text_encoder_2=t5,
        tokenizer_2=pieces,
        transformer=_network(diffusers.FluxTransformer2DModel, published, weights),
    )
    call: dict[str, Any] = {
        "num_inference_steps": config.sampling.steps,
        "max_sequence_length": text.t5.tokens,
    }
    if config.sampling.scale != 1:
        call |= {"true_cfg_scale": config.sampling.scale, "negative_prompt": ""}
    if backbone.guidance is not None:
        call["guidance_scale"] = backbone.guidance
    return Built(pipeline, call, packed, unpacked)


def _sd3(leaving: Leaving) -> Built:
    import diffusers

    config, backbone, text = leaving.config, leaving.config.backbone, leaving.config.text
    assert isinstance(backbone, MMDiTConfig)
    published = sd3.published_config(backbone, leaving.shapes)  # refuses
    if not isinstance(text, SD3TextConfig):
        raise UserError("text: StableDiffusion3Pipeline has two CLIPs and a T5")
    for name, clip in {"text.clip_l": text.clip_l, "text.clip_g": text.clip_g}.items():
        if not clip.projected or clip.layer != "penultimate":
            raise UserError(f"{name}: StableDiffusion3Pipeline takes penultimate, projected")
    _must_attend({"text.clip_l": text.clip_l, "text.clip_g": text.clip_g})
    if text.t5 is not None:
        _must_attend({"text.t5": text.t5})
    rules = sd3.rules(backbone, leaving.shapes)
    weights = to_theirs(rules, backbone.depth, leaving.backbone.state_dict())
    clip_l, words_l = text.clip_l.load(CPU)
    clip_g, words_g = text.clip_g.load(CPU)
    t5, pieces = text.t5.load(CPU) if text.t5 else (None, None)
    pipeline = diffusers.StableDiffusion3Pipeline(
        scheduler=_euler(config),
        vae=_autoencoder(config),
        text_encoder=clip_l,
        tokenizer=words_l,
        text_encoder_2=clip_g,
        tokenizer_2=words_g,
        text_encoder_3=t5,
        tokenizer_3=pieces,
        transformer=_network(diffusers.SD3Transformer2DModel, published, weights),
    )
    tokens = text.t5.tokens if text.t5 else T5_TOKENS
    call = {"guidance_scale": config.sampling.scale, "max_sequence_length": tokens}
    absent = () if text.t5 else ("text_encoder_3", "tokenizer_3")
    call["num_inference_steps"] = config.sampling.steps
    return Built(pipeline, call, absent=absent)


def _pixart(leaving: Leaving) -> Built:
    import diffusers

    config, backbone, text = leaving.config, leaving.config.backbone, leaving.config.text
    assert isinstance(backbone, PixArtConfig)
    published = pixart.published_config(backbone, leaving.shapes)  # refuses
    if backbone.time_scale != -1000:
        raise UserError(f"backbone.time_scale: {backbone.time_scale}; diffusers has -1000 only")
    if not isinstance(text, T5Config) or text.padding != "masked" or not text.lowercase:
        raise UserError("text: diffusers' PixArt has a T5 of masked padding that reads lowercase")
    diffusion = config.flow.diffusion
    rules = pixart.rules(backbone, leaving.shapes, flow=diffusion is None)
    weights = to_theirs(rules, backbone.depth, leaving.backbone.state_dict())
    t5, pieces = text.load(CPU)
    if diffusion is None:
        scheduler = _euler(config)
        # Neither is a setting of this scheduler: the first is for our import, the second is asked
        # for by the pipeline, which finds it among the settings.
        scheduler.register_to_config(prediction_type="flow_prediction", init_noise_sigma=1.0)
    else:
        scheduler = diffusers.DPMSolverMultistepScheduler(
            num_train_timesteps=diffusion.steps,
            beta_start=diffusion.first_beta,
            beta_end=diffusion.last_beta,
            beta_schedule=diffusion.betas,
        )
    sized = backbone.pixels_per_position is not None
    kind = diffusers.PixArtAlphaPipeline if sized else diffusers.PixArtSigmaPipeline
    pipeline = kind(
        scheduler=scheduler,
        vae=_autoencoder(config, shifts=False),
        text_encoder=t5,
        tokenizer=pieces,
        transformer=_network(diffusers.PixArtTransformer2DModel, published, weights),
    )
    call = {
        "num_inference_steps": config.sampling.steps,
        "guidance_scale": config.sampling.scale,
        "max_sequence_length": text.tokens,
        "use_resolution_binning": False,
        "clean_caption": False,
    }
    return Built(pipeline, call)


def _must_attend(texts: dict[str, Any]) -> None:
    for name, text in texts.items():
        if text.padding != "attended":
            raise UserError(f"{name}.padding: '{text.padding}'; this pipeline attends to padding")


def _autoencoder(config: ExperimentConfig, shifts: bool = True) -> Any:
    """With the run's own mean and scale. shifts: whether the pipeline knows a mean."""
    space = config.space
    if not isinstance(space, LatentConfig):
        raise UserError("space: pixels; this pipeline of diffusers decodes latents")
    autoencoder: Any = space.load(CPU)
    settings = autoencoder.config
    if type(autoencoder).__name__ != "AutoencoderKL":
        raise UserError(f"space: {type(autoencoder).__name__}; this pipeline has an AutoencoderKL")
    if len(space.mean) > 1 or len(space.scale) > 1 or settings.get("latents_mean"):
        raise UserError("space: a mean or scale for each channel; diffusers has one for all here")
    mean = space.mean[0] if space.mean else settings.get("shift_factor")
    if mean and not shifts:
        raise UserError(f"space.mean: {mean}; this pipeline of diffusers has 0 only")
    scale = space.scale[0] if space.scale else settings["scaling_factor"]
    autoencoder.register_to_config(shift_factor=mean, scaling_factor=scale)
    return autoencoder


def _network(kind: Any, published: dict[str, Any], weights: dict[str, Tensor]) -> Any:
    network = kind(**published)
    network.load_state_dict(weights, assign=True)
    return network.eval()


def _euler(config: ExperimentConfig) -> Any:
    """The scheduler whose times are ours; the usual one ends with a short step instead."""
    import diffusers

    return diffusers.FlowMapEulerDiscreteScheduler(shift=config.sampling.shift)


def packed(x: Tensor) -> Tensor:
    return rearrange(x, "b c (h p) (w q) -> b (h w) (c p q)", p=flux.PATCH, q=flux.PATCH)


def unpacked(tokens: Tensor, rows: int) -> Tensor:
    return rearrange(
        tokens,
        "b (h w) (c p q) -> b c (h p) (w q)",
        h=rows // flux.PATCH,
        p=flux.PATCH,
        q=flux.PATCH,
    )


# -- the check, and what is told


@torch.no_grad()
def _check(built: Built, leaving: Leaving, folder: Path) -> None:
    """Two guided steps of the reloaded folder beside ours, on four patches along a side."""
    pipeline = type(built.pipeline).from_pretrained(folder, **dict.fromkeys(built.absent))
    pipeline.set_progress_bar_config(disable=True)
    config = leaving.config
    side = 4 * config.backbone.patch  # type: ignore[union-attr]
    noise = normal([0], (leaving.shapes.channels, side, side), CPU)
    call = built.call | {"num_inference_steps": 2}
    theirs = pipeline(
        PROMPT,
        **call,
        height=side * pipeline.vae_scale_factor,
        width=side * pipeline.vae_scale_factor,
        latents=built.pack(noise),
        output_type="latent",
    ).images
    theirs = built.unpack(theirs, side)
    ours = _painted(leaving, noise, pipeline.scheduler)
    error = float((ours - theirs).abs().max() / theirs.std())
    if not error <= TOLERANCE:
        raise UserError(
            f"what diffusers paints from the folder differs by {error:.2g} standard deviations "
            f"after two steps, at most {TOLERANCE} may be; not exported"
        )


def _painted(leaving: Leaving, noise: Tensor, scheduler: Any) -> Tensor:
    """Euler's steps at the times that a scheduler of diffusers has set."""
    config, flow = leaving.config, leaving.config.flow
    denoiser = Denoiser(leaving.backbone.eval(), flow.prediction, 1e-6, flow.diffusion)
    field = Guided(denoiser, leaving.encoder.null, config.sampling.scale)
    condition = leaving.encoder([PROMPT])
    if flow.diffusion is None:
        times, asked = 1 - scheduler.sigmas, 1 - scheduler.timesteps / 1000
    else:
        times = asked = 1 / (1 + scheduler.sigmas)
    x = noise
    if flow.diffusion is not None:
        x = x * torch.hypot(times[0], 1 - times[0])
    for t, at, after in zip(times, asked, times[1:], strict=False):
        x = x + (after - t) * field(x, at[None].float(), condition)
    return x


def _usage(built: Built, config: ExperimentConfig) -> str:
    kind, size = type(built.pipeline).__name__, config.size
    missing = [f"{part}=None" for part in built.absent]
    asked = "".join(f"    {name}={value!r},\n" for name, value in built.call.items())
    return (
        f"from diffusers import {kind}\n\n"
        f"pipeline = {kind}.from_pretrained({', '.join(['FOLDER', *missing])})\n"
        f'pipeline(\n    "{PROMPT}",\n    height={size},\n    width={size},\n{asked}'
        ').images[0].save("painted.png")\n'
    )


def _card(config: ExperimentConfig, lines: str) -> str:
    return (
        f"---\nlibrary_name: diffusers\npipeline_tag: text-to-image\n---\n\n# {config.name}\n\n"
        f"A {type(config.backbone).__name__.removesuffix('Config')} trained with Flowbrush at "
        f"{config.size} px on {type(config.source).__name__.removesuffix('Config')}, seed "
        f"{config.train.seed}. This paints as its run does:\n\n```python\n{lines}```\n"
    )
