"""The memory that is followed is what one counts by hand."""

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from flowbrush.blocks import recompute_blocks
from flowbrush.condition import Condition
from flowbrush.experiment import ExperimentConfig
from flowbrush.plan.live import followed, step_memory
from flowbrush.recipes import recipe
from flowbrush.shapes import ConditionShapes, Shapes

DIGITS = Shapes(channels=3, height=28, width=28, condition=ConditionShapes(labels=10))


def config() -> ExperimentConfig:
    found = recipe("mnist")
    assert isinstance(found, ExperimentConfig)
    return found


def test_two_layers_keep_what_is_between_them() -> None:
    b, inside, hidden, outside = 7, 10, 20, 5
    with FakeTensorMode():
        network = nn.Sequential(nn.Linear(inside, hidden), nn.ReLU(), nn.Linear(hidden, outside))
        x = torch.zeros(b, inside)
        found = followed(lambda: network(x).sum(), network)
    loss = 4
    assert found.kept == 4 * b * hidden + loss  # what ReLU said; x was there before
    weights = 4 * (inside * hidden + hidden + hidden * outside + outside)
    # The last moment: all gradients of weights, what ReLU said, and the gradient before it.
    gradients_between = 4 * b * hidden
    assert weights < found.most <= weights + 2 * gradients_between + 4 * b * outside + 2 * loss


def test_the_memory_of_a_step_is_a_straight_line_over_pictures() -> None:
    kept = [
        step_memory(config(), DIGITS, b, torch.float32, recompute=False, cuda=False).kept
        for b in (1, 2, 3, 8)
    ]
    assert kept[1] - kept[0] == kept[2] - kept[1] > 0
    assert kept[3] - kept[0] == 7 * (kept[1] - kept[0])


def test_recomputing_keeps_the_inputs_of_blocks_alone() -> None:
    def kept(recompute: bool) -> int:
        return step_memory(config(), DIGITS, 8, torch.float32, recompute, cuda=False).kept

    tokens, width, depth = 7 * 7 + 4, 128, 4
    assert kept(True) < kept(False) / 5
    assert kept(True) >= 4 * 8 * tokens * width * depth


def test_what_is_recomputed_is_the_same() -> None:
    torch.manual_seed(0)
    network = config().backbone.build(DIGITS)
    for weight in network.parameters():  # or the last layer is zero, and so is every gradient
        weight.data.normal_(std=0.02)
    x, t, given = torch.randn(2, 3, 28, 28), torch.rand(2), Condition(label=torch.tensor([1, 2]))

    def gradients() -> list[torch.Tensor]:
        network.zero_grad()
        network(x, t, given).square().sum().backward()
        return [w.grad.clone() for w in network.parameters() if w.grad is not None]

    before = gradients()
    recompute_blocks(network)
    assert all(map(torch.equal, before, gradients()))


def test_networks_compute_as_before_after_their_memory_was_followed() -> None:
    """Tables that a network remembers are not left as fakes."""
    for name in ("emoji", "pixart-small", "flux-small", "mmdit-small"):
        one = recipe(name)
        assert isinstance(one, ExperimentConfig)
        given = ConditionShapes(text_width=16, text_tokens=2, pooled_width=16)
        shapes = Shapes(channels=3, height=32, width=32, condition=given)
        step_memory(one, shapes, 2, torch.bfloat16, recompute=False, cuda=True)
        text = Condition(text=torch.randn(1, 2, 16), pooled=torch.randn(1, 16))
        network = one.backbone.build(shapes)
        assert type(network(torch.randn(1, 3, 32, 32), torch.rand(1), text)) is torch.Tensor
