"""PixArt: its sizes, its first output, what its output depends on, and its positions."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from flowbrush.backbones.layers.attention import CrossAttention
from flowbrush.backbones.layers.embeddings import patchify, sincos_2d
from flowbrush.backbones.pixart import PixArt, PixArtConfig, SizeEmbedding, sincos_spanned
from flowbrush.condition import Condition
from flowbrush.errors import UserError
from flowbrush.shapes import ConditionShapes, Shapes

TINY = PixArtConfig(depth=2, width=48, heads=2, patch=2, position_span=4.0)
WITH_SIZE = replace(TINY, pixels_per_position=8)
WITH_TEXT = ConditionShapes(text_width=6, text_tokens=5)
T = torch.tensor([0.2, 0.7])
CPU = torch.device("cpu")


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


WORDS = normal(2, 5, 6)
TEXT = Condition(text=WORDS)


def shapes(condition: ConditionShapes = WITH_TEXT, height: int = 8, width: int = 8) -> Shapes:
    return Shapes(channels=3, height=height, width=width, condition=condition)


def randomised(config: PixArtConfig = TINY) -> PixArt:
    """A network past its first, zero output."""
    network, generator = config.build(shapes()), torch.Generator().manual_seed(0)
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.2, generator=generator)
    return network.eval()


@pytest.mark.parametrize("config", [TINY, WITH_SIZE], ids=["plain", "with size"])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (4, 16), (12, 6), (2, 2)])
def test_the_output_has_the_shape_of_any_picture(config, height, width):
    x_t = normal(2, 3, height, width)
    assert randomised(config)(x_t, T, TEXT).shape == x_t.shape


def test_a_new_network_says_zero():
    assert TINY.build(shapes())(normal(2, 3, 8, 8), T, TEXT).eq(0).all()


def test_a_new_block_ignores_the_text():
    block = TINY.build(shapes()).blocks[0]
    x, shared = normal(2, 16, 48), normal(2, 6, 48)
    one, other = normal(2, 5, 48), normal(2, 5, 48, seed=2)
    assert torch.equal(block(x, shared, one, None), block(x, shared, other, None))


@pytest.mark.parametrize("config", [TINY, WITH_SIZE], ids=["plain", "with size"])
def test_every_weight_is_learned(config):
    network = randomised(config)
    network(normal(2, 3, 8, 8), T, TEXT).square().sum().backward()
    assert [name for name, w in network.named_parameters() if not w.grad.any()] == []


def test_of_a_double_output_the_prediction_is_the_first_half():
    network, x_t = randomised(replace(TINY, double_output=True)), normal(2, 3, 8, 8)
    before = network(x_t, T, TEXT)
    assert before.shape == (2, 6, 8, 8)
    with torch.no_grad():
        network.output.weight.view(4, 2, 3, 48)[:, 1] += 1  # of each of the 4 pixels
    after = network(x_t, T, TEXT)
    assert_close(after[:, :3], before[:, :3])
    assert (after[:, 3:] - before[:, 3:]).abs().min() > 1e-3


@pytest.mark.parametrize(
    "other",
    [normal(2, 5, 6, seed=2), WORDS[:, :3]],
    ids=["other words", "fewer words"],
)
def test_the_text_changes_the_picture(other):
    network, x_t = randomised(), normal(2, 3, 8, 8)
    assert (network(x_t, T, TEXT) - network(x_t, T, Condition(text=other))).abs().max() > 1e-3


def test_masked_words_do_not_change_the_picture():
    network, x_t = randomised(), normal(2, 3, 8, 8)
    garbage = torch.cat([WORDS[:, :3], 100 * normal(2, 2, 6, seed=2)], dim=1)
    real = torch.tensor([[True, True, True, False, False]] * 2)
    padded = network(x_t, T, Condition(text=garbage, text_mask=real))
    assert_close(padded, network(x_t, T, Condition(text=WORDS[:, :3])), rtol=1e-4, atol=1e-5)


def test_a_mask_without_gaps_is_no_mask():
    network, x_t = randomised(), normal(2, 3, 8, 8)
    masked = Condition(text=WORDS, text_mask=torch.ones(2, 5, dtype=torch.bool))
    assert_close(network(x_t, T, masked), network(x_t, T, TEXT), rtol=1e-4, atol=1e-5)


def test_a_text_of_which_nothing_is_real_gives_finite_numbers_and_gradients():
    network = randomised()
    nothing = Condition(text=WORDS, text_mask=torch.zeros(2, 5, dtype=torch.bool))
    out = network(normal(2, 3, 8, 8), T, nothing)
    out.square().sum().backward()
    assert out.isfinite().all()
    assert all(w.grad.isfinite().all() for w in network.parameters())


def test_the_time_changes_the_picture():
    network, x_t = randomised(), normal(2, 3, 8, 8)
    assert (network(x_t, T, TEXT) - network(x_t, T + 0.2, TEXT)).abs().max() > 1e-3


def test_a_negative_time_scale_sees_the_noise_time():
    network, mirrored = randomised(), randomised(replace(TINY, time_scale=-1000.0))
    x_t = normal(2, 3, 8, 8)
    assert_close(network(x_t, 1 - T, TEXT), mirrored(x_t, T, TEXT), rtol=1e-3, atol=1e-3)


def test_under_autocast_to_bf16_the_picture_stays_close():
    network, x_t = randomised(WITH_SIZE), normal(2, 3, 8, 8)
    exact = network(x_t, T, TEXT)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = network(x_t, T, TEXT)
    assert (rounded - exact).norm() < 0.03 * exact.norm()


def test_a_picture_depends_on_its_own_row_alone():
    network, x_t = randomised(WITH_SIZE), normal(2, 3, 8, 8)
    alone = network(x_t[1:], T[1:], TEXT.rows(torch.tensor([1])))
    assert_close(network(x_t, T, TEXT)[1:], alone, rtol=1e-4, atol=1e-5)


def test_the_size_that_a_network_is_told_is_in_pixels_and_height_by_width():
    torch.manual_seed(0)
    size = SizeEmbedding(48, pixels_per_position=8)
    height, width, aspect = size(torch.empty(2, 3, 4, 16)).chunk(3)
    assert_close(height, size.side(torch.tensor([32.0]))[0])
    assert_close(width, size.side(torch.tensor([128.0]))[0])
    assert_close(aspect, size.aspect(torch.tensor([0.25]))[0])


def test_the_size_that_a_network_is_told_changes_the_picture():
    network, x_t = randomised(WITH_SIZE), normal(2, 3, 8, 8)
    assert network.size is not None
    as_told = network(x_t, T, TEXT)
    network.size.pixels_per_position = 16
    assert (network(x_t, T, TEXT) - as_told).abs().max() > 1e-3


@pytest.mark.parametrize(("height", "width"), [(8, 8), (4, 16), (12, 6)])
def test_each_patch_gets_the_position_of_its_row_and_column(height, width):
    network, given = randomised(), []
    network.blocks[0].register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    x_t = normal(2, 3, height, width)
    network(x_t, T, TEXT)
    positions = sincos_spanned(height // 2, width // 2, 4.0, 48, CPU)
    assert_close(given[0], network.patches(patchify(x_t, 2)) + positions)


@pytest.mark.parametrize("n", [3, 16])
def test_a_square_as_long_as_the_span_has_whole_numbers_as_positions(n):
    assert_close(sincos_spanned(n, n, float(n), 32, CPU), sincos_2d(n, n, 32, CPU))


def test_a_picture_twice_as_large_has_the_old_positions_in_every_other_place():
    small, large = sincos_spanned(3, 5, 4.0, 32, CPU), sincos_spanned(6, 10, 4.0, 32, CPU)
    assert_close(large.view(6, 10, 32)[::2, ::2], small.view(3, 5, 32))


def test_the_first_half_of_a_position_is_the_column_and_the_second_the_row():
    table = sincos_spanned(2, 4, 8.0, 8, CPU).view(2, 4, 8)
    row, column = torch.tensor(1 * 8.0 / 2), torch.tensor(3 * 8.0 / 4)
    slow = 10000.0**-0.5
    wanted = [torch.stack([(p * f).sin() for f in (1, slow)]) for p in (column, row)]
    assert_close(table[1, 3, [0, 1, 4, 5]], torch.cat(wanted))


def test_a_network_that_has_painted_can_still_be_trained():
    network, x_t = randomised(), normal(2, 3, 20, 28)  # a size that no other test here has
    with torch.inference_mode():
        network(x_t, T, TEXT)
    network(x_t, T, TEXT).sum().backward()
    assert network.patches.weight.grad is not None


def test_attention_to_another_sequence_is_a_mean_of_its_values_where_all_keys_are_the_same():
    torch.manual_seed(0)
    layer, x, context = CrossAttention(8, 2), normal(1, 3, 8), normal(1, 4, 8, seed=2)
    with torch.no_grad():
        layer.kv.weight[:8] = 0  # the keys
    real = torch.tensor([[[[True, True, False, True]]]])
    values = layer.kv(context)[:, [0, 1, 3], 8:]
    assert_close(layer(x, context, real), layer.proj(values.mean(dim=1, keepdim=True)).expand_as(x))


@pytest.mark.parametrize("sizes", [{"width": 48, "heads": 5}, {"width": 30, "heads": 2}])
def test_a_width_that_does_not_divide_is_refused(sizes):
    with pytest.raises(UserError, match=f"width {sizes['width']} must divide by heads"):
        replace(TINY, **sizes)


def test_a_width_that_does_not_divide_by_three_is_refused_where_the_size_is_told():
    with pytest.raises(UserError, match="width 32 must divide by 3 where pixels_per_position"):
        replace(WITH_SIZE, width=32)


@pytest.mark.parametrize(("height", "width"), [(8, 7), (7, 8)])
def test_a_patch_that_does_not_divide_the_picture_is_refused(height, width):
    with pytest.raises(UserError, match=f"patch 2 does not divide pictures of {height} x {width}"):
        TINY.build(shapes(height=height, width=width))


@pytest.mark.parametrize("given", [ConditionShapes(), ConditionShapes(labels=3)])
def test_a_world_without_text_is_refused(given):
    with pytest.raises(UserError, match="PixArt takes text"):
        TINY.build(shapes(given))
