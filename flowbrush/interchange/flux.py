"""Flux as diffusers' FluxTransformer2DModel and in its authors' layout: names of weights, sizes.

Its output is noise - data, hence the other sign of the last layer; its times run from 1000 (noise)
to 0, hence the time_scale.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from flowbrush.backbones.flux import FluxConfig
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
from flowbrush.interchange.rotary import as_halves, as_neighbours, norms
from flowbrush.interchange.rules import Rule, halves_swapped, negated, pair
from flowbrush.interchange.schedulers import EULER, FILE, check_scheduler, flow_shift
from flowbrush.interchange.text_runs import SCRIPTS, SCRIPTS_BATCH, SCRIPTS_TRAIN, text_run
from flowbrush.shapes import ConditionShapes, Shapes
from flowbrush.spaces import LatentConfig
from flowbrush.text import CLIPConfig, FluxTextConfig, T5Config

DEFAULTS: dict[str, Any] = {  # what diffusers takes for a setting that is not there
    "patch_size": 1,
    "in_channels": 64,
    "out_channels": None,
    "num_layers": 19,
    "num_single_layers": 38,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 768,
    "guidance_embeds": False,
    "axes_dims_rope": (16, 56, 56),
}
PATCH = 2  # of the pictures: they are cut into patches before the published network sees them
SIDE = 128  # of the latents of 1024 pixels, which it paints unless told otherwise
GUIDANCE = 3.5  # which FLUX.1-dev is told unless another strength is wanted


def rules(config: FluxConfig) -> list[Rule]:
    """Between a Flux's state dict and diffusers' keys, spelt out for each block.

    Raises UserError for a Flux that diffusers does not have.
    """
    _refuse_unpublished(config)
    if config.mlp_ratio != 4:
        raise UserError(f"backbone: mlp_ratio {config.mlp_ratio}; diffusers' Flux has 4 only")
    image, text, single = "doubles.{i}.image", "doubles.{i}.text", "singles.{i}"
    double, attention = "transformer_blocks.{i}", "transformer_blocks.{i}.attn"
    doubles = [
        *pair(f"{image}.modulation.linear", f"{double}.norm1.linear"),
        *_qkv(config, f"{image}.heads", [f"{attention}.to_{x}" for x in "qkv"]),
        *norms(
            f"{image}.heads",
            f"{attention}.norm_q.weight",
            f"{attention}.norm_k.weight",
            config.head,
        ),
        *pair(f"{image}.proj", f"{attention}.to_out.0"),
        *pair(f"{image}.feedforward.fc1", f"{double}.ff.net.0.proj"),
        *pair(f"{image}.feedforward.fc2", f"{double}.ff.net.2"),
        *pair(f"{text}.modulation.linear", f"{double}.norm1_context.linear"),
        *_qkv(config, f"{text}.heads", [f"{attention}.add_{x}_proj" for x in "qkv"]),
        *norms(
            f"{text}.heads",
            f"{attention}.norm_added_q.weight",
            f"{attention}.norm_added_k.weight",
            config.head,
        ),
        *pair(f"{text}.proj", f"{attention}.to_add_out"),
        *pair(f"{text}.feedforward.fc1", f"{double}.ff_context.net.0.proj"),
        *pair(f"{text}.feedforward.fc2", f"{double}.ff_context.net.2"),
    ]
    theirs = "single_transformer_blocks.{i}"
    singles = [
        *pair(f"{single}.modulation.linear", f"{theirs}.norm.linear"),
        *_qkv(config, f"{single}.heads", [f"{theirs}.attn.to_{x}" for x in "qkv"]),
        *norms(
            f"{single}.heads",
            f"{theirs}.attn.norm_q.weight",
            f"{theirs}.attn.norm_k.weight",
            config.head,
        ),
        *pair(f"{single}.mlp", f"{theirs}.proj_mlp"),
        *pair(f"{single}.proj", f"{theirs}.proj_out"),
    ]
    vectors = {
        "time.mlp": "time_text_embed.timestep_embedder",
        "pooled": "time_text_embed.text_embedder",
        "guidance.mlp": "time_text_embed.guidance_embedder",
    }
    return [
        *pair("patches", "x_embedder"),
        *pair("text", "context_embedder"),
        *_vectors(config, vectors, "linear_1", "linear_2"),
        *_each(doubles, config.double_depth),
        *_each(singles, config.single_depth),
        *halves_swapped("modulation.linear", "norm_out.linear"),
        *negated("output", "proj_out"),
    ]


def authors_rules(config: FluxConfig) -> list[Rule]:
    """Between a Flux's state dict and its authors' keys, spelt out for each block.

    Raises UserError for a Flux that its authors do not have.
    """
    _refuse_unpublished(config)
    doubles = _authors_stream(config, "image", "img") + _authors_stream(config, "text", "txt")
    scale = "single_blocks.{i}.norm"
    singles = [
        *pair("singles.{i}.modulation.linear", "single_blocks.{i}.modulation.lin"),
        *_qkv_and_mlp(config, "singles.{i}", "single_blocks.{i}.linear1"),
        *norms(
            "singles.{i}.heads", f"{scale}.query_norm.scale", f"{scale}.key_norm.scale", config.head
        ),
        *pair("singles.{i}.proj", "single_blocks.{i}.linear2"),
    ]
    vectors = {"time.mlp": "time_in", "pooled": "vector_in", "guidance.mlp": "guidance_in"}
    return [
        *pair("patches", "img_in"),
        *pair("text", "txt_in"),
        *_vectors(config, vectors, "in_layer", "out_layer"),
        *_each(doubles, config.double_depth),
        *_each(singles, config.single_depth),
        *pair("modulation.linear", "final_layer.adaLN_modulation.1"),
        *negated("output", "final_layer.linear"),
    ]


def _authors_stream(config: FluxConfig, stream: str, short: str) -> list[Rule]:
    ours, theirs = f"doubles.{{i}}.{stream}", f"double_blocks.{{i}}.{short}"
    scale = f"{theirs}_attn.norm"
    return [
        *pair(f"{ours}.modulation.linear", f"{theirs}_mod.lin"),
        *_qkv(config, f"{ours}.heads", [f"{theirs}_attn.qkv"]),
        *norms(
            f"{ours}.heads", f"{scale}.query_norm.scale", f"{scale}.key_norm.scale", config.head
        ),
        *pair(f"{ours}.proj", f"{theirs}_attn.proj"),
        *pair(f"{ours}.feedforward.fc1", f"{theirs}_mlp.0"),
        *pair(f"{ours}.feedforward.fc2", f"{theirs}_mlp.2"),
    ]


def _each(rules: Iterable[Rule], blocks: int) -> list[Rule]:
    return [numbered for rule in rules for numbered in rule.expanded(blocks)]


def _vectors(config: FluxConfig, names: Mapping[str, str], first: str, second: str) -> list[Rule]:
    """The two layers of each vector in the modulation; that of the guidance where there is one."""
    return [
        rule
        for ours, theirs in names.items()
        if config.guidance is not None or ours != "guidance.mlp"
        for rule in pair(f"{ours}.0", f"{theirs}.{first}") + pair(f"{ours}.2", f"{theirs}.{second}")
    ]


def _qkv(config: FluxConfig, ours: str, theirs: list[str]) -> list[Rule]:
    """Queries, keys and values: one layer here; there one, or one each."""

    def join(*parts: Tensor) -> tuple[Tensor, ...]:
        return (as_halves(torch.cat(parts), config.heads),)

    def split(qkv: Tensor) -> tuple[Tensor, ...]:
        return as_neighbours(qkv, config.heads).chunk(len(theirs))

    return [
        Rule(f"{ours}.qkv.{part}", tuple(f"{name}.{part}" for name in theirs), join, split)
        for part in ("weight", "bias")
    ]


def _qkv_and_mlp(config: FluxConfig, ours: str, theirs: str) -> list[Rule]:
    """Queries, keys, values and the first layer of the feed-forward: two layers here, one there."""

    def split(joined: Tensor) -> tuple[Tensor, ...]:
        qkv, mlp = joined.split([3 * config.width, config.hidden])
        return as_halves(qkv, config.heads), mlp.clone()  # or a file of it would hold `joined` too

    def join(qkv: Tensor, mlp: Tensor) -> tuple[Tensor, ...]:
        return (torch.cat([as_neighbours(qkv, config.heads), mlp]),)

    return [
        Rule((f"{ours}.heads.qkv.{part}", f"{ours}.mlp.{part}"), f"{theirs}.{part}", split, join)
        for part in ("weight", "bias")
    ]


def config_from(published: Mapping[str, Any], what: str) -> FluxConfig:
    """The sizes that a diffusers config states.

    Raises UserError, beginning with `what`, where it is not a network that we have.
    """
    given = _settings(published, what)
    return FluxConfig(
        double_depth=given["num_layers"],
        single_depth=given["num_single_layers"],
        width=given["num_attention_heads"] * given["attention_head_dim"],
        heads=given["num_attention_heads"],
        patch=PATCH,
        axes=given["axes_dims_rope"],
        guidance=GUIDANCE if given["guidance_embeds"] else None,
    )


def shapes_from(published: Mapping[str, Any], what: str) -> Shapes:
    """The shapes for which a diffusers config is meant. Raises UserError as `config_from` does."""
    given = _settings(published, what)
    return _shapes(
        given["in_channels"], given["joint_attention_dim"], given["pooled_projection_dim"]
    )


def published_config(config: FluxConfig, shapes: Shapes) -> dict[str, Any]:
    """The diffusers config of our network. Raises UserError where diffusers has none such."""
    rules(config)  # refuses
    return {
        "patch_size": 1,
        "in_channels": shapes.channels * PATCH**2,
        "out_channels": None,
        "num_layers": config.double_depth,
        "num_single_layers": config.single_depth,
        "attention_head_dim": config.width // config.heads,
        "num_attention_heads": config.heads,
        "joint_attention_dim": shapes.condition.text_width,
        "pooled_projection_dim": shapes.condition.pooled_width,
        "guidance_embeds": config.guidance is not None,
        "axes_dims_rope": config.axes,
    }


def authors_sizes(
    published: Mapping[str, Tensor], what: str, axes: tuple[int, int, int] = (16, 56, 56)
) -> tuple[FluxConfig, Shapes]:
    """The sizes of weights in the authors' layout. The axes are not in them.

    Raises UserError, beginning with `what`, where they are not a Flux's.
    """
    try:
        width, values = published["img_in.weight"].shape
        head = published["single_blocks.0.norm.query_norm.scale"].shape[0]
        hidden = published["single_blocks.0.linear2.weight"].shape[1] - width
        text_width = published["txt_in.weight"].shape[1]
        pooled_width = published["vector_in.in_layer.weight"].shape[1]
    except (KeyError, ValueError):
        raise UserError(f"{what}: not the weights of a Flux in its authors' layout") from None
    config = FluxConfig(
        double_depth=sum(name.endswith(".img_attn.qkv.weight") for name in published),
        single_depth=sum(name.endswith(".linear1.weight") for name in published),
        width=width,
        heads=width // head,
        patch=PATCH,
        mlp_ratio=hidden / width,
        axes=axes,
        guidance=GUIDANCE if "guidance_in.in_layer.weight" in published else None,
    )
    return config, _shapes(values, text_width, pooled_width)


def _shapes(values: int, text_width: int, pooled_width: int) -> Shapes:
    given = ConditionShapes(text_width=text_width, pooled_width=pooled_width)
    return Shapes(channels=values // PATCH**2, height=SIDE, width=SIDE, condition=given)


def _settings(published: Mapping[str, Any], what: str) -> dict[str, Any]:
    given = network_settings(published, DEFAULTS, f"{what}: config.json")
    given["axes_dims_rope"], channels = tuple(given["axes_dims_rope"]), given["in_channels"]
    if given["patch_size"] != 1:
        raise UserError(f"{what}: patch_size is {given['patch_size']}, where a Flux has 1")
    if channels % PATCH**2:
        raise UserError(f"{what}: in_channels is {channels}, which is no multiple of {PATCH**2}")
    if given["out_channels"] not in (None, channels):
        raise UserError(
            f"{what}: out_channels is {given['out_channels']}, where a Flux has {channels}"
        )
    if len(given["axes_dims_rope"]) != 3:
        raise UserError(f"{what}: axes_dims_rope is {given['axes_dims_rope']}, where a Flux has 3")
    return given


def _refuse_unpublished(config: FluxConfig) -> None:
    if config.mask_text:
        raise UserError(
            "backbone: mask_text; published Flux attends to padding, so this cannot be exported"
        )
    for name, value in {"patch": PATCH, "theta": 10000.0, "time_scale": -1000.0}.items():
        if (given := getattr(config, name)) != value:
            raise UserError(f"backbone: {name} {given}; published Flux has {value} only")


def imported(published: Published, choices: Choices) -> Imported:
    """A diffusers folder, or a file in the authors' layout."""
    what, settings = str(published.path), published.settings
    if settings is None:
        backbone, shapes = authors_sizes(published.model, what)
        spelt = authors_rules(backbone)
    else:
        backbone, shapes = config_from(settings, what), shapes_from(settings, what)
        spelt = rules(backbone)
    vae = published.place("vae", choices.vae, "black-forest-labs/FLUX.1-schnell/vae")
    size = choices.size or SIDE * compression(vae)
    scheduler = published.part("scheduler", FILE)
    check_scheduler(scheduler, {"FlowMatchEulerDiscreteScheduler": EULER}, what)
    is_dev = backbone.guidance is not None
    tokens = (size // compression(vae) // PATCH) ** 2
    scheduler = scheduler or {"use_dynamic_shifting": is_dev, "shift": 1.0}
    # diffusers' script leaves a dynamic shift to sampling, and draws evenly by default.
    dynamic = scheduler.get("use_dynamic_shifting", False)
    training = 1.0 if dynamic else flow_shift(scheduler, tokens)
    config = ExperimentConfig(
        name="flux",
        size=size,
        space=LatentConfig(model=vae),
        text=FluxTextConfig(
            clip=CLIPConfig(
                model=published.place("text_encoder", choices.clip, CLIPConfig().model),
                tokenizer=published.place("tokenizer", choices.clip, ""),
            ),
            t5=T5Config(
                model=published.place("text_encoder_2", choices.t5, T5Config().model),
                tokenizer=published.place("tokenizer_2", choices.t5, ""),
                tokens=512 if is_dev else 256,
                padding="attended",
            ),
        ),
        backbone=backbone,
        batch=SCRIPTS_BATCH,
        flow=FlowConfig(
            times=TimesConfig(distribution="uniform", shift=training, stratified=False)
        ),
        train=SCRIPTS_TRAIN,
        sampling=SamplingConfig(
            method="euler",
            steps=28 if is_dev else 4,
            scale=1.0,
            shift=flow_shift(scheduler, tokens),
        ),
    )
    return text_run(config, shapes, spelt, published, SCRIPTS, own=("train.ema",))
