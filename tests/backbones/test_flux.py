"""Flux: its sizes, its first output, what its output depends on, its masks and its positions."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from flowbrush import config_io
from flowbrush.backbones.flux import Flux, FluxConfig
from flowbrush.backbones.layers.attention import rotary_2d, rotary_axes, rotate
from flowbrush.backbones.layers.embeddings import TimeEmbedding
from flowbrush.condition import Condition
from flowbrush.errors import UserError
from flowbrush.experiment import ExperimentConfig
from flowbrush.shapes import ConditionShapes, Shapes

TINY = FluxConfig(double_depth=2, single_depth=2, width=32, heads=2, axes=(4, 4, 8))
TOLD, MASKED = replace(TINY, guidance=3.5), replace(TINY, mask_text=True)
WITH_TEXT = ConditionShapes(text_width=6, pooled_width=7)
T = torch.tensor([0.2, 0.7])
CPU = torch.device("cpu")

all_kinds = pytest.mark.parametrize("config", [TINY, TOLD, MASKED], ids=["", "guidance", "mask"])


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


TEXT = Condition(text=normal(2, 4, 6), pooled=normal(2, 7))
SHORT = torch.tensor([[True, True, False, False], [True, True, True, True]])


def shapes(condition: ConditionShapes = WITH_TEXT, height: int = 8, width: int = 8) -> Shapes:
    return Shapes(channels=3, height=height, width=width, condition=condition)


def randomised(config: FluxConfig = TINY, given: ConditionShapes = WITH_TEXT) -> Flux:
    """A network past its first, zero output."""
    network, generator = config.build(shapes(given)), torch.Generator().manual_seed(0)
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.2, generator=generator)
    return network.eval()


@all_kinds
@pytest.mark.parametrize(("height", "width"), [(8, 8), (4, 16), (12, 8), (2, 2)])
def test_the_output_has_the_shape_of_any_picture(config, height, width):
    x_t = normal(2, 3, height, width)
    assert randomised(config)(x_t, T, TEXT).shape == x_t.shape


@all_kinds
def test_a_new_network_says_zero(config):
    assert config.build(shapes())(normal(2, 3, 8, 8), T, TEXT).eq(0).all()


@pytest.mark.parametrize(
    ("config", "published"),
    [(FluxConfig(guidance=3.5), 11_901_408_320), (FluxConfig(), 11_891_178_560)],
    ids=["dev", "schnell"],
)
def test_the_number_of_parameters_is_the_published_one(config, published):
    condition = ConditionShapes(text_width=4096, pooled_width=768)
    with torch.device("meta"):
        network = config.build(Shapes(channels=16, height=128, width=128, condition=condition))
    assert sum(p.numel() for p in network.parameters()) == published


@all_kinds
def test_every_weight_is_learned(config):
    network = randomised(config)
    network(normal(2, 3, 8, 8), T, replace(TEXT, text_mask=SHORT)).square().sum().backward()
    assert [n for n, w in network.named_parameters() if w.grad is None or not w.grad.any()] == []


@pytest.mark.parametrize(
    "other",
    [replace(TEXT, text=normal(2, 4, 6, seed=2)), replace(TEXT, pooled=normal(2, 7, seed=2))],
    ids=["text", "pooled"],
)
def test_the_condition_changes_the_picture(other):
    network, x_t = randomised(), normal(2, 3, 8, 8)
    assert (network(x_t, T, TEXT) - network(x_t, T, other)).abs().max() > 1e-3


def test_the_time_changes_the_picture():
    network, x_t = randomised(), normal(2, 3, 8, 8)
    assert (network(x_t, T, TEXT) - network(x_t, T + 0.2, TEXT)).abs().max() > 1e-3


def test_the_guidance_that_it_is_told_changes_the_picture():
    x_t = normal(2, 3, 8, 8)
    one, other = (randomised(replace(TINY, guidance=told))(x_t, T, TEXT) for told in (3.5, 4.0))
    assert (one - other).abs().max() > 1e-3


def test_the_guidance_is_told_a_thousandfold():
    network, seen = randomised(TOLD), []
    assert network.guidance is not None
    network.guidance.register_forward_hook(lambda _, given, output: seen.append(output))
    network(normal(2, 3, 8, 8), T, TEXT)
    plain = TimeEmbedding(32, 1.0)
    plain.load_state_dict(network.guidance.state_dict())
    assert_close(seen[0], plain(torch.tensor([3500.0, 3500.0])))


def test_each_part_of_the_picture_sees_the_others():
    network, x_t = randomised(), normal(2, 3, 8, 8)
    elsewhere = x_t.clone()
    elsewhere[:, :, 6:, 6:] += 1
    change = (network(x_t, T, TEXT) - network(elsewhere, T, TEXT))[:, :, :2, :2]
    assert change.abs().max() > 1e-3


def test_a_picture_depends_on_its_own_row_alone():
    network, x_t = randomised(), normal(2, 3, 8, 8)
    alone = network(x_t[1:], T[1:], TEXT.rows(torch.tensor([1])))
    assert_close(network(x_t, T, TEXT)[1:], alone, rtol=1e-4, atol=1e-5)


def test_text_of_a_masked_network_may_be_padded_with_anything():
    network, x_t = randomised(MASKED), normal(2, 3, 8, 8)
    assert TEXT.text is not None
    garbage = torch.cat([TEXT.text[:, :2], 100 * normal(2, 2, 6, seed=2)], dim=1)
    real = torch.tensor([[True, True, False, False]] * 2)
    short = network(x_t, T, replace(TEXT, text=TEXT.text[:, :2]))
    padded = network(x_t, T, replace(TEXT, text=garbage, text_mask=real))
    assert_close(padded, short, rtol=1e-4, atol=1e-5)


def test_a_mask_without_gaps_is_no_mask():
    network, x_t = randomised(MASKED), normal(2, 3, 8, 8)
    whole = replace(TEXT, text_mask=torch.ones(2, 4, dtype=torch.bool))
    assert_close(network(x_t, T, whole), network(x_t, T, TEXT), rtol=1e-4, atol=1e-5)


def test_a_masked_network_has_the_weights_of_one_without():
    assert randomised(MASKED).state_dict().keys() == randomised().state_dict().keys()


def test_without_masks_padding_is_attended_to():
    network, x_t = randomised(), normal(2, 3, 8, 8)
    assert torch.equal(network(x_t, T, TEXT), network(x_t, T, replace(TEXT, text_mask=SHORT)))


def test_without_masks_a_picture_does_not_depend_on_the_longest_caption_beside_it():
    network, x_t = randomised(given=replace(WITH_TEXT, text_tokens=5)), normal(2, 3, 8, 8)
    alone = Condition(text=normal(1, 2, 6), pooled=normal(1, 7))
    beside = alone.followed_by(TEXT.rows(torch.tensor([1])))
    together = network(x_t, T, beside)[:1]
    assert_close(together, network(x_t[:1], T[:1], alone), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (4, 16), (12, 8)])
@pytest.mark.parametrize("blocks", ["doubles", "singles"])
def test_each_patch_is_turned_by_its_row_and_column_and_text_is_not(blocks, height, width):
    network, given = randomised(), []
    block = getattr(network, blocks)[0]
    block.register_forward_pre_hook(lambda _, inputs: given.append(inputs[2]))
    network(normal(2, 3, height, width), T, TEXT)
    wanted = rotary_axes(height // 2, width // 2, (4, 4, 8), 4, CPU)
    assert torch.equal(given[0].sin, wanted.sin)
    assert torch.equal(given[0].cos, wanted.cos)


def test_a_network_that_has_painted_can_still_be_trained():
    network, x_t = randomised(), normal(2, 3, 20, 28)  # a size that no other test here has
    with torch.inference_mode():
        network(x_t, T, TEXT)
    network(x_t, T, TEXT).sum().backward()
    assert network.patches.weight.grad is not None


def test_the_first_axis_stays_the_second_turns_with_the_row_the_third_with_the_column():
    rotary = rotary_axes(3, 4, (2, 4, 6), 0, CPU)
    row, column = 2, 3
    angles = [0, row, row / 100, column, column / 10_000 ** (1 / 3), column / 10_000 ** (2 / 3)]
    assert_close(rotary.sin[row * 4 + column], torch.tensor(angles).sin())


def test_tokens_before_the_picture_are_not_turned():
    x = normal(2, 3, 5 + 12, 12)
    assert torch.equal(rotate(x, rotary_axes(3, 4, (2, 4, 6), 5, CPU))[:, :, :5], x[:, :, :5])


def test_two_equal_axes_turn_as_in_two_dimensions():
    assert torch.equal(rotary_axes(3, 4, (0, 8, 8), 2, CPU).sin, rotary_2d(3, 4, 16, 2, CPU).sin)


def test_a_config_comes_back_from_json():
    config = ExperimentConfig(backbone=TOLD)
    assert config_io.from_json(ExperimentConfig, config_io.to_json(config), "config") == config


@pytest.mark.parametrize(
    ("sizes", "complaint"),
    [
        ({"heads": 3}, r"width 32 must divide by heads \(3\)"),
        ({"axes": (4, 4, 4)}, r"axes \(4, 4, 4\) must be even and add up to width / heads = 16"),
        ({"axes": (3, 5, 8)}, r"axes \(3, 5, 8\) must be even and add up to width / heads = 16"),
        ({"axes": (-4, 8, 12)}, r"axes \(-4, 8, 12\) must be even"),
        ({"single_depth": 0}, "single_depth 1 or more"),
        ({"double_depth": -1}, "double_depth must be 0 or more"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_in_one_line(sizes, complaint):
    with pytest.raises(UserError, match=f"^backbone: .*{complaint}.*$"):
        replace(TINY, **sizes)


@pytest.mark.parametrize(
    "given",
    [
        ConditionShapes(pooled_width=7),
        ConditionShapes(text_width=6),
        ConditionShapes(labels=3),
        replace(WITH_TEXT, labels=3),
    ],
    ids=["no text", "no pooled", "labels", "labels beside text"],
)
def test_a_condition_that_is_not_text_with_pooled_text_is_refused(given):
    with pytest.raises(UserError, match=r"^backbone: Flux takes text together with a pooled text"):
        TINY.build(shapes(given))


@pytest.mark.parametrize(("height", "width"), [(8, 7), (7, 8)])
def test_a_patch_that_does_not_divide_the_picture_is_refused(height, width):
    with pytest.raises(UserError, match=f"patch 2 does not divide pictures of {height} x {width}"):
        TINY.build(shapes(height=height, width=width))
