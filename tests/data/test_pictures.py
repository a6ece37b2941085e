"""Encoded pictures become square bytes, whatever they were."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile
from profiles import WIDE

from flowbrush.data import pictures
from flowbrush.data.pictures import aspect, decode
from flowbrush.data.source import UnreadablePicture

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """Of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def halves(width: int = 8, height: int = 8) -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (width // 2, 0, width, height))
    return image


def colour(picture: np.ndarray, y: int, x: int) -> tuple[int, ...]:
    return tuple(picture[y, x].tolist())


# -- how a JPEG is decoded

JPEGS = {
    "plain": {},
    "all colours": {"subsampling": 0},
    "half the colours": {"subsampling": 1},
    "progressive": {"progressive": True},
    "poor": {"quality": 10},
    "with restarts": {"restart_marker_rows": 1},
    "with a profile": {"icc_profile": WIDE},
    "with a long profile": {"icc_profile": WIDE + bytes(100_000)},
    "turned": {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"},
}


@pytest.mark.parametrize("size", [17, 40, 64, (40, 24)])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("kind", JPEGS)
def test_every_jpeg_is_decoded_as_pillow_does_to_the_bit(monkeypatch, kind, mode, size):
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (9, 8, 3), dtype=np.uint8))
    for sides in ((64, 64), (63, 41), (300, 290)):
        jpeg = encoded(noise.resize(sides, 3).convert(mode), "JPEG", **JPEGS[kind])
        ours = decode(jpeg, size, "x")
        with monkeypatch.context() as without:
            without.setattr(pictures, "simplejpeg", None)
            assert (ours == decode(jpeg, size, "x")).all()


@pytest.mark.parametrize("at", range(0, 700, 7))
def test_a_damaged_jpeg_is_what_pillow_says_it_is(monkeypatch, at):
    jpeg = bytearray(encoded(halves(48, 48), "JPEG"))
    jpeg[at % len(jpeg)] ^= 0x55
    found = []
    for module in (pictures.simplejpeg, None):
        monkeypatch.setattr(pictures, "simplejpeg", module)
        try:
            found.append(decode(bytes(jpeg), 48, "x").tobytes())
        except UnreadablePicture as error:
            found.append(str(error).encode())
    assert found[0] == found[1]


# -- which kinds are decoded


@pytest.mark.parametrize("ending", pictures.ENDINGS)
def test_every_ending_is_of_a_kind_that_is_decoded(ending):
    Image.init()
    kind = Image.EXTENSION.get(ending, "PPM")
    image = Image.new("1" if ending == ".pbm" else "RGB", (8, 8), "white")
    assert colour(decode(encoded(image, kind), 8, "x"), 4, 4) == WHITE
    assert not pictures.undecoded(f"a{ending}")


def test_an_image_that_cannot_be_decoded_has_its_cause():
    assert pictures.undecoded("b/A.HEIC") == "HEIC images, which cannot be decoded"
    assert not pictures.undecoded("a.txt")
    assert not {*pictures.ENDINGS} & {*pictures.UNDECODED_ENDINGS}


# -- which part of a picture


def test_a_picture_of_the_size_keeps_its_bytes():
    noise = np.random.default_rng(0).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    assert (decode(encoded(Image.fromarray(noise)), 5, "x") == noise).all()


@pytest.mark.parametrize(("width", "height"), [(16, 8), (8, 16), (10, 8)])
def test_the_centre_is_kept_and_the_margins_are_cut(width, height):
    image = Image.new("RGB", (width, height), RED)
    left, top = (width - 8) // 2, (height - 8) // 2
    image.paste(GREEN, (left, top, left + 8, top + 8))
    assert (decode(encoded(image), 8, "x") == np.full((8, 8, 3), GREEN)).all()


@pytest.mark.parametrize("size", [1, 4, 16])
def test_a_picture_of_one_colour_is_that_colour_at_any_size(size):
    picture = decode(encoded(Image.new("RGB", (7, 11), BLUE)), size, "x")
    assert (picture == np.full((size, size, 3), BLUE)).all()


