"""SwiGLU: its formula, and the channels of zeros that fill its hidden width up on a GPU."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import silu
from torch.testing import assert_close

from flowbrush.backbones.layers.feedforward import SwiGLU

odd = pytest.mark.parametrize("hidden", [85, 42, 130])  # 2,730 and 3,413 divide by 8 no better


def swiglu(hidden: int) -> SwiGLU:
    torch.manual_seed(0)
    return SwiGLU(32, hidden)


def tokens() -> Tensor:
    return torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(1))


def computed(layer: SwiGLU, forward: Callable[[Tensor], Tensor], x: Tensor) -> int:
    """How many hidden channels are really computed."""
    seen: list[int] = []
    layer.dropout.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[-1]))
    forward(x)
    return seen[0]


def test_the_first_half_of_w12_is_the_gate_of_the_second():
    layer, x = swiglu(8), tokens()
    gate = x @ layer.w12.weight[:8].T + layer.w12.bias[:8]
    up = x @ layer.w12.weight[8:].T + layer.w12.bias[8:]
    assert_close(layer(x), layer.w3(silu(gate) * up))


@odd
def test_channels_of_zeros_do_not_change_the_output(hidden):
    layer, x = swiglu(hidden), tokens()
    assert_close(layer.aligned(x), layer(x))


@odd
def test_channels_of_zeros_do_not_change_the_gradients(hidden):
    layer, x = swiglu(hidden), tokens().requires_grad_()
    learned = [x, *layer.parameters()]
    plain = torch.autograd.grad(layer(x).square().sum(), learned)
    aligned = torch.autograd.grad(layer.aligned(x).square().sum(), learned)
    assert_close(aligned, plain, rtol=1e-4, atol=1e-5)


def test_channels_of_zeros_do_not_change_the_output_under_autocast():
    layer, x = swiglu(85), tokens()
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(layer.aligned(x), layer(x), rtol=0.02, atol=0.005)


@pytest.mark.parametrize(("hidden", "filled"), [(85, 128), (2730, 2752), (3413, 3456)])
def test_channels_are_filled_up_to_a_multiple_of_64(hidden, filled):
    layer = swiglu(hidden)
    assert computed(layer, layer.aligned, tokens()) == filled


def test_on_a_cpu_nothing_is_filled_up():
    layer = swiglu(85)
    assert computed(layer, layer, tokens()) == 85


@pytest.mark.gpu
@pytest.mark.parametrize(("hidden", "filled"), [(85, 128), (88, 88)])
def test_on_a_gpu_only_rows_that_do_not_begin_at_16_bytes_are_filled_up(hidden, filled):
    layer = swiglu(hidden).to("cuda")
    assert computed(layer, layer, tokens().to("cuda")) == filled


def test_the_weights_that_are_learned_and_saved_have_the_hidden_width_that_was_asked_for():
    saved = {name: tuple(weight.shape) for name, weight in swiglu(85).state_dict().items()}
    assert saved == {
        "w12.weight": (170, 32),
        "w12.bias": (170,),
        "w3.weight": (32, 85),
        "w3.bias": (32,),
    }
