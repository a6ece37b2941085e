"""Bytes to the unit range and back."""

import pytest
import torch

from flowbrush.errors import NotFinite
from flowbrush.spaces.pixel import PixelConfig

SPACE = PixelConfig().build(torch.device("cpu"))
KEYS = (0,)  # of what is drawn by chance: nothing here
BYTES = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16).contiguous()


def filled(value: float) -> torch.Tensor:
    return torch.full((1, 3, 1, 1), value)


def test_every_byte_comes_back():
    assert torch.equal(SPACE.decode(SPACE.normalize(SPACE.compress(BYTES), KEYS)), BYTES)


def test_black_is_minus_one_and_white_is_one():
    x = SPACE.normalize(BYTES, KEYS)
    assert (float(x.min()), float(x.max())) == (-1.0, 1.0)


def test_bytes_are_evenly_spaced():
    steps = SPACE.normalize(BYTES, KEYS)[0, 0].flatten().diff()
    assert torch.allclose(steps, torch.full((255,), 2 / 255), atol=1e-6)


def test_what_is_stored_are_the_bytes_themselves():
    assert torch.equal(SPACE.compress(BYTES), BYTES)


@pytest.mark.parametrize(("value", "byte"), [(-1.01, 0), (-50.0, 0), (1.01, 255), (50.0, 255)])
def test_decode_clamps(value, byte):
    assert SPACE.decode(filled(value)).unique().tolist() == [byte]


@pytest.mark.parametrize(("offset", "byte"), [(-0.4, 100), (0.4, 100), (0.6, 101), (-0.6, 99)])
def test_decode_takes_the_nearest_byte(offset, byte):
    assert SPACE.decode(filled((100 + offset) / 127.5 - 1)).unique().tolist() == [byte]


def test_decode_gives_bytes_for_any_precision():
    assert SPACE.decode(filled(1.0).bfloat16()).dtype == torch.uint8


def test_the_shape_is_that_of_the_picture():
    assert SPACE.shape(32) == (3, 32, 32)


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_is_no_picture(number: float) -> None:
    x = torch.zeros(2, 3, 4, 4)
    x[1, 0, 0, 0] = number
    with pytest.raises(NotFinite, match="lower the guidance scale"):
        SPACE.decode(x)
