"""Latents from elsewhere become float16 with the channels last."""

import io
import pickle

import numpy as np
import pytest

from flowbrush.data.latents import as_picture, check_size, unpacked
from flowbrush.data.source import UnreadablePicture
from flowbrush.errors import UserError

LATENTS = np.arange(2 * 3 * 3, dtype=np.float32).reshape(2, 3, 3)  # c h w
LAST = LATENTS.transpose(1, 2, 0)


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, ">f4"])
@pytest.mark.parametrize(
    ("array", "shape", "layout"),
    [
        (LATENTS, (), "auto"),
        (LAST, (), "auto"),
        (LATENTS[None], (), "auto"),
        (LATENTS, (), "chw"),
        (LAST, (), "hwc"),
        (LATENTS.ravel(), (2, 3, 3), "auto"),
        (LAST.ravel(), (3, 3, 2), "auto"),
    ],
)
def test_channels_go_last(array, shape, layout, kind):
    picture = as_picture(array.astype(kind), shape, layout, "x")
    assert picture.dtype == np.float16 and (picture == LAST).all()


def test_where_all_axes_are_alike_the_layout_must_be_said():
    cube = np.random.default_rng(0).normal(size=(4, 4, 4)).astype(np.float16)
    with pytest.raises(UserError, match=r"x: .*say which axis .* --source\.layout chw or hwc"):
        as_picture(cube, (), "auto", "x")
    assert (as_picture(cube, (), "hwc", "x") == cube).all()
    assert (as_picture(cube, (), "chw", "x") == cube.transpose(1, 2, 0)).all()


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (LATENTS * 1e5, "16 bits do not hold"),
        (LATENTS * np.nan, "16 bits do not hold"),
        (LATENTS.astype(np.int32), "int32, which is no floating point"),
        (LATENTS[:, :2], r"shape|square"),
        (LATENTS[0], "three axes belong"),
        (np.zeros((2, 2, 3, 3)), "three axes belong"),
        (np.zeros(17), r"17 numbers for the shape \(2, 3, 3\)"),
    ],
)
def test_what_are_no_latents_is_skipped(array, said):
    with pytest.raises(UnreadablePicture, match=f"x: .*{said}"):
        as_picture(array, (2, 3, 3), "chw", "x")


def test_flat_numbers_need_a_shape():
    with pytest.raises(UserError, match=r"--source\.shape 16 32 32"):
        as_picture(LATENTS.ravel(), (), "auto", "x")


@pytest.mark.parametrize("data", [LATENTS.tobytes(), LATENTS.astype("f2").tobytes(), npy(LATENTS)])
def test_bytes_are_plain_numbers_or_an_npy_file(data):
    array = unpacked(data, (2, 3, 3), "x")
    assert (as_picture(array, (2, 3, 3), "auto", "x") == LAST).all()


def test_other_bytes_are_skipped():
    with pytest.raises(UnreadablePicture, match="71 bytes for 18 numbers"):
        unpacked(LATENTS.tobytes()[:-1], (2, 3, 3), "x")


def test_an_npy_file_of_objects_is_not_unpickled(monkeypatch):
    def load(*_, **__):
        raise AssertionError("unpickled")

    data = npy(np.array([{"a": 1}], object))
    monkeypatch.setattr(pickle, "load", load)
    with pytest.raises(UnreadablePicture, match="Object arrays cannot be loaded"):
        unpacked(data, (), "x")


@pytest.mark.parametrize("length", [7, 40, 120, -1])
def test_a_cut_npy_file_is_skipped(length):
    with pytest.raises(UnreadablePicture, match="damaged"):
        unpacked(npy(LATENTS)[:length], (), "x")


@pytest.mark.parametrize(("side", "size"), [(32, 256), (8, 8), (16, 512)])
def test_a_side_divides_the_size(side, size):
    check_size(side, size, "x")


@pytest.mark.parametrize(("side", "size"), [(32, 250), (32, 16), (0, 8)])
def test_another_size_is_refused(side, size):
    with pytest.raises(UserError, match=f"size: {size} pixels, but x holds latents of {side}"):
        check_size(side, size, "x")
