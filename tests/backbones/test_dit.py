"""DiT: its sizes, its first output, and what its output depends on."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from flowbrush.backbones.dit import DiT, DiTConfig
from flowbrush.backbones.layers.embeddings import TimeEmbedding, patchify, sincos_2d, unpatchify
from flowbrush.condition import Condition
from flowbrush.errors import UserError
from flowbrush.shapes import ConditionShapes, Shapes

TINY = DiTConfig(depth=2, width=32, heads=2, patch=2)
LABELS = Condition(label=torch.tensor([0, 1]))
T = torch.tensor([0.2, 0.7])
CPU = torch.device("cpu")


def shapes(labels: int | None = 3, height: int = 8, width: int = 8) -> Shapes:
    condition = ConditionShapes(labels=labels)
    return Shapes(channels=3, height=height, width=width, condition=condition)


def pictures(height: int = 8, width: int = 8) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


def randomised(config: DiTConfig = TINY, labels: int | None = 3) -> DiT:
    """A network past its first, zero output."""
    network, generator = config.build(shapes(labels)), torch.Generator().manual_seed(0)
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.1, generator=generator)
    return network.eval()


@pytest.mark.parametrize(("height", "width"), [(8, 8), (4, 16), (12, 6), (2, 2)])
def test_the_output_has_the_shape_of_any_picture(height, width):
    x_t = pictures(height, width)
    assert randomised()(x_t, T, LABELS).shape == x_t.shape


def test_a_new_network_says_zero():
    assert TINY.build(shapes())(pictures(), T, LABELS).eq(0).all()


@pytest.mark.parametrize("labels", [None, 10])
@pytest.mark.parametrize("config", [TINY, DiTConfig(depth=3, width=48, heads=4, patch=4)])
def test_the_number_of_parameters_is_that_of_the_paper(config, labels):
    d, v = config.width, 3 * config.patch**2  # of a token, of a patch
    block = (3 * d * d + 3 * d) + (d * d + d) + (8 * d * d + 5 * d) + (6 * d * d + 6 * d)
    time = (256 * d + d) + (d * d + d)
    ends = (v * d + d) + (2 * d * d + 2 * d) + (d * v + v)
    classes = 0 if labels is None else (labels + 1) * d
    built = sum(p.numel() for p in config.build(shapes(labels)).parameters())
    assert built == config.depth * block + time + ends + classes


def test_the_defaults_are_the_33_million_parameters_of_dit_s_2():
    latents = Shapes(channels=4, height=32, width=32, condition=ConditionShapes(labels=1000))
    with torch.device("meta"):
        network = DiTConfig().build(latents)
    assert round(sum(p.numel() for p in network.parameters()) / 1e6) == 33


def test_every_weight_is_learned():
    network = randomised()
    network(pictures(), T, LABELS).square().sum().backward()
    assert [name for name, w in network.named_parameters() if not w.grad.any()] == []


def test_the_label_changes_the_picture():
    network, null = randomised(), Condition(label=torch.tensor([3, 3]))
    given, unguided = network(pictures(), T, LABELS), network(pictures(), T, null)
    assert (given - unguided).abs().max() > 1e-3


def test_the_time_changes_the_picture():
    network = randomised()
    early, late = network(pictures(), T, LABELS), network(pictures(), T + 0.2, LABELS)
    assert (early - late).abs().max() > 1e-3


def test_the_place_of_a_patch_changes_what_is_said_of_it():
    said = randomised()(torch.ones(2, 3, 8, 8), T, LABELS)
    assert (said[..., :4, :4] - said[..., 4:, 4:]).abs().max() > 1e-3


@pytest.mark.parametrize(("height", "width"), [(8, 8), (4, 16), (12, 6)])
def test_each_patch_gets_the_position_of_its_row_and_column(height, width):
    network, given = randomised(), []
    network.blocks[0].register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    x_t = pictures(height, width)
    network(x_t, T, LABELS)
    positions = sincos_2d(height // 2, width // 2, 32, CPU)
    assert_close(given[0], network.patches(patchify(x_t, 2)) + positions)


def test_a_model_without_labels_paints_without_a_condition():
    x_t = pictures()
    assert randomised(labels=None)(x_t, T, Condition()).shape == x_t.shape


def test_a_picture_depends_on_its_own_row_alone():
    network, x_t = randomised(), pictures()
    alone = network(x_t[1:], T[1:], LABELS.rows(torch.tensor([1])))
    assert_close(network(x_t, T, LABELS)[1:], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "sizes", [{"width": 32, "heads": 3}, {"width": 30, "heads": 2}, {"width": 6, "heads": 6}]
)
def test_a_width_that_does_not_divide_is_refused(sizes):
    with pytest.raises(UserError, match=f"width {sizes['width']} must divide"):
        DiTConfig(**sizes)


@pytest.mark.parametrize(("height", "width"), [(8, 7), (7, 8)])
def test_a_patch_that_does_not_divide_the_picture_is_refused(height, width):
    with pytest.raises(UserError, match=f"patch 2 does not divide pictures of {height} x {width}"):
        TINY.build(shapes(height=height, width=width))


@pytest.mark.parametrize("condition", [{"text_width": 8, "text_tokens": 2}, {"pooled_width": 8}])
def test_text_is_refused_where_it_is_not_asked_for(condition):
    text = Shapes(channels=3, height=8, width=8, condition=ConditionShapes(**condition))
    with pytest.raises(UserError, match=r"class labels, not text; use --backbone\.pooled-text"):
        TINY.build(text)


def pooled_text(given: ConditionShapes) -> DiT:
    """A network of pooled text past its first, zero output."""
    world = Shapes(channels=3, height=8, width=8, condition=given)
    network = replace(TINY, pooled_text=True).build(world)
    generator = torch.Generator().manual_seed(0)
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.1, generator=generator)
    return network.eval()


def test_a_pooled_text_joins_the_time():
    network = pooled_text(ConditionShapes(pooled_width=7))
    said = torch.randn(2, 7, generator=torch.Generator().manual_seed(2))
    wanted = network.time(T) + said @ network.pooled.weight.T + network.pooled.bias
    assert_close(network.vector(T, Condition(pooled=said)), wanted)
    network(pictures(), T, Condition(pooled=said)).square().sum().backward()
    assert [name for name, w in network.named_parameters() if not w.grad.any()] == []


def test_tokens_beside_a_pooled_text_are_not_read():
    network = pooled_text(ConditionShapes(text_width=6, text_tokens=4, pooled_width=7))
    pooled = Condition(pooled=torch.ones(2, 7))
    both = replace(pooled, text=torch.ones(2, 4, 6))
    assert torch.equal(network(pictures(), T, both), network(pictures(), T, pooled))


@pytest.mark.parametrize("condition", [{"labels": 3}, {"text_width": 8, "text_tokens": 2}, {}])
def test_a_pooled_text_that_the_encoder_does_not_give_is_refused(condition):
    with pytest.raises(UserError, match="pooled_text wants a text encoder with a pooled vector"):
        pooled_text(ConditionShapes(**condition))


def test_positions_are_the_columns_sines_and_cosines_and_then_the_rows():
    row, column = 2, 3
    wanted = []
    for place in (column, row):
        angles = [place, place / 100]  # 10,000 to the power of -i / 2
        wanted += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
    table = sincos_2d(3, 5, 8, CPU)
    assert_close(table[row * 5 + column], torch.tensor(wanted))


def test_positions_do_not_depend_on_the_size_of_the_picture():
    small = sincos_2d(2, 3, 16, CPU).view(2, 3, 16)
    assert torch.equal(sincos_2d(5, 7, 16, CPU).view(5, 7, 16)[:2, :3], small)


def test_a_patch_is_read_channel_by_channel_in_row_order():
    x = torch.arange(2 * 4 * 6.0).view(1, 2, 4, 6)
    patches = patchify(x, 2)
    assert patches.shape == (1, 6, 8)
    assert torch.equal(patches[0, 4], x[0, :, 2:4, 2:4].flatten())


def test_a_patch_is_written_with_its_channels_last_in_row_order():
    x = torch.arange(2 * 4 * 6.0).view(1, 2, 4, 6)
    channels_last = patchify(x, 2).view(1, 6, 2, 4).transpose(2, 3).reshape(1, 6, 8)
    assert torch.equal(unpatchify(channels_last, 2, rows=2), x)


def test_the_time_scale_multiplies_the_time():
    seconds, milliseconds = TimeEmbedding(8, 1.0), TimeEmbedding(8, 1000.0)
    milliseconds.load_state_dict(seconds.state_dict())
    assert_close(milliseconds(T), seconds(1000 * T))


def test_the_time_is_seen_as_cosines_and_sines_of_falling_frequencies():
    embedding = TimeEmbedding(8, 10.0)
    seen: list[torch.Tensor] = []
    embedding.mlp.register_forward_pre_hook(lambda mlp, given: seen.append(given[0]))
    embedding(torch.tensor([0.7]))
    angles = [7 * 10_000 ** (-i / 128) for i in range(128)]
    wanted = [math.cos(a) for a in angles] + [math.sin(a) for a in angles]
    assert_close(seen[0][0], torch.tensor(wanted), rtol=1e-5, atol=1e-5)
