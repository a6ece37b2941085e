"""Images of other than 8 bits a sample, and transparent colors that are written in such bits."""

import io

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0  # tags of TIFF
PNG_DEPTH = 24  # byte of a PNG that says the bits of a sample


def with_exact_key(image: Image.Image, encoded: bytes) -> Image.Image:
    """A loaded PNG; its transparent color is one of the file's samples, not of those of 8 bits.

    Grey of 2 or 4 bits gets its key scaled, RGB of 16 bits a channel of alpha.
    """
    key, depth = image.info.get("transparency"), encoded[PNG_DEPTH]
    if image.mode == "L" and depth in (2, 4) and isinstance(key, int):
        image.info["transparency"] = key * 255 // (2**depth - 1)
    elif image.mode == "RGB" and depth == 16 and key:
        with Image.open(io.BytesIO(encoded), formats=["PNG"]) as low:  # bytes, as another's high
            low.tile = [tile._replace(args="RGB;16L") for tile in low.tile]
            seen = np.asarray(image).astype(np.uint16) << 8 | np.asarray(low) != key
        del image.info["transparency"]
        image.putalpha(Image.fromarray(seen.any(-1)).convert("L"))
    return image


def eight_bits(image: Image.Image) -> Image.Image:
    """The image, or one of mode L or LA of one whose samples are integers or floats of more bits.

    Raises ValueError where it is not known which number is white: beside 0 to 1 of floats, and of
    integers of 32 bits.
    """
    if image.mode == "La":  # multiplied by alpha, which Pillow converts to nothing else
        return image.convert("LA")
    if not image.mode.startswith(("I", "F")):
        return image
    samples = np.asarray(image)
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    bits = tags.get(BITS_PER_SAMPLE, (16,))[0]
    white = 1 if image.mode == "F" else 2**bits - 1
    if image.mode == "F":
        bytes_of_it = np.rint(samples * 255)
    elif bits > 16:
        raise ValueError("integers of 32 bits, of which it is not known which is white")
    else:
        bytes_of_it = samples // 257 if bits == 16 else np.rint(samples * (255 / white))
    if not ((bytes_of_it >= 0) & (bytes_of_it <= 255)).all():  # NaN too
        raise ValueError(f"samples beyond 0 to {white}, of which it is not known which is white")
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        bytes_of_it = 255 - bytes_of_it
    grey = Image.fromarray(bytes_of_it.astype(np.uint8))
    grey.info = image.info.copy()
    if (key := grey.info.pop("transparency", None)) is not None:
        grey.putalpha(Image.fromarray(samples != key).convert("L"))
    return grey
