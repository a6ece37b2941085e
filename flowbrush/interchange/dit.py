"""DiT and SiT in their authors' layout (Peebles & Xie 2023, Ma et al. 2024).

One network, two meanings of its output: both produce twice the channels; SiT's second half is
never used, DiT's holds variances.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from flowbrush.backbones.dit import DiTConfig
from flowbrush.backbones.layers.embeddings import sincos_2d
from flowbrush.errors import UserError
from flowbrush.interchange.rules import Rule, Table, pair, patch_convolution
from flowbrush.shapes import ConditionShapes, Shapes


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
    except (KeyError, ValueError):
        raise UserError(f"{what}: not the weights of a DiT or SiT") from None
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
