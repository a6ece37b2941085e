import torch
from torch import Tensor

from flowbrush.condition import Condition
from flowbrush.learn.paths import along


def straight(x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
    return torch.full_like(x_t, 2.0)


def test_a_straight_flow_is_met_at_every_time() -> None:
    noise = torch.randn(3, 2, 1, 1)
    stops = along(straight, noise, Condition(), [0.0, 0.25, 1.0])
    assert stops.shape == (3, 3, 2, 1, 1)
    torch.testing.assert_close(stops, torch.stack([noise, noise + 0.5, noise + 2]))


def test_nothing_is_kept_for_a_backward_pass() -> None:
    noise = torch.randn(1, 2, 1, 1, requires_grad=True)
    assert not along(straight, noise, Condition(), [0.0, 1.0]).requires_grad
