"""PixArt-alpha and -sigma as diffusers' PixArtTransformer2DModel: weights' names, and config.

It predicts the noise of a discrete diffusion, in the first half of its channels, at times from 0 to
999 with the noise at 999. Neither names nor config say so: a network with another time_scale must
be fed its own time_scale * t there.
"""

from collections.abc import Mapping
from typing import Any

from flowbrush.backbones.pixart import PixArtConfig
from flowbrush.errors import UserError
from flowbrush.experiment import ExperimentConfig, TrainConfig
from flowbrush.flow.denoiser import FlowConfig
from flowbrush.flow.diffusion import DiffusionConfig
from flowbrush.flow.sampling import SamplingConfig
from flowbrush.flow.times import TimesConfig
from flowbrush.interchange.published import (
    Choices,
    Imported,
    Published,
    compression,
    network_settings,
)
from flowbrush.interchange.rules import Rule, fused, negated, pair, patch_convolution
from flowbrush.interchange.schedulers import FILE, PIXART_CLASSES, check_scheduler, flow_shift
from flowbrush.interchange.text_runs import text_run
from flowbrush.shapes import ConditionShapes, Shapes
from flowbrush.spaces import LatentConfig
from flowbrush.text import T5Config

FIXED: dict[str, Any] = {  # settings with which it is the network that we have
    "norm_type": "ada_norm_single",
    "norm_elementwise_affine": False,
    "norm_eps": 1e-6,
    "activation_fn": "gelu-approximate",
    "attention_type": "default",
    "attention_bias": True,
    "dropout": 0.0,
    "upcast_attention": False,
}
OF_THE_FIRST = {  # further ones of Transformer2DModel, as which the first PixArt were published
    "only_cross_attention": False,
    "double_self_attention": False,
    "use_linear_projection": False,
    "num_vector_embeds": None,
}
IDLE = {"norm_num_groups", "num_embeds_ada_norm"}  # without effect in a PixArt
DEFAULTS = (
    FIXED
    | OF_THE_FIRST
    | {  # what diffusers takes for a setting that is not there
        "num_attention_heads": 16,
        "attention_head_dim": 72,
        "num_layers": 28,
        "in_channels": 4,
        "out_channels": 8,
        "cross_attention_dim": 1152,
        "caption_channels": None,
        "sample_size": 128,
        "patch_size": 2,
        "interpolation_scale": None,
        "use_additional_conditions": None,
    }
)

PEER = "PixArt-alpha's paper and configs, diffusers' pipeline"
TRAIN = TrainConfig(
    lr=2e-5,
    betas=(0.9, 0.999),
    eps=1e-10,
    weight_decay=0.03,
    warmup=0,
    clip=0.01,
    ema=(0.9999,),
    ema_warmup=False,
)


def rules(config: PixArtConfig, shapes: Shapes, flow: bool = False) -> list[Rule]:
    """Between a PixArt's state dict and the published keys.

    flow: the published network says noise - data, and ours the velocity.
    """
    embedders = {"time": "timestep_embedder"}
    if config.pixels_per_position is not None:
        embedders |= {"size.side": "resolution_embedder", "size.aspect": "aspect_ratio_embedder"}
    embeddings = [
        rule
        for ours, theirs in embedders.items()
        for rule in pair(f"{ours}.mlp.0", f"adaln_single.emb.{theirs}.linear_1")
        + pair(f"{ours}.mlp.2", f"adaln_single.emb.{theirs}.linear_2")
    ]
    own, cross = "transformer_blocks.{i}.attn1", "transformer_blocks.{i}.attn2"
    return [
        patch_convolution("patches", "pos_embed.proj", shapes.channels, config.patch),
        Rule("patches.bias", "pos_embed.proj.bias"),
        *embeddings,
        *pair("modulation.linear", "adaln_single.linear"),
        *pair("text.0", "caption_projection.linear_1"),
        *pair("text.2", "caption_projection.linear_2"),
        Rule("blocks.{i}.table", "transformer_blocks.{i}.scale_shift_table"),
        *fused("blocks.{i}.attention.qkv", f"{own}.to_q", f"{own}.to_k", f"{own}.to_v"),
        *pair("blocks.{i}.attention.proj", f"{own}.to_out.0"),
        *pair("blocks.{i}.cross_attention.q", f"{cross}.to_q"),
        *fused("blocks.{i}.cross_attention.kv", f"{cross}.to_k", f"{cross}.to_v"),
        *pair("blocks.{i}.cross_attention.proj", f"{cross}.to_out.0"),
        *pair("blocks.{i}.feedforward.fc1", "transformer_blocks.{i}.ff.net.0.proj"),
        *pair("blocks.{i}.feedforward.fc2", "transformer_blocks.{i}.ff.net.2"),
        Rule("table", "scale_shift_table"),
        *(negated if flow else pair)("output", "proj_out"),
    ]


