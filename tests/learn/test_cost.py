"""What a picture costs agrees with the closed form, and is drawn."""

import math
from dataclasses import replace

import matplotlib.pyplot as plt
import pytest
from tiny import tiny

from flowbrush.backbones import JiTConfig
from flowbrush.errors import UserError
from flowbrush.learn.cost import Cost, attention_flops, cost, draw_costs
from flowbrush.shapes import ConditionShapes

TEXT = ConditionShapes(text_width=512, text_tokens=1)


def test_attention_is_the_part_that_grows_with_the_square() -> None:
    one, two, four = (cost(tiny(), 3, side, 8, TEXT) for side in (8, 16, 32))
    context = 2  # tokens of the text
    assert [c.tokens for c in (one, two, four)] == [1, 4, 16]
    # All but attention is a straight line over the tokens.
    rest = [c.flops - c.attention for c in (one, two, four)]
    assert (rest[2] - rest[1]) / 12 == pytest.approx((rest[1] - rest[0]) / 3)
    # Text joins before the second of two blocks: the formula counts it in both.
    depth, width = 2, 16
    assert two.attention == 3 * depth * 4 * (4 + context) ** 2 * width


def test_attention_takes_4_n_squared_d_in_each_block() -> None:
    backbone = tiny().backbone
    assert isinstance(backbone, JiTConfig)
    assert attention_flops(backbone, 10) == 2 * 4 * 100 * 16


def test_memory_grows_with_the_tokens_and_a_step_takes_time() -> None:
    small, large = cost(tiny(), 3, 16, 8, TEXT), cost(tiny(), 3, 64, 8, TEXT)
    assert 0 < small.memory < large.memory
    assert small.seconds > 0


def test_too_many_tokens_are_counted_but_not_timed() -> None:
    many = cost(tiny(), 3, 64, 1, ConditionShapes(text_width=512, text_tokens=1))
    assert math.isnan(many.seconds)
    assert many.flops > 0


def test_a_patch_that_does_not_fit_is_told() -> None:
    with pytest.raises(UserError, match="patch 5 does not divide"):
        cost(tiny(), 3, 16, 5, TEXT)


def test_every_way_is_a_line_in_every_panel() -> None:
    step = Cost(size=32, tokens=16, flops=10**9, attention=10**8, memory=10**6, seconds=0.1)
    steps = [step, replace(step, size=64, flops=4 * 10**9, seconds=math.nan)]
    figure, axes = plt.subplots(1, 3)
    draw_costs(axes, {"pixels": steps, "latents": steps})
    figure.canvas.draw()
    assert [len(ax.lines) for ax in axes] == [4, 2, 2]  # with attention's part
    plt.close(figure)