# -- kinds of pixels


@pytest.mark.parametrize(
    ("mode", "value"), [("RGBA", (255, 0, 0, 0)), ("LA", (0, 0)), ("RGBA", (0, 0, 0, 0))]
)
def test_what_is_transparent_becomes_white(mode, value):
    assert colour(decode(encoded(Image.new(mode, (4, 4), value)), 4, "x"), 2, 2) == WHITE


def test_what_is_half_transparent_is_mixed_with_white():
    picture = decode(encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 51))), 4, "x")
    assert colour(picture, 2, 2) == (204, 204, 204)


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_transparent_palette_colour_becomes_white(kind):
    image = halves().convert("P", palette=Image.Palette.ADAPTIVE, colors=2)
    data = encoded(image, kind, transparency=image.getpixel((0, 0)))
    picture = decode(data, 8, "x")
    assert (colour(picture, 4, 1), colour(picture, 4, 6)) == (WHITE, BLUE)


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_palette_pictures_keep_their_colours(kind):
    image = halves().convert("P", palette=Image.Palette.ADAPTIVE, colors=2)
    assert (decode(encoded(image, kind), 8, "x") == np.asarray(halves())).all()


@pytest.mark.parametrize(("mode", "value", "grey"), [("L", 77, 77), ("1", 1, 255), ("1", 0, 0)])
def test_grey_pictures_have_three_equal_channels(mode, value, grey):
    assert (decode(encoded(Image.new(mode, (4, 4), value)), 4, "x") == grey).all()


@pytest.mark.parametrize("byte", [0, 1, 128, 200, 255])
def test_sixteen_bits_a_pixel_are_scaled_to_eight(byte):
    grey = np.full((4, 4), byte * 257, np.uint16)  # 257 * 255 = 65535
    assert (decode(encoded(Image.fromarray(grey)), 4, "x") == byte).all()


def test_cmyk_becomes_rgb():
    data = encoded(Image.new("CMYK", (8, 8), (0, 0, 0, 0)), "JPEG")
    assert (decode(data, 8, "x") >= 250).all()


# -- turned pictures


