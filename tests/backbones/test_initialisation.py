"""How the weights of each family start, as published."""

import math
import re
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from flowbrush.backbones import (
    BackboneConfig,
    DiTConfig,
    FluxConfig,
    JiTConfig,
    MMDiTConfig,
    PixArtConfig,
)
from flowbrush.condition import Condition
from flowbrush.recipes import RECIPES, recipe
from flowbrush.shapes import ConditionShapes, Shapes

T = torch.tensor([0.2, 0.7])


@dataclass(frozen=True, kw_only=True)
class Family:
    """A network, and which of its linear layers start at zero or with a small normal."""

    config: BackboneConfig
    given: ConditionShapes
    zero: str = r"output|.*modulation\.linear"
    small: str = r"time\.mlp\.[02]"

    def build(self) -> nn.Module:
        torch.manual_seed(0)
        return self.config.build(Shapes(channels=3, height=8, width=8, condition=self.given))


LABELS = ConditionShapes(labels=20)
POOLED = ConditionShapes(pooled_width=24)
TEXT = ConditionShapes(text_width=24, text_tokens=4)
BOTH = ConditionShapes(text_width=24, text_tokens=4, pooled_width=24)
DIT = DiTConfig(depth=2, width=96, heads=2)
JIT = JiTConfig(depth=3, width=96, heads=2, patch=4, bottleneck=24, context_start=1)

ADALN_ZERO = {
    "dit": Family(config=DIT, given=LABELS),
    "dit of text": Family(
        config=DiTConfig(depth=2, width=96, heads=2, pooled_text=True), given=POOLED
    ),
    "flux": Family(
        config=FluxConfig(
            double_depth=2, single_depth=2, width=96, heads=2, axes=(16, 16, 16), guidance=3.5
        ),
        given=BOTH,
        small=r"(time|guidance)\.mlp\.[02]",
    ),
    "jit": Family(config=JIT, given=LABELS),
    "jit of text": Family(config=JIT, given=BOTH),
    "mmdit": Family(
        config=MMDiTConfig(depth=3, width=96, heads=2, dual_attention_blocks=1), given=BOTH
    ),
}
FAMILIES = ADALN_ZERO | {
    "pixart": Family(
        config=PixArtConfig(depth=2, width=96, heads=2, pixels_per_position=8),
        given=TEXT,
        zero=r"output|.*cross_attention\.proj",
        small=r"(time|size\.side|size\.aspect)\.mlp\.[02]|text\.[02]|modulation\.linear",
    )
}

adaln_zero = pytest.mark.parametrize("family", ADALN_ZERO.values(), ids=ADALN_ZERO)
all_families = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)


def linears(family: Family, kind: str | None) -> list[nn.Linear]:
    """Layers whose name matches `kind`; those of no kind where it is None."""
    found = []
    for name, layer in family.build().named_modules():
        if isinstance(layer, nn.Linear):
            kinds = [k for k in (family.zero, family.small) if re.fullmatch(k, name)]
            found += [layer] if kinds == ([] if kind is None else [kind]) else []
    assert found
    return found


def condition(given: ConditionShapes) -> Condition:
    return Condition(
        label=None if given.labels is None else torch.tensor([0, 1]),
        text=None if given.text_width is None else torch.randn(2, 4, given.text_width),
        pooled=None if given.pooled_width is None else torch.randn(2, given.pooled_width),
    )


def std(weights: Tensor) -> float:
    return weights.std().item()


@adaln_zero
def test_each_block_of_a_new_network_changes_nothing(family):
    network, seen = family.build(), []
    blocks = [b for part in network.children() if isinstance(part, nn.ModuleList) for b in part]
    for block in blocks:
        block.register_forward_hook(lambda _, given, output: seen.append((given[0], output)))
    network(torch.randn(2, 3, 8, 8), T, condition(family.given))
    assert len(seen) == len(blocks)
    for before, after in seen:
        assert_close(after, before, rtol=0, atol=0)


@all_families
def test_the_output_and_what_opens_the_blocks_start_at_zero(family):
    assert all(w.eq(0).all() for layer in linears(family, family.zero) for w in layer.parameters())


@all_families
def test_small_layers_start_with_a_standard_deviation_of_0_02(family):
    for layer in linears(family, family.small):
        assert_close(std(layer.weight), 0.02, rtol=0.05, atol=0)


@all_families
def test_all_other_linear_layers_start_xavier_uniform(family):
    for layer in linears(family, None):
        bound = math.sqrt(6 / (layer.in_features + layer.out_features))
        assert layer.weight.abs().max() <= bound
        assert_close(std(layer.weight), bound / math.sqrt(3), rtol=0.1, atol=0)


@all_families
def test_biases_start_at_zero(family):
    named = family.build().named_parameters()
    assert [n for n, w in named if n.endswith(".bias") and w.any()] == []


@pytest.mark.parametrize("name", ["dit", "jit"])
def test_labels_start_with_a_standard_deviation_of_0_02(name):
    label = FAMILIES[name].build().label
    assert isinstance(label, nn.Embedding)
    assert_close(std(label.weight), 0.02, rtol=0.1, atol=0)


@pytest.mark.parametrize("name", ["jit", "jit of text"])
def test_positions_in_context_start_with_a_standard_deviation_of_0_02(name):
    assert_close(std(FAMILIES[name].build().context_positions), 0.02, rtol=0.1, atol=0)


def test_the_tables_of_a_pixart_start_with_the_standard_deviation_of_a_unit_vector():
    network = FAMILIES["pixart"].build()
    tables = torch.cat([network.table, *(block.table for block in network.blocks)])
    assert_close(std(tables), 96**-0.5, rtol=0.1, atol=0)


def test_a_dit_of_jax_flow_begins_with_its_convolution_and_its_three_layers() -> None:
    """Xavier: std sqrt(2 / (fan in + fan out)), of q, k, v each; of the patches with positions."""
    width, channels, patch = 96, 4, 2
    torch.manual_seed(0)
    shapes = Shapes(channels=channels, height=8, width=8, condition=LABELS)
    config = DiTConfig(depth=2, width=width, heads=2, patch=patch, init="jax_flow")
    network = config.build(shapes)
    patches = math.sqrt(2 / (channels * patch**2 + width * patch**2))
    assert float(network.patches.weight.detach().std()) == pytest.approx(patches, rel=0.05)
    assert patches == pytest.approx(0.0707, abs=1e-4)
    for block in network.blocks:
        for part in block.attention.qkv.weight.detach().chunk(3):
            assert float(part.std()) == pytest.approx(1 / math.sqrt(width), rel=0.03)
        assert float(block.attention.proj.weight.detach().std()) == pytest.approx(
            1 / math.sqrt(width), rel=0.03
        )
    torch.manual_seed(0)
    usual = replace(config, init="dit").build(shapes)
    assert float(usual.patches.weight.detach().std()) == pytest.approx(0.134, abs=0.005)
    joined = usual.blocks[0].attention.qkv.weight.detach()
    assert float(joined.std()) == pytest.approx(0.072, abs=0.002)


@pytest.mark.parametrize("name", [n for n in RECIPES if n.startswith("jax-flow-")])
def test_the_recipes_of_jax_flow_begin_as_its_networks_do(name: str) -> None:
    backbone = recipe(name).backbone
    assert not isinstance(backbone, DiTConfig) or backbone.init == "jax_flow"
