"""Latents that were stored elsewhere, as examples hold them: float16, (h, w, s).

s is the number of the latents' channels, or twice as many where a posterior's mean and log-variance
are stored one after the other: the space tells which from the number.
"""

import io
import math
from typing import Literal

import numpy as np
from jaxtyping import Float16

from flowbrush.data.source import UnreadablePicture
from flowbrush.errors import UserError

Layout = Literal["auto", "chw", "hwc"]


def unpacked(data: bytes, shape: tuple[int, ...], name: str) -> np.ndarray:
    """Of bytes: those of an .npy file, or the plain numbers in 16 or 32 bits.

    Raises UnreadablePicture where they are neither, UserError where plain ones have no shape.
    """
    if data.startswith(b"\x93NUMPY"):
        try:
            return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
        except (ValueError, EOFError, MemoryError) as error:
            raise UnreadablePicture(name, f"a damaged .npy ({error})") from None
    count = math.prod(shaped(shape, name))
    if len(data) not in (2 * count, 4 * count):
        raise UnreadablePicture(name, f"{len(data):,} bytes for {count:,} numbers")
    return np.frombuffer(data, np.float16 if len(data) == 2 * count else np.float32)


def shaped(shape: tuple[int, ...], name: str) -> tuple[int, ...]:
    """The shape. Raises UserError where it is empty."""
    if not shape:
        raise UserError(f"{name}: latents without a shape; give it, as in --source.shape 16 32 32")
    return shape


def as_picture(
    array: np.ndarray, shape: tuple[int, ...], layout: Layout, name: str
) -> Float16[np.ndarray, "h w s"]:
    """shape: of latents that are stored flat; empty = theirs. Axes of length 1 in front go.

    Raises UnreadablePicture for numbers that 16 bits do not hold and for shapes that are no
    square; UserError where `auto` cannot tell which axis is the channels'.
    """
    if array.dtype.kind != "f":
        raise UnreadablePicture(name, f"latents of {array.dtype}, which is no floating point")
    if array.ndim == 1:
        shape = shaped(shape, name)
        if array.size != math.prod(shape):
            raise UnreadablePicture(name, f"{array.size:,} numbers for the shape {shape}")
        array = array.reshape(shape)
    while array.ndim > 3 and len(array) == 1:
        array = array[0]
    if array.ndim != 3:
        raise UnreadablePicture(name, f"latents of shape {array.shape}; three axes belong")
    first, second, third = array.shape
    if layout == "auto":
        if (first == second) == (second == third):
            raise UserError(
                f"{name}: latents of shape {array.shape}; say which axis is the channels' with "
                "--source.layout chw or hwc"
            )
        layout = "chw" if second == third else "hwc"
    if layout == "chw":
        array = array.transpose(1, 2, 0)
    if array.shape[0] != array.shape[1]:
        raise UnreadablePicture(name, f"latents of {array.shape[0]} x {array.shape[1]}, no square")
    with np.errstate(over="ignore"):
        small = array.astype(np.float16)
    if not np.isfinite(small).all():
        raise UnreadablePicture(name, "numbers that 16 bits do not hold")
    return small


def check_size(side: int, size: int, name: str) -> None:
    """Raises UserError where latents of this side are of no pictures of `size` pixels."""
    if not 0 < side <= size or size % side:
        raise UserError(
            f"size: {size} pixels, but {name} holds latents of {side} x {side}; give the size of "
            "the pictures that they were made of"
        )
