"""From an encoded picture to RGB bytes of the size that is wanted."""

import io
import math
import warnings
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from flowbrush.data.bit_depth import eight_bits, with_exact_key
from flowbrush.data.color import jpeg_profile, note_colors, to_srgb
from flowbrush.data.source import Size, UnreadablePicture

try:
    import simplejpeg
except ImportError:  # it comes with the extra `data`; without it Pillow decodes all
    simplejpeg = None

# What is decoded: Pillow's name of a format, and the endings of its files. Not EPS: Pillow would
# run gs for it. A JPEG that holds several images (MPO) is a "JPEG".
KINDS = {
    "AVIF": (".avif", ".avifs"),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "JPEG2000": (".jp2", ".j2k", ".jpx"),
    "PNG": (".png", ".apng"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
ENDINGS = tuple(ending for endings in KINDS.values() for ending in endings)
# Endings of images that are not decoded: a source that passes over such a file counts it.
UNDECODED_ENDINGS = (
    *(".heic", ".heif", ".hif", ".jxl", ".jxr", ".psd", ".psb", ".xcf", ".svg", ".svgz", ".eps"),
    *(".tga", ".qoi", ".exr", ".hdr", ".dds", ".ico", ".pcx"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".rw2", ".orf", ".pef", ".srw"),  # cameras'
)
LARGEST_PICTURE = 100_000_000  # bytes, encoded
TOO_LARGE = f"over {LARGEST_PICTURE // 10**6} MB"
MOST_PIXELS = 100_000_000  # beyond it a picture is taken for a decompression bomb
JPEG, TURNED = b"\xff\xd8\xff", (b"Exif\0", b"Orientation")  # EXIF or XMP may say how to turn it
ORIENTATION, LYING = 0x0112, 5  # of EXIF: from 5 on height and width change places
METADATA = {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"}  # that may say it
BEHIND = (b"eXIf", b"XML:com.adobe.xmp", b"Raw profile type exif")  # the same in a PNG's chunks
TEXTS = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")
TAIL = 65_536  # bytes of a PNG in which they stand, if they stand behind the pixels
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# A PNG may hold 64 MiB of text in one chunk as in all of them; Pillow calls it broken beyond 1 MiB.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY


def decode(encoded: bytes, size: Size, name: str) -> UInt8[np.ndarray, "H W 3"]:
    """The largest centred part of an encoded picture that has the shape, at `size` pixels, in sRGB
    on white ground.

    Raises UnreadablePicture for what is truncated, too large, HDR or no picture.
    """
    if len(encoded) > LARGEST_PICTURE:
        raise UnreadablePicture(name, TOO_LARGE)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of bombs, which are refused, and of odd metadata
            return fitted(_plain_jpeg(encoded, size) or _loaded(encoded, size, name), size)
    except UnreadablePicture:
        raise
    except Exception as error:  # a damaged picture raises nearly anything
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "not a picture of a known kind" if unknown else str(error) or type(error).__name__
        raise UnreadablePicture(name, reason) from None


def _loaded(encoded: bytes, size: Size, name: str) -> Image.Image:
    """Of any kind; its `info` says all that the file says of its colors."""
    image = Image.open(io.BytesIO(encoded), formats=[*KINDS])
    if image.width * image.height > MOST_PIXELS:
        raise UnreadablePicture(name, f"{image.width} x {image.height} pixels, too large")
    side = 2 * max(sides(size))
    image.draft("RGB", (side, side))  # JPEG: decode at a fraction where that is enough
    image.load()
    note_colors(image, encoded)
    return with_exact_key(image, encoded) if image.format == "PNG" else image


def _plain_jpeg(encoded: bytes, size: Size) -> Image.Image | None:
    """A JPEG as Pillow gives it, to the bit, in two thirds of the time.

    None for one that wants more: that may be turned, is no YCbCr, is to be decoded at a fraction,
    or has any fault, of which Pillow may make something or tell what it is.
    """
    if simplejpeg is None or not encoded.startswith(JPEG) or any(map(encoded.count, TURNED)):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(encoded)
        small = min(height, width) < 4 * max(sides(size)) and height * width <= MOST_PIXELS
        if not small or colours != "YCbCr":
            return None
        image = Image.fromarray(simplejpeg.decode_jpeg(encoded))
    except (ValueError, RuntimeError, MemoryError):
        return None
    image.info["icc_profile"] = jpeg_profile(encoded)
    return image


def undecoded(name: str) -> str:
    """Why a file of this name is left out, if it is an image that cannot be decoded; else empty.

    The cause is counted: `HEIC images, which cannot be decoded`.
    """
    ending = Path(name).suffix.lower()
    known = ending in UNDECODED_ENDINGS
    return f"{ending[1:].upper()} images, which cannot be decoded" if known else ""


def sides(size: Size) -> tuple[int, int]:
    """Height and width."""
    return (size, size) if isinstance(size, int) else size


def aspect(encoded: io.BytesIO | Path) -> float:
    """Width / height of a picture as `decode` turns it; NaN where it has no header.

    Nothing is decoded; of a file little more is read than the header.
    """
    width, height = upright_sides(encoded)
    return width / height if height else math.nan


def upright_sides(encoded: io.BytesIO | Path) -> tuple[int, int]:
    """Width and height of a picture as `decode` turns it; 0, 0 where it has no header."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(encoded, formats=[*KINDS]) as image:
                if isinstance(image, PngImagePlugin.PngImageFile):
                    _read_tail(image)
                lying = _orientation(image) >= LYING
                return (image.height, image.width) if lying else image.size
    except Exception:  # as in `decode`
        return 0, 0


def _orientation(image: Image.Image) -> int:
    """What EXIF says of it, or else XMP; 1, which is upright, where neither can be read."""
    if getattr(image, "tag_v2", {}).get(ORIENTATION):
        return 1  # Pillow turns a TIFF by its tag, and gives its sides so from the start
    try:
        found = Image.Image.getexif(image).get(ORIENTATION, 1)  # a PNG's own would decode it
    except Exception:  # of damaged EXIF, nearly any
        return 1
    return found if found in UPRIGHT else 1


def _read_tail(image: PngImagePlugin.PngImageFile) -> None:
    """Reads what stands behind the pixels of a PNG and may say how to turn it.

    Nearly every file is spared the way from chunk to chunk: nothing of the kind is in its tail.
    """
    file, stream = image.fp, image.png
    if file is None or stream is None or image.info.keys() & METADATA:
        return
    file.seek(max(0, file.seek(0, io.SEEK_END) - TAIL))
    tail = file.read()
    if not any(mark in tail for mark in BEHIND):
        return
    at = image.tile[0].offset - 8  # of the first chunk of pixels
    while file.seek(at) == at and len(head := file.read(8)) == 8:
        size, kind = int.from_bytes(head[:4], "big"), head[4:]
        if kind in TEXTS:
            stream.call(kind, at + 8, size)  # fills `info`
        at += 12 + size


def fitted(image: Image.Image, size: Size) -> UInt8[np.ndarray, "H W 3"]:
    """The largest centred part of the shape, at `size` pixels, upright and in sRGB on white ground.

    Raises ValueError where its samples say no color.
    """
    orientation = _orientation(image)
    image = to_srgb(eight_bits(image))
    if orientation in UPRIGHT:
        image = image.transpose(UPRIGHT[orientation])
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    height, width = sides(size)
    if image.size != (width, height):
        image = ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
    return np.asarray(image)
