"""Sheets of captioned pictures, and pictures written whole or not at all."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from flowbrush.contact_sheet import contact_sheet, save, to_image

CELL, GAP, LINE = 128, 8, 18
TEXT = LINE + 6  # the room below a picture where every caption is one line
LONG = "a fox that jumps over the lazy dog and over the old fence and runs into the dark green wood"


def noise(count: int, side: int = 4) -> torch.Tensor:
    values = np.random.default_rng(0).integers(0, 256, (count, 3, side, side), dtype=np.uint8)
    return torch.from_numpy(values)


def enlarged(picture: torch.Tensor, times: int) -> np.ndarray:
    return picture.permute(1, 2, 0).numpy().repeat(times, 0).repeat(times, 1)


def cell(sheet: Image.Image, row: int, column: int, side: int = CELL) -> np.ndarray:
    x, y = GAP + column * (side + GAP), GAP + row * (side + GAP + TEXT)
    return np.asarray(sheet)[y : y + side, x : x + side]


def below(sheet: Image.Image) -> np.ndarray:
    """What is under the pictures of a sheet of one row."""
    return np.asarray(sheet)[GAP + CELL :]


@pytest.fixture
def lines(monkeypatch) -> list[str]:
    """What is written on a sheet, line by line."""
    written: list[str] = []
    text = ImageDraw.ImageDraw.text

    def spy(self, xy, line, *rest, **options):
        written.append(line)
        return text(self, xy, line, *rest, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", spy)
    return written


# -- the sheet


@pytest.mark.parametrize(
    ("count", "columns", "across", "down"), [(1, 8, 1, 1), (3, 8, 3, 1), (8, 4, 4, 2), (5, 2, 2, 3)]
)
def test_a_sheet_has_the_size_of_its_rows_and_columns(count, columns, across, down):
    sheet = contact_sheet(noise(count), ["x"] * count, columns)
    assert sheet.size == (across * (CELL + GAP) + GAP, down * (CELL + GAP + TEXT) + GAP)


@pytest.mark.parametrize(("caption", "lines"), [("狐", 1), ("狐" * 15, 2), ("狐" * 25, 3)])
def test_a_sheet_has_room_for_its_longest_caption(caption, lines):
    sheet = contact_sheet(noise(2), ["x", caption], columns=1)
    assert sheet.height == 2 * (CELL + GAP + TEXT + (lines - 1) * LINE) + GAP


def test_small_pictures_are_enlarged_without_smoothing():
    pictures = noise(3)
    sheet = contact_sheet(pictures, ["a", "b", "c"], columns=2)
    for i, (row, column) in enumerate([(0, 0), (0, 1), (1, 0)]):
        assert (cell(sheet, row, column) == enlarged(pictures[i], 32)).all()


def test_a_picture_of_the_size_of_a_cell_is_kept():
    pictures = noise(1, 16)
    sheet = contact_sheet(pictures, [""], cell=16)
    assert (cell(sheet, 0, 0, 16) == enlarged(pictures[0], 1)).all()


def test_large_pictures_are_reduced_with_smoothing():
    checked = torch.tensor([0, 255], dtype=torch.uint8).repeat(1, 3, 32, 16)
    inner = cell(contact_sheet(checked, [""], cell=16), 0, 0, 16)[2:-2, 2:-2]
    assert ((inner > 100) & (inner < 155)).all()


# -- captions


def test_no_caption_draws_no_ink():
    assert (below(contact_sheet(noise(1), [""])) == 255).all()


@pytest.mark.parametrize("caption", ["a fox", "キツネの顔", "狐", "여우", "Füchse"])
def test_a_caption_draws_ink_below_its_picture(caption):
    assert (below(contact_sheet(noise(1), [caption])) < 100).any()


@pytest.mark.parametrize(("first", "second"), [("猫", "犬"), ("ア", "イ"), ("곰", "말")])
def test_letters_are_drawn_and_no_boxes_in_their_place(first, second):
    drawn = [below(contact_sheet(noise(1), [caption])) for caption in (first, second)]
    assert (drawn[0] != drawn[1]).any()


def test_a_short_caption_is_one_line(lines):
    contact_sheet(noise(1), ["a red fox"])
    assert lines == ["a red fox"]


def test_a_caption_breaks_between_words(lines):
    contact_sheet(noise(1), ["a fox jumps over the lazy dog"])
    assert len(lines) == 2
    assert " ".join(lines) == "a fox jumps over the lazy dog"


def test_a_caption_without_spaces_breaks_anywhere(lines):
    contact_sheet(noise(1), ["茶色のキツネが怠け者の犬を飛び越える"])
    assert len(lines) == 2
    assert "".join(lines) == "茶色のキツネが怠け者の犬を飛び越える"


@pytest.mark.parametrize("caption", [LONG * 3, "狐" * 30, "狐" * 200, "x" * 500])
def test_a_long_caption_ends_after_three_lines(lines, caption):
    contact_sheet(noise(1), [caption])
    assert len(lines) == 3
    assert lines[-1].endswith("…")
    assert caption.startswith(lines[0])


def test_a_caption_with_a_line_break_is_drawn():
    assert (below(contact_sheet(noise(1), ["a fox\nin a wood"])) < 100).any()


# -- files


def test_a_picture_keeps_its_bytes_as_an_image():
    picture = noise(1)[0]
    assert (np.asarray(to_image(picture)) == picture.permute(1, 2, 0).numpy()).all()


def test_a_saved_picture_is_read_back(tmp_path):
    image = to_image(noise(1)[0])
    save(image, tmp_path / "deep" / "down" / "a.png")
    assert (np.asarray(Image.open(tmp_path / "deep/down/a.png")) == np.asarray(image)).all()


def test_saving_leaves_one_file(tmp_path):
    save(to_image(noise(1)[0]), tmp_path / "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.fixture
def full_disk(monkeypatch):
    def half(self, path, *rest, **options):
        Path(path).write_bytes(b"half a picture")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", half)


@pytest.mark.usefixtures("full_disk")
def test_a_failing_save_leaves_the_old_file(tmp_path):
    (tmp_path / "a.png").write_bytes(b"old")
    with pytest.raises(OSError, match="No space left"):
        save(Image.new("RGB", (2, 2)), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == b"old"


@pytest.mark.usefixtures("full_disk")
def test_a_failing_save_leaves_nothing_behind(tmp_path):
    with pytest.raises(OSError, match="No space left"):
        save(Image.new("RGB", (2, 2)), tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []
