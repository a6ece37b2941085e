"""JiT in its authors' layout (Li & He 2025): keys under `net.`, averages beside the weights."""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from flowbrush.backbones.jit import JiTConfig
from flowbrush.backbones.layers.embeddings import sincos_2d
from flowbrush.errors import UserError
from flowbrush.interchange.rules import Rule, Table, pair, patch_convolution
from flowbrush.shapes import ConditionShapes, Shapes


def rules(config: JiTConfig, shapes: Shapes) -> list[Rule | Table]:
    """Between a JiT's state dict and the published keys.

    RoPE turns neighbouring channels there and halves of a head here, so the channels of queries and keys are put in
    another order, and those of their norms with them.
    """
    rows, columns = shapes.height // config.patch, shapes.width // config.patch
    head = config.width // config.heads
    halves = torch.cat([torch.arange(0, head, 2), torch.arange(1, head, 2)])
    neighbours = halves.argsort()

    def positions() -> Tensor:
        return sincos_2d(rows, columns, config.width, torch.device("cpu"))[None].clone()

    def norm(order: Tensor, scale: Tensor) -> tuple[Tensor]:
        return (scale[order],)

    def qkv(order: Tensor, joined: Tensor) -> tuple[Tensor]:
        parts = joined.view(3, config.heads, head, *joined.shape[1:])
        return (torch.cat([parts[:2, :, order], parts[2:]]).view(joined.shape),)

    norm_in, norm_out = partial(norm, halves), partial(norm, neighbours)
    qkv_in, qkv_out = partial(qkv, halves), partial(qkv, neighbours)
    attention = [
        Rule(f"blocks.{{i}}.attention.qkv.{part}", f"blocks.{{i}}.attn.qkv.{part}", qkv_in, qkv_out)
        for part in ("weight", "bias")
    ] + [
        Rule(
            f"blocks.{{i}}.attention.{n}.weight", f"blocks.{{i}}.attn.{n}.weight", norm_in, norm_out
        )
        for n in ("q_norm", "k_norm")
    ]
    return [
        Table("pos_embed", positions),
        patch_convolution("squeeze", "x_embedder.proj1", shapes.channels, config.patch),
        Rule("patches.weight", "x_embedder.proj2.weight", _flat, _as_convolution),
        Rule("patches.bias", "x_embedder.proj2.bias"),
        Rule("context_positions", "in_context_posemb"),
        Rule("label.weight", "y_embedder.embedding_table.weight"),
        *pair("time.mlp.0", "t_embedder.mlp.0"),
        *pair("time.mlp.2", "t_embedder.mlp.2"),
        *attention,
        *pair("blocks.{i}.attention.proj", "blocks.{i}.attn.proj"),
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
    """The sizes of published weights. The block at which the context joins is not in them: a third of the depth.

    Raises UserError where they are not a JiT's.
    """
    try:
        bottleneck, channels, patch, _ = published["x_embedder.proj1.weight"].shape
        width = published["x_embedder.proj2.weight"].shape[0]
        head = published["blocks.0.attn.q_norm.weight"].shape[0]
        tokens, context = published["pos_embed"].shape[1], published["in_context_posemb"].shape[1]
        labels = published["y_embedder.embedding_table.weight"].shape[0] - 1
    except (KeyError, ValueError):
        raise UserError(f"{what}: not the weights of a JiT") from None
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


def _flat(kernel: Tensor) -> tuple[Tensor]:
    return (kernel.flatten(1),)


def _as_convolution(matrix: Tensor) -> tuple[Tensor]:
    return (matrix[:, :, None, None],)