@pytest.mark.parametrize(
    ("orientation", "red_at", "blue_at"),
    [
        (1, (4, 0), (4, 7)),
        (2, (4, 7), (4, 0)),
        (3, (4, 7), (4, 0)),
        (6, (0, 4), (7, 4)),
        (8, (7, 4), (0, 4)),
    ],
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_picture_is_turned_as_its_exif_says(kind, orientation, red_at, blue_at):
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = decode(encoded(halves(), kind, exif=exif), 8, "x").astype(int)
    assert abs(picture[red_at] - RED).max() < 40
    assert abs(picture[blue_at] - BLUE).max() < 40


# -- JPEG at a fraction


@pytest.mark.parametrize(("width", "height"), [(333, 100), (100, 333), (257, 257), (65, 64)])
@pytest.mark.parametrize("size", [7, 32])
def test_decoding_a_jpeg_at_a_fraction_keeps_the_size(width, height, size):
    assert decode(encoded(halves(width, height), "JPEG"), size, "x").shape == (size, size, 3)


@pytest.mark.parametrize(("side", "size"), [(64, 32), (128, 16), (256, 8)])
def test_decoding_a_jpeg_at_a_fraction_keeps_its_stripes(side, size):
    stripe = side // size * 2
    row = np.arange(side) // stripe % 2 * 200
    image = Image.fromarray(np.tile(row.astype(np.uint8), (side, 1)))
    jpeg, png = (decode(encoded(image, kind), size, "x").astype(int) for kind in ("JPEG", "PNG"))
    assert abs(jpeg - png).max() < 25


# -- what is no picture


def png_claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims a size."""

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.fixture
def nothing_is_decoded(monkeypatch):
    def load(self):
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)


@pytest.mark.usefixtures("nothing_is_decoded")
def test_a_decompression_bomb_is_refused_unopened():
    with pytest.raises(UnreadablePicture, match=r"bomb\.png"):
        decode(png_claiming(100_000, 100_000), 8, "bomb.png")


@pytest.mark.usefixtures("nothing_is_decoded")
def test_a_picture_whose_reading_starts_a_program_is_none():
    """Pillow would hand it to Ghostscript."""
    page = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n%%EOF\n"
    with Image.open(io.BytesIO(page)) as image:
        assert image.format == "EPS"
    with pytest.raises(UnreadablePicture, match="not a picture of a known kind"):
        decode(page, 8, "x")


@pytest.mark.usefixtures("nothing_is_decoded")
def test_a_picture_of_too_many_pixels_is_refused_unopened(monkeypatch):
    monkeypatch.setattr(pictures, "MOST_PIXELS", 120)
    with pytest.raises(UnreadablePicture, match="11 x 11 pixels, too large"):
        decode(encoded(Image.new("L", (11, 11))), 8, "x")


def test_a_picture_of_just_as_many_pixels_is_read(monkeypatch):
    monkeypatch.setattr(pictures, "MOST_PIXELS", 121)
    assert decode(encoded(Image.new("L", (11, 11))), 8, "x").shape == (8, 8, 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF"])
def test_a_picture_cut_in_half_is_unreadable(kind):
    data = encoded(Image.effect_noise((64, 64), 90).convert("RGB"), kind)
    with pytest.raises(UnreadablePicture):
        decode(data[: len(data) // 2], 8, "x")


@pytest.mark.parametrize("data", [b"", b"I am a letter", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"])
def test_what_is_no_picture_is_unreadable(data):
    with pytest.raises(UnreadablePicture):
        decode(data, 8, "x")


def test_the_reason_is_for_reading_and_names_no_object_in_memory():
    with pytest.raises(UnreadablePicture) as unreadable:
        decode(b"I am a letter", 8, "x")
    assert " at 0x" not in unreadable.value.reason


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_a_picture_whose_exif_is_damaged_is_turned_as_far_as_it_can_be_read(kind):
    exif = Image.Exif()
    exif[0x112], exif[0x100] = 6, 7  # turned by 90 degrees; a width
    whole = encoded(halves(), kind, exif=exif)
    damaged = whole.replace(b"\x01\x00\x00\x04", b"\x01\x00\x00\x02")  # the width as text
    lost = whole.replace(b"MM\0*", b"MM\0?")
    assert whole not in (damaged, lost)
    assert (decode(damaged, 8, "damaged") == decode(whole, 8, "whole")).all()
    assert (decode(lost, 8, "lost") == decode(encoded(halves(), kind), 8, "upright")).all()


# -- what a PNG holds beside its pixels


def with_chunks(png: bytes, before: bytes = b"", behind: bytes = b"") -> bytes:
    """Before the pixels, and behind them."""
    at = png.index(b"IDAT") - 4
    return png[:at] + before + png[at:-12] + behind + png[-12:]


@pytest.mark.parametrize(
    "text",
    [
        chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(3_000_000))),
        chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(bytes(3_000_000))),
        chunk(b"tEXt", b"Comment\0" + b"x" * 3_000_000),
        chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(3_000_000))),
    ],
)
def test_a_png_of_megabytes_of_metadata_is_read(text):
    plain = encoded(halves())
    for png in (with_chunks(plain, before=text), with_chunks(plain, behind=text)):
        assert (decode(png, 8, "x") == np.asarray(halves())).all()
        assert aspect(io.BytesIO(png)) == 1


def test_text_that_would_fill_the_memory_is_not_unpacked():
    bomb = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(65_000_000), 1)) * 2
    with pytest.raises(UnreadablePicture, match="text"):
        decode(with_chunks(encoded(halves()), before=bomb), 8, "x")
