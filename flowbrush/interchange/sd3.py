"""Stable Diffusion 3 and 3.5 as diffusers' SD3Transformer2DModel: weights' names, and config.

Its output is noise - data, hence the other sign of the last layer; its times run from 1000 (noise)
to 0, hence the time_scale. Its last two modulations say (scale, shift).
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from flowbrush.backbones.layers.embeddings import sincos_2d_crop
from flowbrush.backbones.mmdit import MMDiTConfig
from flowbrush.errors import UserError
from flowbrush.experiment import ExperimentConfig
from flowbrush.flow.denoiser import FlowConfig
from flowbrush.flow.sampling import SamplingConfig
from flowbrush.flow.times import TimesConfig
from flowbrush.interchange.published import (
    Choices,
    Imported,
    Published,
    compression,
    network_settings,
)
from flowbrush.interchange.rules import (
    Rule,
    Table,
    fused,
    halves_swapped,
    negated,
    pair,
    patch_convolution,
)
from flowbrush.interchange.schedulers import FILE, FLOW_CLASSES, check_scheduler, flow_shift
from flowbrush.interchange.text_runs import SCRIPTS, SCRIPTS_BATCH, SCRIPTS_TRAIN, text_run
from flowbrush.shapes import ConditionShapes, Shapes
from flowbrush.spaces import LatentConfig
from flowbrush.text import SD3TextConfig

DEFAULTS: dict[str, Any] = {  # what diffusers takes for a setting that is not there
    "sample_size": 128,
    "patch_size": 2,
    "in_channels": 16,
    "num_layers": 18,
    "attention_head_dim": 64,
    "num_attention_heads": 18,
    "joint_attention_dim": 4096,
    "caption_projection_dim": 1152,
    "pooled_projection_dim": 2048,
    "out_channels": 16,
    "pos_embed_max_size": 96,
    "dual_attention_layers": (),
    "qk_norm": None,
}


def rules(config: MMDiTConfig, shapes: Shapes) -> list[Rule | Table]:
    """Between an MMDiT's state dict and the published keys."""
    side, span = config.positions, config.position_span

    def positions() -> Tensor:
        uncached = sincos_2d_crop.__wrapped__  # SD3.5's table has 0.9 GB
        return uncached(side, side, side, span, config.width, torch.device("cpu"))[None]

    return [
        Table("pos_embed.pos_embed", positions),
        patch_convolution("patches", "pos_embed.proj", shapes.channels, config.patch),
        Rule("patches.bias", "pos_embed.proj.bias"),
        *pair("time.mlp.0", "time_text_embed.timestep_embedder.linear_1"),
        *pair("time.mlp.2", "time_text_embed.timestep_embedder.linear_2"),
        *pair("pooled.0", "time_text_embed.text_embedder.linear_1"),
        *pair("pooled.2", "time_text_embed.text_embedder.linear_2"),
        *pair("text", "context_embedder"),
        *(rule for i in range(config.depth) for rule in _block(config, i)),
        *halves_swapped("modulation.linear", "norm_out.linear"),
        *negated("output", "proj_out"),
    ]


def _block(config: MMDiTConfig, i: int) -> list[Rule]:
    ours, theirs = f"blocks.{i}", f"transformer_blocks.{i}"
    found = [
        *pair(f"{ours}.image_modulation.linear", f"{theirs}.norm1.linear"),
        *_heads(config, f"{ours}.image.heads", f"{theirs}.attn", "to_{}", "norm_{}"),
        *pair(f"{ours}.image.proj", f"{theirs}.attn.to_out.0"),
        *pair(f"{ours}.image.feedforward.fc1", f"{theirs}.ff.net.0.proj"),
        *pair(f"{ours}.image.feedforward.fc2", f"{theirs}.ff.net.2"),
    ]
    if i < config.dual_attention_blocks:
        found += [
            *_heads(config, f"{ours}.image_attention", f"{theirs}.attn2", "to_{}", "norm_{}"),
            *pair(f"{ours}.image_attention.proj", f"{theirs}.attn2.to_out.0"),
        ]
    added = f"{theirs}.attn", "add_{}_proj", "norm_added_{}"
    if i == config.depth - 1:
        return [
            *found,
            *halves_swapped(f"{ours}.text_modulation.linear", f"{theirs}.norm1_context.linear"),
            *_heads(config, f"{ours}.text_heads", *added),
        ]
    return [
        *found,
        *pair(f"{ours}.text_modulation.linear", f"{theirs}.norm1_context.linear"),
        *_heads(config, f"{ours}.text.heads", *added),
        *pair(f"{ours}.text.proj", f"{theirs}.attn.to_add_out"),
        *pair(f"{ours}.text.feedforward.fc1", f"{theirs}.ff_context.net.0.proj"),
        *pair(f"{ours}.text.feedforward.fc2", f"{theirs}.ff_context.net.2"),
    ]


def _heads(config: MMDiTConfig, ours: str, theirs: str, layer: str, norm: str) -> list[Rule]:
    """layer, norm: their names, with {} for q, k or v."""
    found = fused(f"{ours}.qkv", *(f"{theirs}.{layer.format(x)}" for x in "qkv"))
    if config.qk_norm:
        found += [
            Rule(f"{ours}.{x}_norm.weight", f"{theirs}.{norm.format(x)}.weight") for x in "qk"
        ]
    return found


