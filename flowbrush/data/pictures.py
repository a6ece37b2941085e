"""From an encoded picture to square RGB bytes."""

import io
import warnings

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from flowbrush.data.source import UnreadablePicture

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")
KINDS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")  # not EPS, for which Pillow runs gs
LARGEST_PICTURE = 100_000_000  # bytes, encoded
TOO_LARGE = f"over {LARGEST_PICTURE // 10**6} MB"
MOST_PIXELS = 100_000_000  # beyond it a picture is taken for a decompression bomb


def decode(encoded: bytes, size: int, name: str) -> UInt8[np.ndarray, "size size 3"]:
    """The largest centred square of an encoded picture, at `size` pixels, on white ground.

    Raises UnreadablePicture for what is truncated, too large or no picture.
    """
    if len(encoded) > LARGEST_PICTURE:
        raise UnreadablePicture(name, TOO_LARGE)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(encoded), formats=KINDS)
            if image.width * image.height > MOST_PIXELS:
                raise UnreadablePicture(name, f"{image.width} x {image.height} pixels, too large")
            image.draft(
                "RGB", (2 * size, 2 * size)
            )  # JPEG: decode at a fraction where that is enough
            image.load()
        return square(image, size)
    except UnreadablePicture:
        raise
    except Exception as error:  # a damaged picture, or its EXIF, raises nearly anything
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "not a picture of a known kind" if unknown else str(error) or type(error).__name__
        raise UnreadablePicture(name, reason) from None


def square(image: Image.Image, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """The largest centred square, at `size` pixels, turned as its EXIF says."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits a pixel, which Pillow would clip
        image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    fitted = ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.LANCZOS)
    return np.asarray(fitted)
