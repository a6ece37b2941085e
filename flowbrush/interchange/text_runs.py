"""What the imports of text-to-image networks share."""

from collections.abc import Iterable
from dataclasses import replace

import torch

from flowbrush.backbones import FluxConfig, MMDiTConfig, PixArtConfig
from flowbrush.data import FolderConfig
from flowbrush.experiment import ExperimentConfig, TrainConfig
from flowbrush.interchange.published import Imported, Published
from flowbrush.interchange.rules import Rule, Table, check_shapes, to_ours
from flowbrush.shapes import Shapes


def text_run(
    config: ExperimentConfig, shapes: Shapes, rules: Iterable[Rule | Table], published: Published
) -> Imported:
    """The published weights under our names, and the experiment with a source to train on.

    Raises UserError where a weight is missing, unknown or of another shape.
    """
    backbone, what = config.backbone, str(published.path)
    assert isinstance(backbone, FluxConfig | MMDiTConfig | PixArtConfig)
    blocks = 0 if isinstance(backbone, FluxConfig) else backbone.depth  # its rules are numbered
    weights = to_ours(rules, blocks, published.weights, what)
    with torch.device("meta"):
        check_shapes(what, weights, backbone.build(shapes).state_dict())
    config = replace(
        config, source=FolderConfig(), train=TrainConfig(lr=1e-5, warmup=0, ema=(0.9999,))
    )
    return config, {"model": weights, "ema_0.9999": weights}
