"""An image becomes sRGB by what it says of its colors, and keeps its bytes where that is sRGB."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms
from profiles import ADOBE, D50, D65, P3, PROPHOTO, WIDE, grey_profile, rgb_profile, shown
from test_pictures import chunk, encoded, with_chunks

from flowbrush.data import color
from flowbrush.data.pictures import decode
from flowbrush.data.source import UnreadablePicture

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
EXACT = {
    "PNG": {},
    "WEBP": {"lossless": True},
    "TIFF": {},
    "JPEG": {"quality": 100, "subsampling": 0},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
}


def colors() -> Image.Image:
    """64 of them, of 16 pixels each: those between primaries, dark ones and light ones."""
    levels = np.array([20, 90, 160, 230], np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(8, 8, 3)
    return Image.fromarray(grid.repeat(4, 0).repeat(4, 1))


def off(file: bytes, right: np.ndarray) -> int:
    """By how much of 255, at most, in the middle of each color."""
    found = decode(file, 32, "x").astype(int)
    return int(abs(found - right)[1::4, 1::4].max())


# -- ICC profiles


@pytest.mark.parametrize("kind", EXACT)
@pytest.mark.parametrize(
    "profile",
    [WIDE, rgb_profile(ADOBE, D65, 563 / 256), rgb_profile(PROPHOTO, D50, 1.8)],
    ids=["P3", "Adobe", "ProPhoto"],
)
def test_a_wide_profile_is_converted_as_littlecms_does(kind, profile):
    file = encoded(colors(), kind, icc_profile=profile, **EXACT[kind])
    plain = Image.open(io.BytesIO(encoded(colors(), kind, **EXACT[kind]))).convert("RGB")
    assert off(file, shown(plain, profile)) <= 2
    assert off(file, np.asarray(colors()).astype(int)) > 20  # it is another picture


@pytest.mark.parametrize("kind", EXACT)
def test_a_profile_of_srgb_changes_no_byte(kind):
    plain, told = (
        decode(encoded(colors(), kind, **EXACT[kind], **more), 24, "x")
        for more in ({}, {"icc_profile": SRGB})
    )
    assert (plain == told).all()


@pytest.mark.parametrize(
    "profile", [b"", b"profile", WIDE[:60], WIDE[:200], WIDE[:128] + bytes(500), bytes(4000)]
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_damaged_profile_is_ignored(kind, profile):
    file = encoded(colors(), kind, icc_profile=profile)
    assert (decode(file, 16, "x") == decode(encoded(colors(), kind), 16, "x")).all()


def test_grey_is_converted_by_a_profile_of_grey_and_of_colors():
    grey = colors().convert("L")
    for profile, image in ((grey_profile(1.0), grey), (WIDE, grey.convert("RGB"))):
        assert off(encoded(grey, icc_profile=profile), shown(image, profile)) <= 2


def test_a_profile_of_other_channels_is_ignored():
    file = encoded(colors(), icc_profile=grey_profile(1.0))
    assert off(file, np.asarray(colors()).astype(int)) == 0


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_stays_so(mode):
    image = colors().convert("L" if mode == "LA" else "RGB")
    right = shown(image.convert("RGB"), WIDE)
    if mode == "P":
        image = image.quantize(64)
        right = shown(image.convert("RGB"), WIDE)
        index = image.getpixel((0, 0))
        file = encoded(image, transparency=index, icc_profile=WIDE)
    else:
        image.putalpha(255)
        for x in range(4):
            for y in range(4):
                image.putpixel((x, y), (*image.getpixel((x, y))[:-1], 0))
        file = encoded(image, icc_profile=WIDE)
    right[:4, :4] = 255
    assert off(file, right) <= 2


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_cmyk_without_a_profile_stays_as_pillow_has_it(kind):
    image = colors().convert("CMYK")
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    file = encoded(image, kind, **options)
    assert off(file, np.asarray(image.convert("RGB")).astype(int)) <= 6
    wide = encoded(image, kind, icc_profile=WIDE, **options)  # a profile of RGB
    assert (decode(wide, 8, "x") == decode(file, 8, "x")).all()


def test_cmyk_is_converted_by_its_profile(monkeypatch):
    """No press's profile is at hand: littleCMS is asked which one it was given."""
    asked = []

    def transform(source, _, mode, to):
        asked.append((mode, to))
        raise ImageCms.PyCMSError("not made")

    monkeypatch.setattr(color.ImageCms, "buildTransform", transform)
    press = WIDE[:16] + b"CMYK" + WIDE[20:] + b"press"
    decode(encoded(colors().convert("CMYK"), "TIFF", icc_profile=press), 8, "x")
    assert asked == [("CMYK", "RGB")]


