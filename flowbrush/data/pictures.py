"""From an encoded picture to RGB bytes of the size that is wanted."""

import io
import math
import warnings
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

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


def decode(encoded: bytes, size: Size, name: str) -> UInt8[np.ndarray, "H W 3"]:
    """The largest centred part of an encoded picture that has the shape, at `size` pixels, on white
    ground.

    Raises UnreadablePicture for what is truncated, too large or no picture.
    """
    if len(encoded) > LARGEST_PICTURE:
        raise UnreadablePicture(name, TOO_LARGE)
    if (pixels := _plain_jpeg(encoded, size)) is not None:
        return pixels if pixels.shape[:2] == sides(size) else fitted(Image.fromarray(pixels), size)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(encoded), formats=[*KINDS])
            if image.width * image.height > MOST_PIXELS:
                raise UnreadablePicture(name, f"{image.width} x {image.height} pixels, too large")
            side = 2 * max(sides(size))
            image.draft("RGB", (side, side))  # JPEG: decode at a fraction where that is enough
            image.load()
        return fitted(image, size)
    except UnreadablePicture:
        raise
    except Exception as error:  # a damaged picture, or its EXIF, raises nearly anything
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "not a picture of a known kind" if unknown else str(error) or type(error).__name__
        raise UnreadablePicture(name, reason) from None


def _plain_jpeg(encoded: bytes, size: Size) -> UInt8[np.ndarray, "h w 3"] | None:
    """The pixels of a JPEG as Pillow gives them, to the bit, in two thirds of the time.

    None for one that wants more: that may be turned, is no YCbCr, is to be decoded at a fraction,
    or has any fault, of which Pillow may make something or tell what it is.
    """
    if simplejpeg is None or not encoded.startswith(JPEG) or any(map(encoded.count, TURNED)):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(encoded)
        small = min(height, width) < 4 * max(sides(size)) and height * width <= MOST_PIXELS
        return simplejpeg.decode_jpeg(encoded) if small and colours == "YCbCr" else None
    except (ValueError, RuntimeError, MemoryError):
        return None


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
    """Width / height of a picture, turned as its EXIF says; NaN where it has no header.

    Nothing is decoded; of a file no more is read than the header.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(encoded, formats=[*KINDS]) as image:
                # Else Pillow would look for it behind the pixels, and decode them.
                exif = image.getexif() if "exif" in image.info else {}
                lying = exif.get(ORIENTATION, 1) >= LYING
                return image.height / image.width if lying else image.width / image.height
    except Exception:  # as in `decode`
        return math.nan


def fitted(image: Image.Image, size: Size) -> UInt8[np.ndarray, "H W 3"]:
    """The largest centred part of the shape, at `size` pixels, turned as its EXIF says."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits a pixel, which Pillow would clip
        image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    height, width = sides(size)
    cut = ImageOps.fit(image.convert("RGB"), (width, height), Image.Resampling.LANCZOS)
    return np.asarray(cut)
