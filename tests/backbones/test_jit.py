"""JiT: its sizes, its first output, what its output depends on, and its rotary positions."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from flowbrush.backbones.jit import JiT, JiTConfig
from flowbrush.backbones.layers.attention import RMSNorm, SelfAttention, rotary_2d, rotate
from flowbrush.backbones.layers.embeddings import patchify, sincos_2d
from flowbrush.condition import Condition
from flowbrush.errors import UserError
from flowbrush.shapes import ConditionShapes, Shapes

TINY = JiTConfig(depth=3, width=32, heads=2, patch=4, bottleneck=8, context_start=1, label_tokens=5)
WITH_LABELS = ConditionShapes(labels=3)
WITH_TEXT = ConditionShapes(text_width=6, text_tokens=4, pooled_width=7)
POOLED = replace(TINY, text="pooled")
T = torch.tensor([0.2, 0.7])
LABELS = Condition(label=torch.tensor([0, 1]))
CPU = torch.device("cpu")


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


TEXT = Condition(text=normal(2, 4, 6), pooled=normal(2, 7))


def shapes(condition: ConditionShapes, height: int = 8, width: int = 8) -> Shapes:
    return Shapes(channels=3, height=height, width=width, condition=condition)


all_kinds = pytest.mark.parametrize(
    ("given", "condition", "config"),
    [(WITH_LABELS, LABELS, TINY), (WITH_TEXT, TEXT, TINY), (WITH_TEXT, TEXT, POOLED)],
    ids=["labels", "text", "pooled"],
)


def randomised(condition: ConditionShapes = WITH_LABELS, config: JiTConfig = TINY) -> JiT:
    """A network past its first, zero output."""
    network, generator = config.build(shapes(condition)), torch.Generator().manual_seed(0)
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.3, generator=generator)
    return network.eval()


def tokens_of_blocks(network: JiT, condition: Condition) -> list[int]:
    """How many tokens each block is given."""
    seen: list[int] = []
    for block in network.blocks:
        block.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[1]))
    network(normal(2, 3, 8, 8), T, condition)
    return seen


@pytest.mark.parametrize(("height", "width"), [(8, 8), (4, 16), (12, 8), (4, 4)])
def test_the_output_has_the_shape_of_any_picture(height, width):
    x_t = normal(2, 3, height, width)
    assert randomised()(x_t, T, LABELS).shape == x_t.shape


@all_kinds
def test_a_new_network_says_zero(given, condition, config):
    assert config.build(shapes(given))(normal(2, 3, 8, 8), T, condition).eq(0).all()


def test_the_defaults_have_the_published_number_of_parameters_of_jit_b_16():
    imagenet = shapes(ConditionShapes(labels=1000), height=256, width=256)
    with torch.device("meta"):
        network = JiTConfig().build(imagenet)
    fixed_positions = 256 * 768  # counted by the paper's code, computed by ours
    assert sum(p.numel() for p in network.parameters()) == 131_320_320 - fixed_positions


@all_kinds
def test_every_weight_is_learned(given, condition, config):
    network = randomised(given, config)
    network(normal(2, 3, 8, 8), T, condition).square().sum().backward()
    assert [name for name, w in network.named_parameters() if not w.grad.any()] == []


@pytest.mark.parametrize(
    ("given", "one", "other"),
    [
        (WITH_LABELS, LABELS, Condition(label=torch.tensor([3, 3]))),
        (WITH_TEXT, TEXT, replace(TEXT, text=normal(2, 4, 6, seed=2))),
        (WITH_TEXT, TEXT, replace(TEXT, pooled=normal(2, 7, seed=2))),
    ],
    ids=["label", "text", "pooled"],
)
def test_the_condition_changes_the_picture(given, one, other):
    network, x_t = randomised(given), normal(2, 3, 8, 8)
    assert (network(x_t, T, one) - network(x_t, T, other)).abs().max() > 1e-3


def test_the_label_acts_also_before_its_tokens_join():
    network, seen = randomised(), []
    network.blocks[0].register_forward_hook(lambda _, inputs, output: seen.append(output))
    for label in (0, 1):
        network(normal(2, 3, 8, 8), T, Condition(label=torch.tensor([label] * 2)))
    assert (seen[0] - seen[1]).abs().max() > 1e-3


def test_a_pooled_text_takes_the_place_of_the_label():
    pooled, labelled = randomised(WITH_TEXT, POOLED), randomised()
    weights = pooled.state_dict()
    weights["label.weight"] = torch.zeros(4, 32)
    weights["label.weight"][:2] = pooled.pooled(TEXT.pooled).detach()
    labelled.load_state_dict({n: w for n, w in weights.items() if not n.startswith("pooled.")})
    x_t = normal(2, 3, 8, 8)
    assert_close(pooled(x_t, T, TEXT), labelled(x_t, T, LABELS))


def test_a_pooled_text_leaves_the_tokens_beside_it_unread():
    network, x_t = randomised(WITH_TEXT, POOLED), normal(2, 3, 8, 8)
    masked = replace(TEXT, text_mask=torch.tensor([[True, True, False, False]] * 2))
    assert torch.equal(network(x_t, T, TEXT), network(x_t, T, masked))
    assert torch.equal(network(x_t, T, TEXT), network(x_t, T, Condition(pooled=TEXT.pooled)))


def test_a_pooled_text_becomes_as_many_tokens_in_context_as_a_label():
    assert tokens_of_blocks(randomised(WITH_TEXT, POOLED), TEXT) == [4, 4 + 5, 4 + 5]


@pytest.mark.parametrize(
    "given",
    [
        WITH_LABELS,
        ConditionShapes(text_width=6, text_tokens=4),
        replace(WITH_LABELS, pooled_width=7),
    ],
    ids=["labels", "tokens", "labels and pooled"],
)
def test_a_pooled_text_that_the_encoder_does_not_give_is_refused(given):
    with pytest.raises(UserError, match="'pooled' wants a text encoder with a pooled vector"):
        POOLED.build(shapes(given))


def test_a_text_of_no_stated_number_of_tokens_is_refused():
    with pytest.raises(UserError, match="text of a stated number of tokens"):
        TINY.build(shapes(ConditionShapes(text_width=6)))


@pytest.mark.parametrize(("height", "width"), [(8, 8), (4, 16), (12, 8)])
def test_each_patch_gets_the_position_of_its_row_and_column(height, width):
    network, given = randomised(), []
    network.blocks[0].register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    x_t = normal(2, 3, height, width)
    network(x_t, T, LABELS)
    positions = sincos_2d(height // 4, width // 4, 32, CPU)
    assert_close(given[0], network.patches(network.squeeze(patchify(x_t, 4))) + positions)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (4, 16), (12, 8)])
@pytest.mark.parametrize(("block", "in_context"), [(0, 0), (1, 5)])
def test_each_patch_is_turned_by_its_row_and_column(block, in_context, height, width):
    network, given = randomised(), []
    network.blocks[block].register_forward_pre_hook(lambda _, inputs: given.append(inputs[2]))
    network(normal(2, 3, height, width), T, LABELS)
    wanted = rotary_2d(height // 4, width // 4, 16, in_context, CPU)
    assert torch.equal(given[0].sin, wanted.sin)


def test_the_order_of_the_words_changes_the_picture():
    network, x_t = randomised(WITH_TEXT), normal(2, 3, 8, 8)
    assert TEXT.text is not None
    backwards = replace(TEXT, text=TEXT.text.flip(1))
    assert (network(x_t, T, TEXT) - network(x_t, T, backwards)).abs().max() > 1e-3


def test_the_time_changes_the_picture():
    network, x_t = randomised(), normal(2, 3, 8, 8)
    assert (network(x_t, T, LABELS) - network(x_t, T + 0.2, LABELS)).abs().max() > 1e-3


def test_a_picture_depends_on_its_own_row_alone():
    network, x_t = randomised(), normal(2, 3, 8, 8)
    alone = network(x_t[1:], T[1:], LABELS.rows(torch.tensor([1])))
    assert_close(network(x_t, T, LABELS)[1:], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tokens_per_text", [1, 3])
def test_masked_tokens_do_not_change_the_picture(tokens_per_text):
    network = randomised(WITH_TEXT, replace(TINY, tokens_per_text=tokens_per_text))
    x_t, text = normal(2, 3, 8, 8), normal(2, 2, 6)
    garbage = torch.cat([text, 100 * normal(2, 2, 6, seed=2)], dim=1)
    real = torch.tensor([[True, True, False, False]] * 2)
    short = network(x_t, T, replace(TEXT, text=text))
    padded = network(x_t, T, replace(TEXT, text=garbage, text_mask=real))
    assert_close(padded, short, rtol=1e-4, atol=1e-5)


def test_a_mask_without_gaps_is_no_mask():
    network, x_t = randomised(WITH_TEXT), normal(2, 3, 8, 8)
    masked = replace(TEXT, text_mask=torch.ones(2, 4, dtype=torch.bool))
    assert_close(network(x_t, T, masked), network(x_t, T, TEXT), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("start", [0, 1, 2])
def test_the_tokens_in_context_join_before_the_block_of_context_start(start):
    network = randomised(config=replace(TINY, context_start=start))
    assert tokens_of_blocks(network, LABELS) == [4] * start + [4 + 5] * (3 - start)


def test_each_text_token_becomes_as_many_tokens_in_context_as_are_asked_for():
    network = randomised(WITH_TEXT, replace(TINY, tokens_per_text=3))
    assert tokens_of_blocks(network, TEXT) == [4, 4 + 4 * 3, 4 + 4 * 3]


def test_a_model_without_a_condition_has_no_tokens_in_context():
    assert tokens_of_blocks(randomised(ConditionShapes()), Condition()) == [4, 4, 4]


def test_a_network_that_has_painted_can_still_be_trained():
    network, x_t = randomised(), normal(2, 3, 20, 28)  # a size that no other test here has
    with torch.inference_mode():
        network(x_t, T, LABELS)
    network(x_t, T, LABELS).sum().backward()
    assert network.squeeze.weight.grad is not None


@pytest.mark.parametrize("sizes", [{"width": 32, "heads": 3}, {"width": 36, "heads": 6}])
def test_a_width_that_does_not_divide_is_refused(sizes):
    with pytest.raises(UserError, match=f"width {sizes['width']} / heads {sizes['heads']}"):
        replace(TINY, **sizes)


@pytest.mark.parametrize("start", [-1, 3])
def test_a_context_that_starts_at_no_block_is_refused(start):
    with pytest.raises(UserError, match=f"context_start {start} must be in 0..depth-1"):
        replace(TINY, context_start=start)


@pytest.mark.parametrize(("height", "width"), [(8, 6), (6, 8)])
def test_a_patch_that_does_not_divide_the_picture_is_refused(height, width):
    with pytest.raises(UserError, match=f"patch 4 does not divide pictures of {height} x {width}"):
        TINY.build(shapes(WITH_LABELS, height, width))


def scores(rows: int, columns: int) -> Tensor:
    """How one query at each place attends to one key at each place: (row, column, row, column)."""
    rotary = rotary_2d(rows, columns, 16, 0, CPU)
    n = rows * columns
    q, k = (normal(1, 1, 1, 16, seed=s).expand(1, 1, n, 16).contiguous() for s in (1, 2))
    attention = rotate(q, rotary)[0, 0] @ rotate(k, rotary)[0, 0].T
    return attention.view(rows, columns, rows, columns)


def test_attention_is_the_same_where_both_places_are_moved_by_a_row():
    attention = scores(5, 6)
    assert_close(attention[1:, :, 1:], attention[:-1, :, :-1], rtol=1e-4, atol=1e-5)


def test_attention_is_the_same_where_both_places_are_moved_by_a_column():
    attention = scores(5, 6)
    assert_close(attention[:, 1:, :, 1:], attention[:, :-1, :, :-1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("axis", [2, 3])
def test_attention_changes_where_one_place_is_moved(axis):
    attention = scores(5, 6)
    assert attention.diff(dim=axis).abs().min(dim=axis).values.max() > 1e-2


def test_turning_preserves_the_norm():
    x = normal(2, 3, 30, 16)
    assert_close(rotate(x, rotary_2d(5, 6, 16, 0, CPU)).norm(dim=-1), x.norm(dim=-1))


def test_leading_tokens_in_context_are_not_turned():
    x = normal(2, 3, 4 + 30, 16)
    assert torch.equal(rotate(x, rotary_2d(5, 6, 16, 4, CPU))[:, :, :4], x[:, :, :4])


def test_tokens_of_the_picture_are_turned_the_same_behind_tokens_in_context():
    behind, alone = rotary_2d(5, 6, 16, 4, CPU), rotary_2d(5, 6, 16, 0, CPU)
    assert torch.equal(behind.cos[4:], alone.cos)
    assert torch.equal(behind.sin[4:], alone.sin)


def test_attention_with_rotary_positions_knows_the_places_of_the_tokens():
    torch.manual_seed(0)
    layer, rotary, x = SelfAttention(32, 2), rotary_2d(2, 3, 16, 0, CPU), normal(1, 6, 32)
    backwards = layer(x.flip(1), rotary).flip(1)
    assert (layer(x, rotary) - backwards).abs().max() > 1e-3


def test_attention_without_rotary_positions_knows_no_places():
    torch.manual_seed(0)
    layer, x = SelfAttention(32, 2), normal(1, 6, 32)
    assert_close(layer(x), layer(x.flip(1)).flip(1), rtol=1e-4, atol=1e-6)


def test_the_first_half_of_the_pairs_turns_with_the_row_and_the_second_with_the_column():
    rotary = rotary_2d(3, 4, 8, 0, CPU)
    row, column = 2, 3
    angles = torch.tensor([row, row / 100, column, column / 100])
    assert_close(rotary.sin[row * 4 + column], angles.sin())


def test_a_channel_turns_together_with_the_one_half_a_head_further():
    x = torch.zeros(1, 1, 2, 8)
    x[..., 0] = 1
    turned = rotate(x, rotary_2d(2, 1, 8, 0, CPU))[0, 0, 1]  # in row 1: by one radian
    one = torch.ones(())
    assert_close(turned[[0, 4]], torch.stack([one.cos(), one.sin()]))
    assert turned[[1, 2, 3, 5, 6, 7]].eq(0).all()


def test_the_norm_of_bf16_numbers_is_computed_in_fp32():
    x = (1 + normal(4, 64)).bfloat16()
    exact = x.double() / x.double().square().mean(dim=-1, keepdim=True).sqrt()
    assert torch.equal(RMSNorm(64)(x), exact.bfloat16())
