"""A DiT becomes the start of a PixArt."""

from dataclasses import replace

import pytest
import torch

from flowbrush.backbones import DiTConfig, PixArtConfig
from flowbrush.backbones.dit import DiT
from flowbrush.backbones.pixart import PixArt
from flowbrush.condition import Condition
from flowbrush.errors import UserError
from flowbrush.interchange.reparameterised import start_pixart
from flowbrush.shapes import ConditionShapes, Shapes

SHAPES = Shapes(channels=4, height=8, width=8, condition=ConditionShapes(labels=3))
TEXT = replace(SHAPES, condition=ConditionShapes(text_width=6, text_tokens=5))
OF_LABELS = DiTConfig(depth=3, width=24, heads=2, qk_norm=True, time_scale=1000.0)
OF_TEXT = PixArtConfig(depth=3, width=24, heads=2, qk_norm=True, position_span=4.0)


@pytest.fixture
def dit() -> DiT:
    torch.manual_seed(0)
    network = OF_LABELS.build(SHAPES)
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return network


@torch.no_grad()
def said(network: DiT | PixArt, t: float) -> torch.Tensor:
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    condition = Condition(label=torch.tensor([3, 3]), text=torch.ones(2, 5, 6))
    return network(x, torch.full((2,), t), condition)


def test_in_the_middle_it_says_what_the_dit_says_without_a_label(dit: DiT) -> None:
    pixart = OF_TEXT.build(TEXT)
    start_pixart(pixart, dit)
    assert torch.allclose(said(pixart, 0.5), said(dit, 0.5), atol=1e-4)
    assert said(dit, 0.5).std() > 0.1


def test_a_block_of_its_own_keeps_what_sets_it_apart(dit: DiT) -> None:
    pixart = OF_TEXT.build(TEXT)
    start_pixart(pixart, dit)
    tables = torch.stack([block.table for block in pixart.blocks])
    assert tables.std(dim=0).min() > 0
    assert torch.allclose(tables.mean(dim=0), torch.zeros_like(tables[0]), atol=1e-4)


@pytest.mark.parametrize("other", [{"width": 48}, {"depth": 2}, {"time_scale": 1.0}])
def test_another_size_is_refused(dit: DiT, other: dict) -> None:
    pixart = replace(OF_TEXT, **other).build(TEXT)
    with pytest.raises(UserError, match="start: "):
        start_pixart(pixart, dit)