def test_lab_becomes_rgb():
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    image = ImageCms.profileToProfile(colors(), srgb, lab, outputMode="LAB")
    right = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    assert off(encoded(image, "TIFF"), np.asarray(right).astype(int)) <= 2


# -- numbers in the place of a profile


def cicp(primaries: int, transfer: int) -> bytes:
    return chunk(b"cICP", bytes([primaries, transfer, 0, 1]))


def gama(gamma: float) -> bytes:
    return chunk(b"gAMA", struct.pack(">I", round(gamma * 1e5)))


def chrm(corners, white=D65) -> bytes:
    values = (value for point in (white, *corners) for value in point)
    return chunk(b"cHRM", struct.pack(">8I", *(round(value * 1e5) for value in values)))


@pytest.mark.parametrize(
    ("chunks", "profile"),
    [
        (cicp(12, 4), WIDE),
        (chrm(P3) + gama(1 / 1.8), rgb_profile(P3, D65, 1.8)),
        (gama(1.0), rgb_profile(((0.64, 0.33), (0.3, 0.6), (0.15, 0.06)), D65, 1.0)),
        (chrm(PROPHOTO, D50) + gama(1 / 1.8), rgb_profile(PROPHOTO, D50, 1.8)),
    ],
)
def test_the_numbers_of_a_png_do_as_much_as_a_profile(chunks, profile):
    file = with_chunks(encoded(colors()), before=chunks)
    assert off(file, shown(colors(), profile)) <= 2


@pytest.mark.parametrize(
    "chunks",
    [
        gama(0.45455),
        gama(0.45455) + chrm(((0.64, 0.33), (0.3, 0.6), (0.15, 0.06))),
        chunk(b"sRGB", b"\0") + gama(1.0),  # sRGB goes before
        cicp(1, 13),
        cicp(2, 2),
        gama(0.0) + chrm(((0.0, 0.0), (0.0, 0.0), (0.0, 0.0))),  # no space
        gama(0.00001),
        gama(40_000),
        chrm(((0.5, 0.5), (0.5, 0.5), (0.5, 0.5))),
    ],
)
def test_the_numbers_of_srgb_and_those_of_nothing_change_no_byte(chunks):
    file = with_chunks(encoded(colors()), before=chunks)
    assert (decode(file, 32, "x") == np.asarray(colors())).all()


def avif(primaries: int, transfer: int) -> bytes:
    file = bytearray(encoded(colors(), "AVIF", **EXACT["AVIF"]))
    at = file.index(b"colrnclx") + 8
    file[at : at + 4] = struct.pack(">HH", primaries, transfer)
    return bytes(file)


def test_the_primaries_of_an_avif_are_heeded():
    plain = Image.fromarray(decode(avif(1, 13), 32, "x"))
    assert off(avif(12, 4), shown(plain, WIDE)) <= 2


@pytest.mark.parametrize("transfer", [16, 18])
def test_hdr_is_left_out_with_its_reason(transfer):
    tagged = WIDE + b"cicp\0\0\0\0" + bytes([9, transfer, 0, 1])
    png = encoded(colors())
    for file in (
        avif(9, transfer),
        with_chunks(png, before=cicp(9, transfer)),
        encoded(colors(), icc_profile=tagged),
    ):
        with pytest.raises(UnreadablePicture, match="HDR"):
            decode(file, 8, "x")


def test_adobe_rgb_by_a_cameras_exif_is_converted():
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 0xFFFF  # a space beside sRGB
    exif.get_ifd(0x8769)[0xA005] = {1: "R03"}
    right = shown(colors(), rgb_profile(ADOBE, D65, 563 / 256))
    assert off(encoded(colors(), exif=exif.tobytes()), right) <= 2
    exif.get_ifd(0x8769)[0xA005] = {1: "R98"}
    assert off(encoded(colors(), exif=exif.tobytes()), np.asarray(colors()).astype(int)) == 0


def test_a_profile_in_a_jpeg_2000_is_found():
    plain = encoded(colors(), "JPEG2000")
    at = plain.index(b"colr") - 4
    size = int.from_bytes(plain[at : at + 4], "big")
    box = struct.pack(">I", 11 + len(WIDE)) + b"colr\2\0\0" + WIDE
    file = bytearray(plain[:at] + box + plain[at + size :])
    header = file.index(b"jp2h") - 4
    larger = int.from_bytes(file[header : header + 4], "big") + len(box) - size
    file[header : header + 4] = larger.to_bytes(4, "big")
    assert off(bytes(file), shown(colors(), WIDE)) <= 2


def test_a_profile_that_is_compressed_in_a_png_may_be_long():
    long = WIDE + bytes(2_000_000)
    packed = chunk(b"iCCP", b"wide\0\0" + zlib.compress(long))
    assert off(with_chunks(encoded(colors()), before=packed), shown(colors(), WIDE)) <= 2
