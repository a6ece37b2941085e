"""Whether painted pictures are nearest to the real ones that their prompts name."""

import numpy as np
import pytest
import torch

from flowbrush.data.source import Example
from flowbrush.evaluate.right_first import (
    WHITE,
    Painted,
    ground_error,
    paint_all,
    right_first,
    sheet,
    summary,
)
from flowbrush.text_to_image import TextToImage


def filled(*values: int) -> torch.Tensor:
    """A picture of each grey."""
    return (
        torch.tensor(values, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2).contiguous()
    )


def painted(share: float, ground: float, count: int = 4) -> Painted:
    return Painted(["x"] * count, filled(*range(count)), share, ground)


# -- right first


def test_the_real_pictures_themselves_are_all_right():
    assert right_first(filled(0, 50, 100, 150), filled(0, 50, 100, 150)) == 1.0


def test_the_real_pictures_in_another_order_are_all_wrong():
    assert right_first(filled(50, 100, 150, 0), filled(0, 50, 100, 150)) == 0.0


def test_two_that_are_exchanged_among_four_are_a_half():
    assert right_first(filled(0, 50, 150, 100), filled(0, 50, 100, 150)) == 0.5


def test_the_nearest_counts_and_not_the_equal():
    assert right_first(filled(24, 26), filled(0, 50)) == 1.0
    assert right_first(filled(26, 24), filled(0, 50)) == 0.0


def test_a_tie_with_an_earlier_row_is_wrong():
    assert right_first(filled(9, 9), filled(9, 9)) == 0.5


def test_a_tie_with_an_earlier_row_is_wrong_among_many():
    assert right_first(filled(*[9] * 40), filled(*[9] * 40)) == 1 / 40


def test_one_pixel_far_off_is_farther_than_two_a_little_off():
    real = torch.zeros(2, 3, 1, 2, dtype=torch.uint8)
    real[0, :, 0, 0] = 30
    real[1] = 20  # 2 * 20 * 20 < 30 * 30, though 2 * 20 > 30
    own = torch.stack([real[0], torch.zeros_like(real[1])])
    assert right_first(own, real) == 1.0


# -- the ground


def test_a_white_ground_is_without_error():
    assert ground_error(filled(255), filled(255)) == 0.0


def test_the_error_of_the_ground_is_its_distance_from_white():
    assert ground_error(filled(250, 245), filled(255, 255)) == 7.5


def test_what_is_not_ground_in_the_real_picture_is_left_out():
    real, own = filled(255), filled(251)
    real[..., 0], own[..., 0] = 100, 0
    assert ground_error(own, real) == 4.0


@pytest.mark.parametrize(("grey", "error"), [(WHITE, 30.0), (WHITE - 1, 0.0)])
def test_nearly_white_is_ground_too(grey, error):
    real, own = filled(255), filled(255)
    real[..., 0], own[..., 0] = grey, 195
    assert ground_error(own, real) == error


def test_a_pixel_of_a_bright_colour_is_no_ground():
    real, own = filled(255), filled(255)
    real[:, 2, :, 0], own[..., 0] = 0, 0
    assert ground_error(own, real) == 0.0


# -- the report

SCORES = {"en": painted(0.75, 1.0), "ja": painted(0.5, 2.0), "sw": painted(0.25, 6.0)}


def test_a_summary_tells_seen_languages_from_unseen_ones():
    assert summary(SCORES, ("en", "ja")) == [
        "right first of 4: English 75.0%, Japanese 50.0%",
        "right first, in languages never trained on: sw 25.0%",
        "white ground: mean error 1.50 of 255",
    ]


def test_a_summary_of_seen_languages_has_no_line_of_unseen_ones():
    assert summary(SCORES, None) == [
        "right first of 4: English 75.0%, Japanese 50.0%, sw 25.0%",
        "white ground: mean error 3.00 of 255",
    ]


def test_a_summary_of_unseen_languages_alone_is_one_line():
    assert summary({"ja": painted(0.5, 2.0)}, ("en",)) == [
        "right first, in languages never trained on: Japanese 50.0%"
    ]


class Greys:
    """A Source: example i is the grey 20 i + 15, called "grey i" and "灰 i", beside a white
    pixel."""

    classes: tuple[str, ...] = ()
    attribution = ""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, i: int) -> Example:
        picture = np.full((2, 2, 3), 20 * i + 15, np.uint8)
        picture[0, 0] = 255
        return Example(picture, {"en": f"grey {i}", "ja": f"灰 {i}"})


class Copyist(TextToImage):
    """Copies what it is asked for in English, and grey 0 whatever the Japanese."""

    def __init__(self) -> None:
        pass

    def generate(self, prompts, sampling=None, seeds=None, batch=64):
        numbers = [int(p.split()[1]) if p.startswith("grey") else 0 for p in prompts]
        pictures = np.stack([Greys()[i].picture for i in numbers])
        return torch.from_numpy(pictures).permute(0, 3, 1, 2)


def test_every_kind_of_caption_is_painted_and_scored():
    found = paint_all(Copyist(), Greys(), limit=9)
    assert {kind: one.right_first for kind, one in found.items()} == {"en": 1.0, "ja": 0.2}
    assert {kind: one.ground_error for kind, one in found.items()} == {"en": 0.0, "ja": 0.0}
    assert found["ja"].captions == ["灰 0", "灰 1", "灰 2", "灰 3", "灰 4"]


def test_no_more_are_painted_than_the_limit():
    assert paint_all(Copyist(), Greys(), limit=3)["en"].captions == ["grey 0", "grey 1", "grey 2"]


def test_the_sheet_has_a_row_for_each_kind_of_caption():
    one, two = (sheet(dict(list(SCORES.items())[:n]), each=3) for n in (1, 2))
    assert one.width == two.width == 3 * 136 + 8
    assert two.height - one.height == one.height - 8
