"""The linear layer is torch's to rounding, in both of its ways to multiply."""

import pytest
import torch
from torch import Tensor, nn

from flowbrush.backbones.layers import linear
from flowbrush.backbones.layers.linear import Linear

INPUTS = {
    "a row": torch.randn(1, 5),
    "tokens": torch.randn(2, 7, 5),
    "heads": torch.randn(2, 3, 4, 5),
    "strided": torch.randn(5, 7, 2).permute(2, 1, 0),
}


@pytest.fixture
def on_amd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "_on_amd", lambda: torch.backends.mkldnn.is_available())


def layers(bias: bool) -> tuple[Linear, nn.Linear]:
    ours, plain = Linear(5, 9, bias=bias), nn.Linear(5, 9, bias=bias)
    plain.load_state_dict(ours.state_dict())
    return ours, plain


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", INPUTS)
def test_outputs_and_gradients_are_torch_s(on_amd: None, name: str, bias: bool) -> None:
    found: list[list[Tensor]] = []
    for layer in layers(bias):
        x = INPUTS[name].clone().requires_grad_()
        out = layer(x)
        out.sin().sum().backward()
        found.append([out.detach(), x.grad, *(w.grad for w in layer.parameters())])  # type: ignore[list-item]
    for one, other in zip(*found, strict=True):
        assert one.shape == other.shape
        assert torch.allclose(one, other, atol=1e-5)


def test_frozen_weights_get_no_gradient(on_amd: None) -> None:
    layer = Linear(5, 9).requires_grad_(False)
    x = torch.randn(3, 5, requires_grad=True)
    layer(x).sum().backward()
    assert layer.weight.grad is None
    assert torch.allclose(x.grad, layer.weight.sum(dim=0).expand(3, -1), atol=1e-5)  # type: ignore[arg-type]


def test_autocast_and_bf16_are_torch_s_own(on_amd: None) -> None:
    ours, plain = layers(bias=True)
    x = torch.randn(2, 7, 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ours(x), plain(x))
        assert ours(x).dtype == torch.bfloat16
    assert torch.equal(ours.bfloat16()(x.bfloat16()), plain.bfloat16()(x.bfloat16()))
