"""DiT and SiT in their authors' layout (Peebles & Xie 2023, Ma et al. 2024).

One network, two meanings of its output: both produce twice the channels; SiT's second half is
never used, DiT's holds variances, which DDPM's sampling reads.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from flowbrush.backbones.dit import DiTConfig
from flowbrush.backbones.layers.embeddings import sincos_2d
from flowbrush.data import FolderConfig
from flowbrush.data.batches import BatchConfig
from flowbrush.errors import UserError
from flowbrush.experiment import ExperimentConfig, TrainConfig
from flowbrush.flow.denoiser import FlowConfig
from flowbrush.flow.diffusion import DiffusionConfig
from flowbrush.flow.sampling import SamplingConfig
from flowbrush.flow.times import TimesConfig
from flowbrush.interchange.published import Choices, Imported, Published, class_names, compression
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
from flowbrush.spaces import LatentConfig
from flowbrush.text import LabelsConfig

HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16}  # by width, as published
VAE = "stabilityai/sd-vae-ft-ema"
VAES = {kind: f"stabilityai/sd-vae-ft-{kind}" for kind in ("ema", "mse")}
PEERS = {"dit": "DiT", "sit": "SiT"}
# As their authors sample: DDPM in 250 of its 1,000 steps, and the SDE of the paper's figures.
SAMPLING = {
    "dit": SamplingConfig(method="ddpm", steps=250, guided_channels=3),
    "sit": SamplingConfig(method="sde_euler", steps=250, last_gap=0.04, guided_channels=3),
}
STRAIGHT = {"path_type": "Linear", "prediction": "velocity", "loss_weight": None}  # in SiT's args


def rules(config: DiTConfig, shapes: Shapes) -> list[Rule | Table]:
    """Between a DiT's state dict and the published keys."""
    rows, columns = shapes.height // config.patch, shapes.width // config.patch

    def positions() -> Tensor:
        return sincos_2d(rows, columns, config.width, torch.device("cpu"))[None].clone()

    return [
        Table("pos_embed", positions),
        patch_convolution("patches", "x_embedder.proj", shapes.channels, config.patch),
        Rule("patches.bias", "x_embedder.proj.bias"),
        *pair("time.mlp.0", "t_embedder.mlp.0"),
        *pair("time.mlp.2", "t_embedder.mlp.2"),
        Rule("label.weight", "y_embedder.embedding_table.weight"),
        *pair("blocks.{i}.attention.qkv", "blocks.{i}.attn.qkv"),
        *pair("blocks.{i}.attention.proj", "blocks.{i}.attn.proj"),
        *pair("blocks.{i}.feedforward.fc1", "blocks.{i}.mlp.fc1"),
        *pair("blocks.{i}.feedforward.fc2", "blocks.{i}.mlp.fc2"),
        *pair("blocks.{i}.modulation.linear", "blocks.{i}.adaLN_modulation.1"),
        *pair("modulation.linear", "final_layer.adaLN_modulation.1"),
        *pair("output", "final_layer.linear"),
    ]


def sizes(published: Mapping[str, Tensor], heads: int, what: str) -> tuple[DiTConfig, Shapes]:
    """The sizes of published weights.

    The number of heads is not in them: 6, 12, 16, 16 for S, B, L, XL.
    Raises UserError where they are not a DiT's.
    """
    try:
        width, channels, patch, _ = published["x_embedder.proj.weight"].shape
        tokens = published["pos_embed"].shape[1]
        labels = published["y_embedder.embedding_table.weight"].shape[0] - 1
        hidden = published["blocks.0.mlp.fc1.weight"].shape[0]
    except KeyError as missing:
        raise UserError(f"{what}: not the weights of a DiT or SiT, which have {missing}") from None
    except ValueError:
        raise UserError(f"{what}: not the weights of a DiT or SiT, by their shapes") from None
    side = patch * round(tokens**0.5)
    config = DiTConfig(
        depth=sum(name.endswith(".attn.qkv.weight") for name in published),
        width=width,
        heads=heads,
        patch=patch,
        mlp_ratio=hidden / width,
        double_output=published["final_layer.linear.weight"].shape[0] == 2 * channels * patch**2,
    )
    given = ConditionShapes(labels=labels)
    return config, Shapes(channels=channels, height=side, width=side, condition=given)


def imported_dit(published: Published, choices: Choices) -> Imported:
    """Its first half of channels is the noise of a discrete diffusion, the second its variances."""
    diffusion = DiffusionConfig(variance="learned_range")
    flow = FlowConfig(
        prediction="noise",
        loss_space="noise",
        t_eps=diffusion.first_time,
        times=TimesConfig(distribution="diffusion", stratified=False),
        diffusion=diffusion,
    )
    return _imported("dit", published, choices, flow, time_scale=-float(diffusion.steps))


def imported_sit(published: Published, choices: Choices) -> Imported:
    flow = FlowConfig(times=TimesConfig(distribution="uniform", stratified=False))
    return _imported("sit", published, choices, flow, time_scale=1.0)


def _imported(
    name: str, published: Published, choices: Choices, flow: FlowConfig, time_scale: float
) -> Imported:
    """Bare weights, or a trainer's checkpoint with an average of decay 0.9999 beside them."""
    what = str(published.path)
    parts = {"model": published.model, "ema_0.9999": published.averages(1)[0]}
    width = len(parts["model"].get("x_embedder.proj.bias", ()))
    heads = choices.heads or HEADS.get(width)
    if width and not heads:
        raise UserError(f"{what}: width {width} is none published; say how many --heads it has")
    backbone, shapes = sizes(parts["model"], heads or 1, what)
    backbone = replace(backbone, time_scale=time_scale)
    with torch.device("meta"):
        expected = backbone.build(shapes).state_dict()
    spelt = rules(backbone, shapes)
    weights = {name: to_ours(spelt, backbone.depth, part, what) for name, part in parts.items()}
    for part in weights.values():
        check_shapes(what, part, expected)
    assert shapes.condition.labels is not None
    args = Arguments(published.contents.get("args"), what)
    for setting, value in STRAIGHT.items():
        args.require(setting, value)
    args.check("num_classes", shapes.condition.labels)
    known = args.choice("vae", "space.model", VAES, VAE)
    vae = published.place("vae", choices.vae, known)
    args.check("image_size", shapes.height * compression(vae))
    batch = round(args.number("global_batch_size", "batch.size", 256.0))
    scale = args.number("cfg_scale", "sampling.scale", 4.0)
    config = ExperimentConfig(
        name=name,
        size=shapes.height * compression(vae),
        source=FolderConfig(layout="classes"),
        batch=BatchConfig(size=batch, flip=True, workers=8),
        space=LatentConfig(model=vae),
        text=LabelsConfig(names=class_names(choices.classes, shapes.condition.labels)),
        backbone=backbone,
        flow=flow,
        train=TrainConfig(
            lr=1e-4,
            betas=(0.9, 0.999),
            warmup=0,
            clip=0.0,  # none
            ema=(0.9999,),
            ema_warmup=False,
        ),
        sampling=replace(SAMPLING[name], scale=scale),
    )
    peer = f"{PEERS[name]}'s scripts"
    return Imported(config, weights, origins_of(config, peer, args.origins), [])
