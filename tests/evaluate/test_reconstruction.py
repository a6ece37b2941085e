import math

import numpy as np
import pytest
import torch

from flowbrush.data import ShapesWorldConfig
from flowbrush.data.part import Listed
from flowbrush.data.source import Example, UnreadablePicture
from flowbrush.evaluate.reconstruction import mean_psnr, psnr, readable, reconstructed
from flowbrush.spaces.pixel import PixelSpace

SCENES = ShapesWorldConfig(scenes=50).build(8)


class Greys:
    """Ten grey pictures, of which two are broken."""

    classes, attribution = (), ""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, i: int) -> Example:
        if i in (2, 7):
            raise UnreadablePicture(str(i), "truncated")
        return Example(np.full((4, 4, 3), i, np.uint8), {"en": "grey"})


def test_an_error_of_one_tenth_of_the_range_is_20_db():
    real = torch.full((2, 3, 4, 4), 100, dtype=torch.uint8)
    off = real + torch.tensor([51, 255 // 10]).view(2, 1, 1, 1).byte()
    assert psnr(real, off)[0].item() == pytest.approx(20 * math.log10(5))
    assert psnr(real, off)[1].item() == pytest.approx(20, abs=0.2)


def test_pictures_come_from_all_over_a_source():
    found = list(readable(SCENES, most=10, together=4))
    assert [len(batch) for batch in found] == [4, 4, 2]
    assert torch.equal(found[1][1], torch.from_numpy(SCENES[25].picture.copy()).permute(2, 0, 1))


def test_broken_pictures_are_left_out():
    assert [int(one[0, 0, 0]) for batch in readable(Greys(), 10) for one in batch] == [
        0, 1, 3, 4, 5, 6, 8, 9,
    ]  # fmt: skip


def test_pixels_lose_nothing():
    real = next(readable(SCENES, 5))
    assert torch.equal(reconstructed(PixelSpace(), real), real)
    assert mean_psnr(PixelSpace(), SCENES, 5) == math.inf


def test_there_is_no_mean_over_nothing():
    assert math.isnan(mean_psnr(PixelSpace(), Listed(SCENES, ()), 5))
