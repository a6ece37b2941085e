"""Samples of any bits become bytes, and a transparent color is compared in its own bits."""

import struct
import zlib

import numpy as np
import pytest
from test_pictures import chunk

from flowbrush.data.pictures import decode
from flowbrush.data.source import UnreadablePicture

GREY, RGB = 0, 2  # kinds of PNG


def png(samples: np.ndarray, depth: int, key: tuple[int, ...] | None = None) -> bytes:
    """Of integers; with a third axis it is RGB."""
    height, width = samples.shape[:2]
    rows = samples.reshape(height, -1)
    if depth == 16:
        packed = rows.astype(">u2").view(np.uint8).reshape(height, -1)
    else:
        bits = (rows[..., None] >> np.arange(depth)[::-1]) & 1
        packed = np.packbits(bits.astype(np.uint8).reshape(height, -1), axis=1)
    data = zlib.compress(np.pad(packed, ((0, 0), (1, 0))).tobytes())
    kind = RGB if samples.ndim == 3 else GREY
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    parts = chunk(b"IHDR", header)
    if key:
        parts += chunk(b"tRNS", struct.pack(f">{len(key)}H", *key))
    return b"\x89PNG\r\n\x1a\n" + parts + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("depth", "key"), [(1, 1), (2, 2), (4, 5), (8, 7), (16, 1000)])
def test_the_transparent_grey_of_a_png_becomes_white(depth, key):
    samples = np.zeros((8, 8), np.int64)
    samples[:, 4:] = key
    picture = decode(png(samples, depth, (key,)), 8, "x")
    assert (picture[:, :4] == 0).all() and (picture[:, 4:] == 255).all()


def test_the_transparent_color_of_16_bits_is_no_other_one_of_the_same_high_byte():
    samples = np.full((8, 8, 3), (1000, 2000, 3000))
    samples[:, 4:] = (1000, 2000, 3001)
    picture = decode(png(samples, 16, (1000, 2000, 3000)), 8, "x")
    assert (picture[:, :4] == 255).all() and (picture[:, 4:] == (3, 7, 11)).all()


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_white_is_white_in_any_bits(depth):
    samples = np.zeros((8, 8), np.int64)
    samples[:, 4:] = 2**depth - 1
    picture = decode(png(samples, depth), 8, "x")
    assert (picture[:, :4] == 0).all() and (picture[:, 4:] == 255).all()


def tiff(samples: np.ndarray, bits: int, white_is_zero: bool = False) -> bytes:
    """Grey samples that are written as they lie in memory."""
    height, width = samples.shape[:2]
    floats = 3 if samples.dtype.kind == "f" else 1
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: 0 if white_is_zero else 1}
    tags |= {273: 8, 277: 1, 278: height, 279: samples.nbytes, 339: floats}
    directory = struct.pack("<H", len(tags))
    directory += b"".join(struct.pack("<HHII", tag, 4, 1, n) for tag, n in tags.items())
    pixels = samples.tobytes()
    return b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + directory + bytes(4)


@pytest.mark.parametrize("white_is_zero", [False, True])
def test_a_tiff_of_16_bits_is_scaled_and_inverted_where_its_white_is_zero(white_is_zero):
    samples = (np.arange(64).reshape(8, 8) * 4 * 257).astype("<u2")
    right = np.arange(64).reshape(8, 8) * 4
    picture = decode(tiff(samples, 16, white_is_zero), 8, "x")
    assert (picture[..., 0] == (255 - right if white_is_zero else right)).all()


def test_a_tiff_of_12_bits_has_its_white_at_4095():
    packed = np.full((8, 12), 255, np.uint8)  # 8 pixels a row
    packed[:, 6:] = 0
    file = bytearray(tiff(packed, 12))
    at = file.index(struct.pack("<HHI", 256, 4, 1)) + 8
    file[at : at + 4] = struct.pack("<I", 8)
    picture = decode(bytes(file), 8, "x")
    assert (picture[:, :4] == 255).all() and (picture[:, 4:] == 0).all()


def test_floats_of_a_tiff_go_from_0_to_1():
    samples = np.linspace(0, 1, 64, dtype="<f4").reshape(8, 8)
    picture = decode(tiff(samples, 32), 8, "x")
    assert (picture[..., 0] == np.rint(samples * 255)).all()


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        (np.full((4, 4), 2.0, "<f4"), "beyond 0 to 1"),
        (np.full((4, 4), -0.1, "<f4"), "beyond 0 to 1"),
        (np.full((4, 4), np.nan, "<f4"), "beyond 0 to 1"),
        (np.full((4, 4), 200, "<u4"), "integers of 32 bits"),
    ],
)
def test_what_white_is_must_be_known(samples, said):
    with pytest.raises(UnreadablePicture, match=said):
        decode(tiff(samples, 32), 4, "x")


def test_a_pgm_of_16_bits_is_scaled():
    data = b"P5 4 4 65535\n" + np.full((4, 4), 128 * 257, ">u2").tobytes()
    assert (decode(data, 4, "x") == 128).all()


def test_grey_that_was_multiplied_by_its_alpha_is_read():
    samples = np.full((8, 8, 2), (50, 128), np.uint8)
    directory = {256: 8, 257: 8, 258: 8 + (8 << 16), 259: 1, 262: 1, 273: 8, 277: 2, 278: 8}
    directory |= {279: samples.nbytes, 338: 1}  # alpha is associated
    file = b"II*\0" + struct.pack("<I", 8 + samples.nbytes) + samples.tobytes()
    file += struct.pack("<H", len(directory))
    for tag, value in directory.items():
        file += struct.pack("<HHII", tag, 3 if tag == 258 else 4, 2 if tag == 258 else 1, value)
    picture = decode(file + bytes(4), 8, "x")
    assert abs(picture.astype(int) - (50 + 127)).max() <= 2  # on white
