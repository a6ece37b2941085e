"""A trained text-to-image run leaves as a folder that diffusers' own pipelines load.

The folder is reloaded and samples beside the run, with the run's own settings, before it gets its
name.
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
from flowbrush.flow.sampling import SamplingConfig
from flowbrush.interchange import flux, pixart, sd3
from flowbrush.interchange.rules import to_theirs
from flowbrush.interchange.sampler_settings import (
    DPM_SOLVER,
    EULER,
    Difference,
    difference,
    in_folder,
    sampled,
    sigmas,
    told,
)
from flowbrush.interchange.text_runs import OWN_FILE
from flowbrush.randomness import normal
from flowbrush.shapes import Shapes
from flowbrush.spaces import LatentConfig
from flowbrush.text import FluxTextConfig, SD3TextConfig, T5Config, TextEncoder
from flowbrush.text.joined import T5_TOKENS

CPU = torch.device("cpu")
TOLERANCE = 1e-3  # of what an image may differ by, in standard deviations
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
    call: dict[str, Any]  # how it is asked to sample
    sampling: SamplingConfig  # which is how it samples then, in the words of a run
    pack: Callable[[Tensor], Tensor] = lambda x: x
    unpack: Callable[[Tensor, int], Tensor] = lambda x, rows: x
    absent: tuple[str, ...] = ()  # parts that must be said to be missing, when it is loaded


def write_folder(leaving: Leaving, folder: Path, say: Callable[[str], None]) -> str:
    """Write a pipeline into an empty folder; returns the lines of Python that paint with it.

    say: is told of each setting of the run's sampling that is another there, and what that makes.
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
    built = builders[kind](leaving)
    built.pipeline.save_pretrained(folder)
    measured = _check(built, leaving, folder)
    otherwise = told(config.sampling, built.sampling, measured)
    for line in otherwise:
        say(line)
    lines = _usage(built, config)
    (folder / "README.md").write_text(_card(config, lines, otherwise), "utf-8")
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
    sampling = in_folder(config.sampling, EULER)
    weights = to_theirs(flux.rules(backbone), 0, leaving.backbone.state_dict())
    clip, words = text.clip.load(CPU)
    t5, pieces = text.t5.load(CPU)
    pipeline = diffusers.FluxPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=sampling.shift),
        vae=_autoencoder(config),
        text_encoder=clip,
        tokenizer=words,
        text_encoder_2=t5,
        tokenizer_2=pieces,
        transformer=_network(diffusers.FluxTransformer2DModel, published, weights),
    )
    call = _steps(sampling) | {"max_sequence_length": text.t5.tokens}
    if sampling.scale != 1:
        call |= {"true_cfg_scale": sampling.scale, "negative_prompt": ""}
    if backbone.guidance is not None:
        call["guidance_scale"] = backbone.guidance
    return Built(pipeline, call, sampling, packed, unpacked)


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
    sampling = in_folder(config.sampling, EULER)
    rules = sd3.rules(backbone, leaving.shapes)
    weights = to_theirs(rules, backbone.depth, leaving.backbone.state_dict())
    clip_l, words_l = text.clip_l.load(CPU)
    clip_g, words_g = text.clip_g.load(CPU)
    t5, pieces = text.t5.load(CPU) if text.t5 else (None, None)
    pipeline = diffusers.StableDiffusion3Pipeline(
        scheduler=_scheduler(sampling),
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
    call = {"guidance_scale": sampling.scale, "max_sequence_length": tokens} | _steps(sampling)
    absent = () if text.t5 else ("text_encoder_3", "tokenizer_3")
    return Built(pipeline, call, sampling, absent=absent)


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
        sampling = in_folder(config.sampling, EULER)
        scheduler = _scheduler(sampling)
        # Neither is a setting of this scheduler: the first is for our import, the second is asked
        # for by the pipeline, which finds it among the settings.
        scheduler.register_to_config(prediction_type="flow_prediction", init_noise_sigma=1.0)
    else:
        sampling = in_folder(config.sampling, DPM_SOLVER)
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
    call = _steps(sampling) | {
        "guidance_scale": sampling.scale,
        "max_sequence_length": text.tokens,
        "use_resolution_binning": False,
        "clean_caption": False,
    }
    return Built(pipeline, call, sampling)


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


def _scheduler(sampling: SamplingConfig) -> Any:
    """The scheduler whose times are ours; the usual one ends with a short step instead."""
    import diffusers

    return diffusers.FlowMapEulerDiscreteScheduler(shift=sampling.shift)


def _steps(sampling: SamplingConfig) -> dict[str, Any]:
    """What a pipeline is asked for, so that it stops at a sampler's times."""
    if sampling.last_gap is None:
        return {"num_inference_steps": sampling.steps}
    return {"num_inference_steps": sampling.steps, "sigmas": sigmas(sampling)}


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
def _check(built: Built, leaving: Leaving, folder: Path) -> Difference:
    """The reloaded folder beside our own sampler, on four patches along a side.

    Returns what sets it apart from the run's own settings.
    Raises UserError where it does not sample as it is said to.
    """
    pipeline = type(built.pipeline).from_pretrained(folder, **dict.fromkeys(built.absent))
    pipeline.set_progress_bar_config(disable=True)
    config = leaving.config
    side = 4 * config.backbone.patch  # type: ignore[union-attr]
    noise = normal([0], (leaving.shapes.channels, side, side), CPU)
    theirs = pipeline(
        PROMPT,
        **built.call,
        height=side * pipeline.vae_scale_factor,
        width=side * pipeline.vae_scale_factor,
        latents=built.pack(noise),
        output_type="latent",
    ).images
    theirs = built.unpack(theirs, side)

    def apart(sampling: SamplingConfig) -> Difference:
        given = config, leaving.backbone, leaving.encoder, PROMPT, noise, sampling
        return difference(theirs, sampled(*given))

    error = apart(built.sampling)
    if not error.most <= TOLERANCE:
        raise UserError(
            f"what diffusers samples from the folder differs by {error.most:.2g} standard "
            f"deviations, at most {TOLERANCE} may be; not exported"
        )
    return error if built.sampling == config.sampling else apart(config.sampling)


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


def _card(config: ExperimentConfig, lines: str, otherwise: list[str]) -> str:
    how = "This samples as its run does:"
    if otherwise:
        listed = "\n".join(f"- {line}" for line in otherwise)
        how = (
            f"Its run samples otherwise, in ways that this pipeline has not:\n\n{listed}\n\n"
            "The nearest that it has:"
        )
    return (
        f"---\nlibrary_name: diffusers\npipeline_tag: text-to-image\n---\n\n# {config.name}\n\n"
        f"A {type(config.backbone).__name__.removesuffix('Config')} trained with Flowbrush at "
        f"{config.size} px on {type(config.source).__name__.removesuffix('Config')}, seed "
        f"{config.train.seed}. {how}\n\n```python\n{lines}```\n"
    )
