"""What is computed ahead says what the plain network says, and is computed once."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from flowbrush.backbones import (
    BackboneConfig,
    DiTConfig,
    FluxConfig,
    JiTConfig,
    MMDiTConfig,
    PixArtConfig,
    UNetConfig,
)
from flowbrush.backbones.layers import ahead
from flowbrush.backbones.layers.ahead import computed_ahead
from flowbrush.backbones.layers.modulation import Modulation
from flowbrush.condition import Condition
from flowbrush.flow.denoiser import Denoiser, FlowConfig
from flowbrush.flow.guidance import Guided
from flowbrush.flow.sampling import SamplingConfig, transport
from flowbrush.flow.times import grid
from flowbrush.shapes import ConditionShapes, Shapes

TEXT = ConditionShapes(text_width=6, text_tokens=5, pooled_width=7)
LABELS = ConditionShapes(labels=3)
FAMILIES: dict[str, tuple[BackboneConfig, ConditionShapes]] = {
    "dit": (DiTConfig(depth=2, width=16, heads=2), LABELS),
    "unet": (UNetConfig(width=8, levels=(1, 2)), LABELS),
    "jit of labels": (
        JiTConfig(depth=3, width=16, heads=2, patch=2, bottleneck=4, context_start=1), LABELS,
    ),
    "jit of text": (
        JiTConfig(depth=3, width=16, heads=2, patch=2, bottleneck=4, context_start=1), TEXT,
    ),
    "mmdit": (MMDiTConfig(depth=3, width=16, heads=2, qk_norm=True, dual_attention_blocks=1), TEXT),
    "flux": (
        FluxConfig(double_depth=1, single_depth=2, width=16, heads=2, axes=(4, 2, 2), guidance=3.0),
        TEXT,
    ),
    "flux, masked": (
        FluxConfig(
            double_depth=1, single_depth=2, width=16, heads=2, axes=(4, 2, 2), mask_text=True
        ),
        TEXT,
    ),
    "pixart": (PixArtConfig(depth=2, width=24, heads=2), TEXT),
    "pixart that is told its size": (
        PixArtConfig(depth=2, width=24, heads=2, pixels_per_position=8), TEXT,
    ),
}  # fmt: skip
SOLVERS = {
    "heun": SamplingConfig(method="heun", steps=5, scale=3.0),
    "guided for a while": SamplingConfig(method="euler", steps=6, scale=3.0, interval=(0.2, 0.7)),
    "between its times": SamplingConfig(method="rk4", steps=3, scale=3.0),
    "at times of its own": SamplingConfig(method="dopri5", scale=3.0, rtol=0.1, atol=0.1),
}


def network(family: str) -> nn.Module:
    config, condition = FAMILIES[family]
    torch.manual_seed(0)
    backbone = config.build(Shapes(channels=2, height=8, width=8, condition=condition)).eval()
    for weight in backbone.parameters():
        nn.init.normal_(weight, std=0.2)
    return backbone


def given(family: str, b: int = 2) -> tuple[Condition, Condition]:
    """A condition of b rows, and the null of one."""
    torch.manual_seed(1)
    if FAMILIES[family][1] is LABELS:
        return Condition(label=torch.arange(b) % 3), Condition(label=torch.tensor([3]))
    mask = torch.arange(5) < torch.randint(1, 6, (b, 1))
    text = Condition(text=torch.randn(b, 5, 6), text_mask=mask, pooled=torch.randn(b, 7))
    return text, Condition(text=torch.randn(1, 2, 6), pooled=torch.randn(1, 7))


@torch.no_grad()
def painted(backbone: nn.Module, family: str, sampling: SamplingConfig, b: int = 2) -> Tensor:
    condition, null = given(family, b)
    field = Guided(Denoiser(backbone, "data", 0.05), null, sampling.scale, sampling.interval)
    noise = torch.randn(b, 2, 8, 8, generator=torch.Generator().manual_seed(2))
    return transport(field, noise, condition, sampling, FlowConfig(prediction="data"))


@torch.no_grad()
def painted_ahead(backbone: nn.Module, family: str, sampling: SamplingConfig, b: int = 2) -> Tensor:
    with computed_ahead(backbone, grid(sampling.steps, sampling.shift)):
        return painted(backbone, family, sampling, b)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_picture_is_the_plain_network_s_to_rounding(family: str, solver: str) -> None:
    backbone, sampling = network(family), SOLVERS[solver]
    plain, faster = (how(backbone, family, sampling) for how in (painted, painted_ahead))
    assert plain.std() > 0.1
    assert torch.allclose(plain, faster, atol=2e-5 * float(plain.abs().max()))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_network_is_afterwards_what_it_was(family: str) -> None:
    backbone, sampling = network(family), SOLVERS["heun"]
    before = painted(backbone, family, sampling)
    painted_ahead(backbone, family, sampling)
    for weight in backbone.parameters():
        weight.data.mul_(1.5)
    assert not torch.allclose(painted(backbone, family, sampling), before)
    assert all("forward" not in vars(module) for module in backbone.modules())
    assert "vector" not in vars(backbone)


def modulated(backbone: nn.Module, sampled: Callable[..., Tensor], family: str) -> set[int]:
    """How often each modulation's layer is evaluated in 20 steps of two evaluations."""
    counts: dict[nn.Module, int] = {}
    for module in backbone.modules():
        if isinstance(module, Modulation):
            module.linear.register_forward_hook(
                lambda layer, *_: counts.update({layer: counts.get(layer, 0) + 1})
            )
    sampled(backbone, family, SamplingConfig(method="heun", steps=20, scale=3.0))
    return set(counts.values())


@pytest.mark.parametrize("family", ["dit", "jit of text", "mmdit", "flux"])
def test_modulations_of_all_steps_are_one_multiplication(family: str) -> None:
    assert modulated(network(family), painted, family) == {39}
    assert modulated(network(family), painted_ahead, family) == {1}


def test_texts_keys_and_values_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, sampling = network("pixart"), SamplingConfig(method="euler", steps=7, scale=3.0)
    of_text = {id(block.cross_attention.kv.weight) for block in backbone.blocks}
    of_text |= {id(layer.weight) for layer in (backbone.text[0], backbone.text[2])}
    multiplied: list[int] = []
    plain = nn.functional.linear

    def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        multiplied.append(id(weight))
        return plain(x, weight, bias)

    monkeypatch.setattr("flowbrush.backbones.layers.linear._on_amd", lambda: False)
    monkeypatch.setattr(nn.functional, "linear", linear)
    painted_ahead(backbone, "pixart", sampling)
    assert sorted(i for i in multiplied if i in of_text) == sorted(of_text)


def test_a_bound_on_the_rows_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, sampling = network("mmdit"), SamplingConfig(method="euler", steps=9, scale=3.0)
    plain = painted(backbone, "mmdit", sampling, b=3)
    for rows in (1, 6, 13, 24):
        monkeypatch.setattr(ahead, "ROWS", rows)
        faster = painted_ahead(backbone, "mmdit", sampling, b=3)
        assert torch.allclose(plain, faster, atol=2e-5 * float(plain.abs().max()))