def config_from(published: Mapping[str, Any], what: str) -> MMDiTConfig:
    """The sizes that a diffusers config states.

    Raises UserError, beginning with `what`, where it is not a network that we have.
    """
    given = _settings(published, what)
    return MMDiTConfig(
        depth=given["num_layers"],
        width=given["num_attention_heads"] * given["attention_head_dim"],
        heads=given["num_attention_heads"],
        patch=given["patch_size"],
        qk_norm=given["qk_norm"] is not None,
        dual_attention_blocks=len(given["dual_attention_layers"]),
        positions=given["pos_embed_max_size"],
        position_span=float(given["sample_size"] // given["patch_size"]),
        time_scale=-1000.0,
    )


def shapes_from(published: Mapping[str, Any], what: str) -> Shapes:
    """The shapes in a diffusers config: those of training. Raises UserError as `config_from`."""
    given = _settings(published, what)
    side = given["sample_size"]
    condition = ConditionShapes(
        text_width=given["joint_attention_dim"], pooled_width=given["pooled_projection_dim"]
    )
    return Shapes(channels=given["in_channels"], height=side, width=side, condition=condition)


def published_config(config: MMDiTConfig, shapes: Shapes) -> dict[str, Any]:
    """The diffusers config of our network. Raises UserError where diffusers has none such."""
    if config.mlp_ratio != 4:
        raise UserError(f"backbone: mlp_ratio {config.mlp_ratio}; diffusers' SD3 has 4 only")
    if config.time_scale != -1000:
        raise UserError(f"backbone: time_scale {config.time_scale}; diffusers' SD3 has -1000 only")
    return {
        "sample_size": config.patch * round(config.position_span),
        "patch_size": config.patch,
        "in_channels": shapes.channels,
        "num_layers": config.depth,
        "attention_head_dim": config.width // config.heads,
        "num_attention_heads": config.heads,
        "joint_attention_dim": shapes.condition.text_width,
        "caption_projection_dim": config.width,
        "pooled_projection_dim": shapes.condition.pooled_width,
        "out_channels": shapes.channels,
        "pos_embed_max_size": config.positions,
        "dual_attention_layers": tuple(range(config.dual_attention_blocks)),
        "qk_norm": "rms_norm" if config.qk_norm else None,
    }


def _settings(published: Mapping[str, Any], what: str) -> dict[str, Any]:
    given = network_settings(published, DEFAULTS, f"{what}: config.json")
    given["dual_attention_layers"] = list(given["dual_attention_layers"])
    for name, value in {
        "caption_projection_dim": given["num_attention_heads"] * given["attention_head_dim"],
        "out_channels": given["in_channels"],
        "dual_attention_layers": [*range(len(given["dual_attention_layers"]))],
    }.items():
        if given[name] not in (value, None):
            raise UserError(f"{what}: {name} is {given[name]!r}, where an SD3 has {value!r}")
    if given["qk_norm"] not in (None, "rms_norm"):
        raise UserError(f"{what}: qk_norm is {given['qk_norm']!r}, where an SD3 has 'rms_norm'")
    if given["pos_embed_max_size"] is None:
        raise UserError(f"{what}: no pos_embed_max_size, where an SD3 has a position table")
    return given


def imported(published: Published, choices: Choices) -> Imported:
    """A diffusers folder. Without the third text model zeros stand in its place, as there."""
    what, settings = str(published.path), published.config("Stable Diffusion 3")
    backbone, shapes = config_from(settings, what), shapes_from(settings, what)
    repository = "stabilityai/stable-diffusion-3-medium-diffusers"
    vae = published.place("vae", choices.vae, f"{repository}/vae")
    text = SD3TextConfig(width=settings.get("joint_attention_dim", 4096))
    clip_l = replace(
        text.clip_l,
        model=published.place("text_encoder", choices.clip, text.clip_l.model),
        tokenizer=published.place("tokenizer", choices.clip, text.clip_l.tokenizer),
    )
    clip_g = replace(
        text.clip_g,
        model=published.place("text_encoder_2", choices.clip_g, text.clip_g.model),
        tokenizer=published.place("tokenizer_2", choices.clip_g, text.clip_g.tokenizer),
    )
    assert text.t5 is not None
    t5 = replace(
        text.t5,
        model=published.place("text_encoder_3", choices.t5, text.t5.model),
        tokenizer=published.place("tokenizer_3", choices.t5, text.t5.tokenizer),
    )
    without = published.pipeline is not None and t5.model == text.t5.model
    scheduler = published.part("scheduler", FILE)
    check_scheduler(scheduler, FLOW_CLASSES, what)
    size = choices.size or shapes.height * compression(vae)
    dynamic = scheduler.get("use_dynamic_shifting", False)  # left to sampling, as in Flux
    shift = flow_shift(
        scheduler or {"shift": 3.0}, (size // compression(vae) // backbone.patch) ** 2
    )
    config = ExperimentConfig(
        name="sd3",
        size=size,
        space=LatentConfig(model=vae),
        text=replace(text, clip_l=clip_l, clip_g=clip_g, t5=None if without else t5),
        backbone=backbone,
        batch=SCRIPTS_BATCH,
        flow=FlowConfig(times=TimesConfig(shift=1.0 if dynamic else shift, stratified=False)),
        train=SCRIPTS_TRAIN,
        sampling=SamplingConfig(
            method="euler",
            steps=28,
            scale=7.0,
            shift=shift,
            last_gap=_last_gap(scheduler, shift),
        ),
    )
    spelt = rules(backbone, shapes)
    return text_run(config, shapes, spelt, published, SCRIPTS, own=("train.ema",))


def _last_gap(scheduler: Mapping[str, Any], shift: float) -> float | None:
    """The usual scheduler ends at a thousandth, and shifts this time twice, unless dynamically."""
    if scheduler.get("_class_name") == "FlowMapEulerDiscreteScheduler":
        return None
    return 1e-3 if scheduler.get("use_dynamic_shifting") else shift / (999 + shift)