def config_from(
    published: Mapping[str, Any], what: str, pixels_per_position: int = 8
) -> PixArtConfig:
    """The sizes that a diffusers config states.

    pixels_per_position, which is not in it, is of the latents' encoder.
    Raises UserError, beginning with `what`, where it is not a network that we have.
    """
    given = _settings(published, what)
    scale, told = given["interpolation_scale"], given["use_additional_conditions"]
    if scale is None:
        scale = max(given["sample_size"] // 64, 1)
    if told is None:
        told = given["sample_size"] == 128
    return PixArtConfig(
        depth=given["num_layers"],
        width=given["num_attention_heads"] * given["attention_head_dim"],
        heads=given["num_attention_heads"],
        patch=given["patch_size"],
        position_span=given["sample_size"] // given["patch_size"] / scale,
        pixels_per_position=pixels_per_position if told else None,
        time_scale=-1000.0,
        double_output=given["out_channels"] == 2 * given["in_channels"],
    )


def shapes_from(published: Mapping[str, Any], what: str) -> Shapes:
    """The shapes in a diffusers config: those of training. Raises UserError as `config_from`."""
    given = _settings(published, what)
    side, condition = given["sample_size"], ConditionShapes(text_width=given["caption_channels"])
    return Shapes(channels=given["in_channels"], height=side, width=side, condition=condition)


def published_config(config: PixArtConfig, shapes: Shapes) -> dict[str, Any]:
    """The diffusers config of our network. Raises UserError where diffusers has none such."""
    if config.qk_norm:
        raise UserError("backbone: qk_norm; diffusers' PixArt has none")
    if config.mlp_ratio != 4:
        raise UserError(f"backbone: mlp_ratio {config.mlp_ratio}; diffusers' PixArt has 4 only")
    return FIXED | {
        "num_attention_heads": config.heads,
        "attention_head_dim": config.width // config.heads,
        "num_layers": config.depth,
        "in_channels": shapes.channels,
        "out_channels": shapes.channels * (2 if config.double_output else 1),
        "cross_attention_dim": config.width,
        "caption_channels": shapes.condition.text_width,
        "sample_size": shapes.height,
        "patch_size": config.patch,
        "interpolation_scale": shapes.height // config.patch / config.position_span,
        "use_additional_conditions": config.pixels_per_position is not None,
    }


def _settings(published: Mapping[str, Any], what: str) -> dict[str, Any]:
    given = network_settings(published, DEFAULTS, f"{what}: config.json", IDLE)
    width = given["num_attention_heads"] * given["attention_head_dim"]
    for name, value in {**FIXED, **OF_THE_FIRST, "cross_attention_dim": width}.items():
        if given[name] != value:
            raise UserError(f"{what}: {name} is {given[name]!r}, where a PixArt has {value!r}")
    if given["caption_channels"] is None:
        raise UserError(f"{what}: no caption_channels, where a PixArt has the width of its texts")
    channels = given["in_channels"]
    if given["out_channels"] not in (None, channels, 2 * channels):
        raise UserError(
            f"{what}: out_channels is {given['out_channels']}, where a PixArt has"
            f" {channels} or {2 * channels}"
        )
    return given


def imported(published: Published, choices: Choices) -> Imported:
    """A diffusers folder. Its scheduler says whether it is a discrete diffusion, or a flow."""
    what, settings = str(published.path), published.config("PixArt")
    vae = published.place("vae", choices.vae, "stabilityai/sd-vae-ft-ema")
    backbone = config_from(settings, what, compression(vae))
    shapes = shapes_from(settings, what)
    scheduler = published.part("scheduler", FILE)
    check_scheduler(scheduler, PIXART_CLASSES, what)
    is_flow = scheduler.get("prediction_type") == "flow_prediction"
    alpha = published.part(".", "model_index.json").get("_class_name") == "PixArtAlphaPipeline"
    shift = flow_shift(scheduler, 0) if is_flow else 1.0
    config = ExperimentConfig(
        name="pixart",
        size=choices.size or shapes.height * compression(vae),
        space=LatentConfig(model=vae),
        text=T5Config(
            model=published.place("text_encoder", choices.t5, "google/t5-v1_1-xxl"),
            tokenizer=published.place("tokenizer", choices.t5, ""),
            tokens=120 if alpha else 300,
            lowercase=True,
        ),
        backbone=backbone,
        flow=FlowConfig() if is_flow else _diffusion(scheduler, backbone, what),
        train=TRAIN,
        sampling=SamplingConfig(  # as its pipelines by default
            method="euler" if is_flow else "dpmsolver++", steps=20, scale=4.5, shift=shift
        ),
    )
    spelt = rules(backbone, shapes, is_flow)
    return text_run(config, shapes, spelt, published, PEER, own=("batch",))


def _diffusion(scheduler: Mapping[str, Any], backbone: PixArtConfig, what: str) -> FlowConfig:
    kind, betas = scheduler.get("prediction_type", "epsilon"), scheduler.get("beta_schedule")
    if kind != "epsilon" or betas not in (None, "linear", "scaled_linear"):
        raise UserError(
            f"{what}: a scheduler of {kind} and {betas} betas, where a PixArt's is known"
        )
    diffusion = DiffusionConfig(
        first_beta=scheduler.get("beta_start", 1e-4),
        last_beta=scheduler.get("beta_end", 0.02),
        betas=betas or "linear",
        variance="learned_range" if backbone.double_output else "fixed_small",
    )
    return FlowConfig(
        prediction="noise",
        loss_space="noise",
        t_eps=diffusion.first_time,
        times=TimesConfig(distribution="diffusion", stratified=False),
        diffusion=diffusion,
    )
