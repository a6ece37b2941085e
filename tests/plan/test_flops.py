"""FLOPs agree with closed forms and with what was published; MACs are half of them."""

import pytest
import torch
from torch import nn

from flowbrush.plan.devices import DEVICES, named
from flowbrush.plan.flops import META, counted, forward_flops, skeleton, work_of
from flowbrush.recipes import recipe
from flowbrush.shapes import ConditionShapes, Shapes

CLASSES = ConditionShapes(labels=1000)


def test_a_linear_layer_takes_two_flops_a_weight_and_row() -> None:
    layer = nn.Linear(30, 70, device=META)
    assert counted(lambda: layer(torch.zeros(11, 30, device=META))) == 2 * 11 * 30 * 70


@pytest.mark.parametrize(
    ("name", "channels", "side", "gigaflops"),
    [
        ("sit-xl2", 4, 32, 237.2),
        ("sit-xl2", 4, 64, 1049.0),
        ("jit-b16", 3, 256, 50.4),
        ("jit-l16", 3, 256, 175.9),
        ("jit-h16", 3, 256, 363.9),
    ],
)
def test_published_networks_have_the_known_counts(
    name: str, channels: int, side: int, gigaflops: float
) -> None:
    shapes = Shapes(channels=channels, height=side, width=side, condition=CLASSES)
    network = skeleton(recipe(name).backbone, shapes)  # type: ignore[union-attr]
    assert forward_flops(network, shapes) / 1e9 == pytest.approx(gigaflops, rel=1e-3)


def test_counting_draws_no_number_and_leaves_no_table() -> None:
    shapes = Shapes(channels=3, height=28, width=28, condition=ConditionShapes(labels=10))
    backbone = recipe("mnist").backbone  # type: ignore[union-attr]
    torch.manual_seed(0)
    wanted = torch.rand(1)
    torch.manual_seed(0)
    work = work_of(backbone, shapes, torch.device("cpu"), torch.float32, 2)
    assert torch.rand(1) == wanted
    assert work.peak is None
    assert work.told == ""


def test_a_device_is_known_by_what_cuda_calls_it() -> None:
    assert named("NVIDIA H200") is DEVICES["h200"]
    assert named("NVIDIA A100-SXM4-80GB") is DEVICES["a100"]
    assert named("NVIDIA GeForce RTX 4090") is DEVICES["rtx4090"]
    assert named("NVIDIA H100 PCIe") is None
    assert named("NVIDIA GeForce RTX 2060") is None
    assert DEVICES["h200"].peak(torch.bfloat16) == 989e12
    assert DEVICES["h200"].peak(torch.float32) == 67e12
