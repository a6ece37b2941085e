"""Figures of what a text does."""

import warnings

import matplotlib
import pytest
import torch
from matplotlib.figure import Figure

from flowbrush.learn.text_drawing import (
    draw_attention,
    draw_confusion,
    draw_similarities,
    thing,
    write_any_language,
)


@pytest.fixture(autouse=True)
def any_language():
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("error")  # a letter that is missing is a warning
        write_any_language()
        yield


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_japanese_has_its_letters():
    figure = Figure()
    draw_similarities(figure.subplots(), torch.eye(2), ["a dog", "a cat"], ["犬", "猫"])
    figure.canvas.draw()
    assert texts(figure) == ["1.00", "0.00", "0.00", "1.00"]


def test_confusion_is_in_per_cent_of_what_was_asked_for():
    figure = Figure()
    counts = torch.tensor([[3, 1], [0, 0]])
    draw_confusion(figure.subplots(), counts, ["犬", "猫"], "Japanese")
    figure.canvas.draw()
    assert texts(figure) == ["75", "25", "0", "0"]


def test_attention_has_a_column_for_each_token_and_a_scale_in_each_column():
    figure, maps = Figure(), [torch.rand(3, 8, 8) / 2, torch.rand(3, 8, 8) / 2]
    maps[1][:, 0, 0] = torch.tensor([0.5, 0.75, 1.0])
    picture = torch.zeros(3, 32, 32, dtype=torch.uint8)
    draw_attention(figure, picture, maps, ["t = 0", "t = 1"], ["<s>", "▁", "▁リン"])
    figure.canvas.draw()
    titles = [axes.get_title() for axes in figure.axes[:4]]
    assert titles == ["", "<s>\nto 50%", "(space)\nto 75%", "リン\nto 100%"]
    heat = [axes.images[1].get_clim() for axes in figure.axes if len(axes.images) == 2]
    assert heat == 2 * [(0, 0.5), (0, 0.75), (0, 1.0)]


@pytest.mark.parametrize(
    ("caption", "name"),
    [
        ("a picture of an animal", "animal"),
        ("a picture of clothes", "clothes"),
        ("動物の絵", "動物"),
        ("a photo of a ship", "ship"),
        ("船の写真", "船"),
    ],
)
def test_a_caption_is_a_picture_of_something(caption, name):
    assert thing(caption) == name
