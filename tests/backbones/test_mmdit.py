"""MMDiT: its sizes, its first output, what its output depends on, its masks and its positions."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from flowbrush.backbones.layers.embeddings import patchify, sincos_2d, sincos_2d_crop
from flowbrush.backbones.mmdit import MMDiT, MMDiTConfig
from flowbrush.condition import Condition
from flowbrush.errors import UserError
from flowbrush.shapes import ConditionShapes, Shapes

TINY = MMDiTConfig(depth=3, width=32, heads=2, patch=2, positions=12, position_span=6.0)
TINY_35 = replace(TINY, qk_norm=True, dual_attention_blocks=1)
WITH_TEXT = ConditionShapes(text_width=6, pooled_width=7)
T = torch.tensor([0.2, 0.7])
CPU = torch.device("cpu")

both_kinds = pytest.mark.parametrize("config", [TINY, TINY_35], ids=["3", "3.5"])


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


TEXT = Condition(text=normal(2, 4, 6), pooled=normal(2, 7))


def shapes(condition: ConditionShapes = WITH_TEXT, height: int = 8, width: int = 8) -> Shapes:
    return Shapes(channels=3, height=height, width=width, condition=condition)


def randomised(config: MMDiTConfig = TINY) -> MMDiT:
    """A network past its first, zero output."""
    network, generator = config.build(shapes()), torch.Generator().manual_seed(0)
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.2, generator=generator)
    return network.eval()


@both_kinds
@pytest.mark.parametrize(("height", "width"), [(8, 8), (4, 16), (12, 8), (2, 2)])
def test_the_output_has_the_shape_of_any_picture(config, height, width):
    x_t = normal(2, 3, height, width)
    assert randomised(config)(x_t, T, TEXT).shape == x_t.shape


@both_kinds
def test_a_new_network_says_zero(config):
    assert config.build(shapes())(normal(2, 3, 8, 8), T, TEXT).eq(0).all()


@both_kinds
def test_the_blocks_of_a_new_network_change_nothing(config):
    network, seen = config.build(shapes()), []
    network.blocks[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    network.blocks[-1].register_forward_hook(lambda _, given, output: seen.append(output))
    network(normal(2, 3, 8, 8), T, TEXT)
    (image, text), (last_image, last_text) = seen
    assert torch.equal(image, last_image)
    assert torch.equal(text, last_text)


@pytest.mark.parametrize(
    ("config", "published"),
    [
        (MMDiTConfig(), 2_028_328_000),
        (MMDiTConfig(qk_norm=True, dual_attention_blocks=13, positions=384), 2_243_171_520),
    ],
    ids=["3-medium", "3.5-medium"],
)
def test_the_number_of_parameters_is_the_published_one(config, published):
    condition = ConditionShapes(text_width=4096, pooled_width=2048)
    with torch.device("meta"):
        network = config.build(Shapes(channels=16, height=128, width=128, condition=condition))
    assert sum(p.numel() for p in network.parameters()) == published


@both_kinds
def test_every_weight_is_learned(config):
    network = randomised(config)
    network(normal(2, 3, 8, 8), T, TEXT).square().sum().backward()
    learned = {name: w for name, w in network.named_parameters() if w.requires_grad}
    assert [name for name, w in learned.items() if w.grad is None or not w.grad.any()] == []


def test_only_the_norm_of_queries_that_nobody_asks_is_not_learned():
    still = [name for name, w in randomised(TINY_35).named_parameters() if not w.requires_grad]
    assert still == ["blocks.2.text_heads.q_norm.weight"]


@both_kinds
@pytest.mark.parametrize(
    "other",
    [
        replace(TEXT, text=normal(2, 4, 6, seed=2)),
        replace(TEXT, pooled=normal(2, 7, seed=2)),
        replace(TEXT, text_mask=torch.tensor([[True, True, True, False]] * 2)),
    ],
    ids=["text", "pooled", "mask"],
)
def test_the_condition_changes_the_picture(config, other):
    network, x_t = randomised(config), normal(2, 3, 8, 8)
    assert (network(x_t, T, TEXT) - network(x_t, T, other)).abs().max() > 1e-3


def test_the_time_changes_the_picture():
    network, x_t = randomised(), normal(2, 3, 8, 8)
    assert (network(x_t, T, TEXT) - network(x_t, T + 0.2, TEXT)).abs().max() > 1e-3


def test_each_part_of_the_picture_sees_the_others():
    network, x_t = randomised(), normal(2, 3, 8, 8)
    elsewhere = x_t.clone()
    elsewhere[:, :, 6:, 6:] += 1
    change = (network(x_t, T, TEXT) - network(elsewhere, T, TEXT))[:, :, :2, :2]
    assert change.abs().max() > 1e-3


@both_kinds
def test_a_picture_depends_on_its_own_row_alone(config):
    network, x_t = randomised(config), normal(2, 3, 8, 8)
    alone = network(x_t[1:], T[1:], TEXT.rows(torch.tensor([1])))
    assert_close(network(x_t, T, TEXT)[1:], alone, rtol=1e-4, atol=1e-5)


@both_kinds
def test_masked_tokens_do_not_change_the_picture(config):
    network, x_t, text = randomised(config), normal(2, 3, 8, 8), normal(2, 2, 6)
    garbage = torch.cat([text, 100 * normal(2, 2, 6, seed=2)], dim=1)
    real = torch.tensor([[True, True, False, False]] * 2)
    short = network(x_t, T, replace(TEXT, text=text))
    padded = network(x_t, T, replace(TEXT, text=garbage, text_mask=real))
    assert_close(padded, short, rtol=1e-4, atol=1e-5)


def test_a_mask_without_gaps_is_no_mask():
    network, x_t = randomised(), normal(2, 3, 8, 8)
    masked = replace(TEXT, text_mask=torch.ones(2, 4, dtype=torch.bool))
    assert_close(network(x_t, T, masked), network(x_t, T, TEXT), rtol=1e-4, atol=1e-5)


def test_a_text_without_a_real_token_is_no_text():
    network, x_t = randomised(), normal(2, 3, 8, 8)
    masked = replace(TEXT, text_mask=torch.zeros(2, 4, dtype=torch.bool))
    none = replace(TEXT, text=normal(2, 0, 6))
    assert_close(network(x_t, T, masked), network(x_t, T, none), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (4, 16), (12, 8)])
def test_each_patch_gets_the_position_of_its_row_and_column(height, width):
    network, given = randomised(), []
    network.blocks[0].register_forward_pre_hook(lambda _, inputs: given.append(inputs[0].image))
    x_t = normal(2, 3, height, width)
    network(x_t, T, TEXT)
    positions = sincos_2d_crop(height // 2, width // 2, 12, 6.0, 32, CPU)
    assert_close(given[0], network.patches(patchify(x_t, 2)) + positions)


@pytest.mark.parametrize(("h", "w"), [(2, 4), (3, 5), (6, 6), (1, 6)])
def test_positions_are_cut_from_the_middle_of_the_square(h, w):
    square = sincos_2d_crop(6, 6, 6, 3.0, 16, CPU).view(6, 6, 16)
    top, left = (6 - h) // 2, (6 - w) // 2
    middle = square[top : top + h, left : left + w].reshape(h * w, 16)
    assert torch.equal(sincos_2d_crop(h, w, 6, 3.0, 16, CPU), middle)


def test_positions_of_a_whole_square_that_counts_its_patches_are_those_of_a_dit():
    assert_close(sincos_2d_crop(5, 5, 5, 5.0, 16, CPU), sincos_2d(5, 5, 16, CPU))


def test_positions_go_on_beyond_the_square():
    beyond = sincos_2d_crop(8, 8, 6, 3.0, 16, CPU).view(8, 8, 16)
    assert_close(beyond[1:-1, 1:-1].reshape(36, 16), sincos_2d_crop(6, 6, 6, 3.0, 16, CPU))


def test_a_network_that_has_painted_can_still_be_trained():
    network, x_t = randomised(), normal(2, 3, 20, 28)  # a size that no other test here has
    with torch.inference_mode():
        network(x_t, T, TEXT)
    network(x_t, T, TEXT).sum().backward()
    assert network.patches.weight.grad is not None


@pytest.mark.parametrize("sizes", [{"width": 32, "heads": 3}, {"width": 30, "heads": 3}])
def test_a_width_that_does_not_divide_is_refused(sizes):
    wanted = rf"width {sizes['width']} must divide by heads \({sizes['heads']}\) and by 4"
    with pytest.raises(UserError, match=wanted):
        replace(TINY, **sizes)


@pytest.mark.parametrize("blocks", [-1, 3])
def test_more_dual_blocks_than_there_are_before_the_last_are_refused(blocks):
    with pytest.raises(UserError, match=f"dual_attention_blocks {blocks} must be in 0..depth-1"):
        replace(TINY, dual_attention_blocks=blocks)


@pytest.mark.parametrize(("height", "width"), [(8, 7), (7, 8)])
def test_a_patch_that_does_not_divide_the_picture_is_refused(height, width):
    with pytest.raises(UserError, match=f"patch 2 does not divide pictures of {height} x {width}"):
        TINY.build(shapes(WITH_TEXT, height, width))


@pytest.mark.parametrize(
    "given",
    [
        ConditionShapes(text_width=6),
        ConditionShapes(pooled_width=7),
        ConditionShapes(labels=3),
        ConditionShapes(labels=3, text_width=6, pooled_width=7),
    ],
    ids=["no pooled", "no text", "labels", "labels and text"],
)
def test_what_is_not_text_together_with_a_pooled_vector_is_refused(given):
    with pytest.raises(UserError, match="MMDiT takes text together with a pooled text vector"):
        TINY.build(shapes(given))
