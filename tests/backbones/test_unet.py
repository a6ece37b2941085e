import pytest
import torch

from flowbrush.backbones.unet import UNetConfig
from flowbrush.condition import Condition
from flowbrush.errors import UserError
from flowbrush.shapes import ConditionShapes, Shapes

LABELS = ConditionShapes(labels=10)


def network(condition: ConditionShapes = LABELS, size: int = 28, randomised: bool = True):
    torch.manual_seed(0)
    shapes = Shapes(channels=3, height=size, width=size, condition=condition)
    net = UNetConfig(width=8, levels=(1, 2, 2)).build(shapes)
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


@pytest.mark.parametrize(
    ("condition", "size", "told"),
    [(LABELS, 30, "patch 4 does not divide"), (ConditionShapes(text_width=8), 28, "not text")],
)
def test_what_does_not_fit_is_refused(condition, size: int, told: str) -> None:
    with pytest.raises(UserError, match=told):
        network(condition, size)
