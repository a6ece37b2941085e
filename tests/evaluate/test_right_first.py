"""Whether painted pictures are nearest to the real ones that their prompts name."""

import pytest
import torch

from flowbrush.evaluate.right_first import WHITE, ground_errors, is_right_first


def filled(*values: int) -> torch.Tensor:
    """A picture of each grey."""
    return (
        torch.tensor(values, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2).contiguous()
    )


def right_first(painted: torch.Tensor, real: torch.Tensor) -> float:
    """The share of rows that are right."""
    return float(is_right_first(painted, real).double().mean())


def ground_error(painted: torch.Tensor, real: torch.Tensor) -> float:
    """The mean of the pictures' errors."""
    return float(ground_errors(painted, real).mean())


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


def test_a_picture_without_ground_has_no_error():
    assert ground_errors(filled(3, 4), filled(0, 255)).isnan().tolist() == [True, False]


def test_rows_may_begin_anywhere_among_the_real_ones():
    real = filled(0, 50, 100, 150)
    assert is_right_first(real[2:], real, first=2).tolist() == [True, True]
    assert is_right_first(real[2:], real, first=1).tolist() == [False, False]
