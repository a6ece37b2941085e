from dataclasses import replace

import pytest
import torch

from flowbrush.backbones.unet import UNetConfig
from flowbrush.condition import Condition
from flowbrush.errors import UserError
from flowbrush.shapes import ConditionShapes, Shapes

LABELS = ConditionShapes(labels=10)


POOLED = ConditionShapes(pooled_width=7)


def network(
    condition: ConditionShapes = LABELS,
    size: int = 28,
    randomised: bool = True,
    pooled_text: bool = False,
):
    torch.manual_seed(0)
    shapes = Shapes(channels=3, height=size, width=size, condition=condition)
    net = UNetConfig(width=8, levels=(1, 2, 2), pooled_text=pooled_text).build(shapes)
    for weight in net.parameters() if randomised else ():
        torch.nn.init.normal_(weight, std=0.1)
    return net


def test_it_says_nothing_before_training() -> None:
    out = network(randomised=False)(
        torch.randn(2, 3, 28, 28), torch.rand(2), Condition(label=torch.tensor([0, 1]))
    )
    assert torch.equal(out, torch.zeros(2, 3, 28, 28))


@pytest.mark.parametrize(("h", "w"), [(28, 28), (32, 16)])
def test_the_output_has_the_shape_of_the_input(h: int, w: int) -> None:
    out = network()(torch.randn(2, 3, h, w), torch.rand(2), Condition(label=torch.tensor([0, 1])))
    assert out.shape == (2, 3, h, w)


def test_time_and_label_change_the_output() -> None:
    net, x = network(), torch.randn(1, 3, 28, 28)

    def out(t: float, label: int) -> torch.Tensor:
        return net(x, torch.tensor([t]), Condition(label=torch.tensor([label])))

    assert not torch.allclose(out(0.2, 1), out(0.8, 1))
    assert not torch.allclose(out(0.2, 1), out(0.2, 2))


def test_it_learns_without_labels_too() -> None:
    net = network(ConditionShapes())
    net(torch.randn(1, 3, 28, 28), torch.rand(1), Condition()).square().sum().backward()
    assert all(weight.grad is not None for weight in net.parameters())


def test_a_pooled_text_joins_the_time() -> None:
    net, t, pooled = network(POOLED, pooled_text=True), torch.rand(2), torch.randn(2, 7)
    wanted = net.time(t) + pooled @ net.pooled.weight.T + net.pooled.bias
    torch.testing.assert_close(net.vector(t, Condition(pooled=pooled)), wanted)
    net(torch.randn(2, 3, 28, 28), t, Condition(pooled=pooled)).square().sum().backward()
    assert all(weight.grad.any() for weight in net.parameters())


def test_tokens_beside_a_pooled_text_are_not_read() -> None:
    net = network(replace(POOLED, text_width=6, text_tokens=4), pooled_text=True)
    x, t, pooled = torch.randn(2, 3, 28, 28), torch.rand(2), torch.randn(2, 7)
    both = Condition(text=torch.randn(2, 4, 6), pooled=pooled)
    assert torch.equal(net(x, t, both), net(x, t, Condition(pooled=pooled)))


@pytest.mark.parametrize(
    ("condition", "size", "pooled_text", "told"),
    [
        (LABELS, 30, False, "patch 4 does not divide"),
        (ConditionShapes(text_width=8), 28, False, r"not text; use --backbone\.pooled-text"),
        (POOLED, 28, False, r"not text; use --backbone\.pooled-text"),
        (LABELS, 28, True, "pooled_text wants a text encoder"),
    ],
    ids=["size", "text", "pooled text", "no pooled text"],
)
def test_what_does_not_fit_is_refused(condition, size: int, pooled_text: bool, told: str) -> None:
    with pytest.raises(UserError, match=told):
        network(condition, size, pooled_text=pooled_text)
