"""JiT in its authors' layout (Li & He 2025): keys under `net.`, averages beside the weights."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from flowbrush.backbones.jit import JiTConfig
from flowbrush.backbones.layers.embeddings import sincos_2d
from flowbrush.data import FolderConfig
from flowbrush.data.batches import BatchConfig
from flowbrush.errors import UserError
from flowbrush.experiment import ExperimentConfig, TrainConfig
from flowbrush.flow.denoiser import FlowConfig
from flowbrush.flow.sampling import SamplingConfig
from flowbrush.flow.times import TimesConfig
from flowbrush.interchange.published import Choices, Imported, Published, class_names
from flowbrush.interchange.rotary import as_halves, as_neighbours, norms
from flowbrush.interchange.rules import (
    Rule,
    Table,
    check_shapes,
    pair,
    patch_convolution,
    to_ours,
)
from flowbrush.interchange.settings import Arguments, origins_of
from flowbrush.shapes import ConditionShapes, Shapes
from flowbrush.text import LabelsConfig


def rules(config: JiTConfig, shapes: Shapes) -> list[Rule | Table]:
    """Between a JiT's state dict and the published keys."""
    rows, columns = shapes.height // config.patch, shapes.width // config.patch
    heads, ours, theirs = config.heads, "blocks.{i}.attention", "blocks.{i}.attn"

    def positions() -> Tensor:
        return sincos_2d(rows, columns, config.width, torch.device("cpu"))[None].clone()

    def here(qkv: Tensor) -> tuple[Tensor]:
        return (as_halves(qkv, heads),)

    def there(qkv: Tensor) -> tuple[Tensor]:
        return (as_neighbours(qkv, heads),)

    return [
        Table("pos_embed", positions),
        patch_convolution("squeeze", "x_embedder.proj1", shapes.channels, config.patch),
        Rule("patches.weight", "x_embedder.proj2.weight", _flat, _as_convolution),
        Rule("patches.bias", "x_embedder.proj2.bias"),
        Rule("context_positions", "in_context_posemb"),
        Rule("label.weight", "y_embedder.embedding_table.weight"),
        *pair("time.mlp.0", "t_embedder.mlp.0"),
        *pair("time.mlp.2", "t_embedder.mlp.2"),
        Rule(f"{ours}.qkv.weight", f"{theirs}.qkv.weight", here, there),
        Rule(f"{ours}.qkv.bias", f"{theirs}.qkv.bias", here, there),
        *norms(ours, f"{theirs}.q_norm.weight", f"{theirs}.k_norm.weight", config.width // heads),
        *pair(f"{ours}.proj", f"{theirs}.proj"),
        Rule("blocks.{i}.norm1.weight", "blocks.{i}.norm1.weight"),
        Rule("blocks.{i}.norm2.weight", "blocks.{i}.norm2.weight"),
        *pair("blocks.{i}.feedforward.w12", "blocks.{i}.mlp.w12"),
        *pair("blocks.{i}.feedforward.w3", "blocks.{i}.mlp.w3"),
        *pair("blocks.{i}.modulation.linear", "blocks.{i}.adaLN_modulation.1"),
        Rule("norm.weight", "final_layer.norm_final.weight"),
        *pair("modulation.linear", "final_layer.adaLN_modulation.1"),
        *pair("output", "final_layer.linear"),
    ]


def sizes(published: Mapping[str, Tensor], what: str) -> tuple[JiTConfig, Shapes]:
    """The sizes of published weights.

    The block at which the context joins is not in them: a third of the depth.
    Raises UserError where they are not a JiT's.
    """
    try:
        bottleneck, channels, patch, _ = published["x_embedder.proj1.weight"].shape
        width = published["x_embedder.proj2.weight"].shape[0]
        head = published["blocks.0.attn.q_norm.weight"].shape[0]
        tokens, context = published["pos_embed"].shape[1], published["in_context_posemb"].shape[1]
        labels = published["y_embedder.embedding_table.weight"].shape[0] - 1
    except KeyError as missing:
        raise UserError(f"{what}: not the weights of a JiT, which have {missing}") from None
    except ValueError:
        raise UserError(f"{what}: not the weights of a JiT, by their shapes") from None
    depth = sum(name.endswith(".attn.qkv.weight") for name in published)
    side = patch * round(tokens**0.5)
    config = JiTConfig(
        depth=depth,
        width=width,
        heads=width // head,
        patch=patch,
        bottleneck=bottleneck,
        context_start=depth // 3,
        label_tokens=context,
    )
    given = ConditionShapes(labels=labels)
    return config, Shapes(channels=channels, height=side, width=side, condition=given)


METHODS = {"heun": "heun", "euler": "euler"}
PEER = "JiT's scripts and paper"
GUIDANCE = {12: 2.9, 24: 2.4, 32: 2.2}  # of B, L and H, by their depths
DROPOUT = {32: 0.2}


def imported(published: Published, choices: Choices) -> Imported:
    """A published checkpoint, whole or bare weights.

    Its settings are those in its `args`; what they leave out is the paper's, for its size.
    """
    what = str(published.path)
    args = Arguments(published.contents.get("args"), what)
    decays = (
        args.number("ema_decay1", "train.ema", 0.9999),
        args.number("ema_decay2", "train.ema", 0.9996),
    )
    averages = dict(zip((f"ema_{decay}" for decay in decays), published.averages(2), strict=True))
    states = {"model": published.model, **averages}
    backbone, shapes = sizes(states["model"], what)
    spelt = rules(backbone, shapes)
    with torch.device("meta"):
        expected = backbone.build(shapes).state_dict()
    weights = {name: to_ours(spelt, backbone.depth, state, what) for name, state in states.items()}
    for state in weights.values():
        check_shapes(what, state, expected)
    assert shapes.condition.labels is not None
    args.check("img_size", shapes.height)
    args.check("class_num", shapes.condition.labels)
    config = _settings(args, backbone, shapes.height, tuple(dict.fromkeys(decays)))
    names = class_names(choices.classes, shapes.condition.labels)
    config = replace(config, text=LabelsConfig(names=names))
    unused = args.unused(("attn_dropout",), (None, 0)) + args.unused(
        ("lr_schedule",), (None, "constant")
    )
    notes = [f"not followed, as Flowbrush has none: {', '.join(unused)}"] if unused else []
    return Imported(config, weights, origins_of(config, PEER, args.origins), notes)


def _settings(
    args: Arguments, backbone: JiTConfig, size: int, ema: tuple[float, ...]
) -> ExperimentConfig:
    """How a JiT of that size is trained and sampled, its labels aside."""
    number = args.number
    batch = round(
        number("batch_size", "batch.size", 128.0) * number("world_size", "batch.size", 8.0)
    )
    blr = number("blr", "train.lr", 5e-5)
    dropout = number("proj_dropout", "backbone.dropout", DROPOUT.get(backbone.depth, 0.0))
    low = number("interval_min", "sampling.interval", 0.1)
    high = number("interval_max", "sampling.interval", 1.0)
    return ExperimentConfig(
        name="jit",
        size=size,
        source=FolderConfig(layout="classes"),
        batch=BatchConfig(size=batch, flip=True, workers=8),
        backbone=replace(backbone, dropout=dropout),
        flow=FlowConfig(
            prediction="data",
            noise_scale=number("noise_scale", "flow.noise_scale", max(1.0, size / 256)),
            t_eps=number("t_eps", "flow.t_eps", 0.05),
            times=TimesConfig(
                mean=number("P_mean", "flow.times.mean", -0.8),
                std=number("P_std", "flow.times.std", 0.8),
                stratified=False,
            ),
        ),
        train=TrainConfig(
            lr=number("lr", "train.lr", blr * batch / 256),
            weight_decay=number("weight_decay", "train.weight_decay", 0.0),
            warmup=0,  # it is behind it
            clip=0.0,  # none
            caption_dropout=number("label_drop_prob", "train.caption_dropout", 0.1),
            ema=ema,
            ema_warmup=False,
        ),
        sampling=SamplingConfig(
            method=args.choice("sampling_method", "sampling.method", METHODS, "heun"),
            steps=round(number("num_sampling_steps", "sampling.steps", 50.0)),
            scale=number("cfg", "sampling.scale", GUIDANCE.get(backbone.depth, 2.9)),
            interval=(low, high),
            interval_open_low=True,
        ),
    )


def _flat(kernel: Tensor) -> tuple[Tensor]:
    return (kernel.flatten(1),)


def _as_convolution(matrix: Tensor) -> tuple[Tensor]:
    return (matrix[:, :, None, None],)
