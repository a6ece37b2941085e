"""Pictures that are no squares: every network takes them, and knows which way they lie."""

import pytest
import torch

from flowbrush.backbones import (
    BackboneConfig,
    DiTConfig,
    FluxConfig,
    JiTConfig,
    MMDiTConfig,
    PixArtConfig,
    UNetConfig,
)
from flowbrush.condition import Condition
from flowbrush.shapes import ConditionShapes, Shapes

LABELS = ConditionShapes(labels=4)
TEXT = ConditionShapes(text_width=12, text_tokens=5)
BOTH = ConditionShapes(text_width=12, text_tokens=5, pooled_width=6)
NETWORKS: list[tuple[BackboneConfig, ConditionShapes]] = [
    (DiTConfig(depth=2, width=16, heads=2, patch=2), LABELS),
    (JiTConfig(depth=2, width=16, heads=2, patch=2, bottleneck=8, context_start=1), LABELS),
    (JiTConfig(depth=2, width=16, heads=2, patch=2, bottleneck=8, context_start=1), TEXT),
    (PixArtConfig(depth=2, width=16, heads=2, patch=2), TEXT),
    (PixArtConfig(depth=2, width=24, heads=2, patch=2, pixels_per_position=8), TEXT),
    (MMDiTConfig(depth=2, width=16, heads=2, patch=2), BOTH),
    (FluxConfig(double_depth=1, single_depth=1, width=16, heads=2, axes=(2, 2, 4), patch=2), BOTH),
    (UNetConfig(width=8, levels=(1, 2)), LABELS),
]
SQUARE = 8


def network(config: BackboneConfig, given: ConditionShapes) -> torch.nn.Module:
    """Built for a square, with weights that let every input count."""
    torch.manual_seed(0)
    made = config.build(Shapes(channels=3, height=SQUARE, width=SQUARE, condition=given))
    with torch.no_grad():
        for weight in made.parameters():
            weight.normal_(std=0.2)
    return made.eval()


def condition(given: ConditionShapes) -> Condition:
    torch.manual_seed(1)
    if given.labels:
        return Condition(label=torch.tensor([1, 3]))
    pooled = torch.randn(2, 6) if given.pooled_width else None
    return Condition(text=torch.randn(2, 5, 12), pooled=pooled)


@pytest.mark.parametrize(("config", "given"), NETWORKS)
@pytest.mark.parametrize("shape", [(4, 12), (12, 4), (6, 10), (2, 32)])
def test_a_network_takes_any_shape_and_gives_it_back(config, given, shape):
    x = torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(2))
    said = network(config, given)(x, torch.tensor([0.2, 0.7]), condition(given))
    assert said.shape == x.shape
    assert said.isfinite().all()
    assert said.std() > 0.01


@pytest.mark.parametrize(("config", "given"), NETWORKS)
def test_a_tall_picture_is_not_read_as_the_same_patches_in_a_wide_one(config, given):
    """The same patches in the same order, in 2 rows or in 6: positions and neighbours differ."""
    net, t = network(config, given), torch.tensor([0.2, 0.7])
    wide = torch.randn(2, 3, 4, 12, generator=torch.Generator().manual_seed(2))
    patches = wide.reshape(2, 3, 2, 2, 6, 2).permute(0, 2, 4, 1, 3, 5).reshape(2, 6, 2, 3, 2, 2)
    tall = patches.permute(0, 3, 1, 4, 2, 5).reshape(2, 3, 12, 4)
    first, second = net(wide, t, condition(given)), net(tall, t, condition(given))
    again = first.reshape(2, 3, 2, 2, 6, 2).permute(0, 2, 4, 1, 3, 5).reshape(2, 6, 2, 3, 2, 2)
    again = again.permute(0, 3, 1, 4, 2, 5).reshape(2, 3, 12, 4)
    assert (again - second).abs().max() > 1e-3


@pytest.mark.parametrize(("config", "given"), NETWORKS)
def test_a_network_of_a_shape_has_the_weights_of_the_square(config, given):
    def weights(height: int, width: int) -> dict[str, torch.Size]:
        made = config.build(Shapes(channels=3, height=height, width=width, condition=given))
        return {name: weight.shape for name, weight in made.state_dict().items()}

    assert weights(4, 12) == weights(12, 4) == weights(SQUARE, SQUARE)
