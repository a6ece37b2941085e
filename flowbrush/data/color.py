"""Colors as they look: an image becomes sRGB by what it says of its colors.

That is an ICC profile, or numbers in its place: cICP of a PNG and nclx of an AVIF, gAMA and cHRM of
a PNG, Adobe RGB of a camera's EXIF. An image that says nothing, or sRGB, keeps its bytes.
"""

import io
import struct
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import ExifTags, Image, ImageCms

CLOSE = 2  # of 255: a profile that changes no color by more is sRGB
GREY = ("1", "L", "LA")
ALPHA = ("LA", "PA", "RGBA")
SPACES = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}  # in an ICC profile: Pillow's mode
MOST_PROFILES = 16  # kept; a profile of a printing press is 3 MB

APP2, PIXELS = 0xE2, (0xD8, 0xD9, 0xDA)  # segments of a JPEG
MARKER = b"ICC_PROFILE\0"

HDR = {16, 18}  # PQ and HLG in H.273, whose brightest color is no white
UNTOLD = 2  # in H.273
GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0}  # of H.273; what it calls BT.709 is shown as sRGB
Point = tuple[float, float]  # x, y of CIE 1931
D65: Point = (0.3127, 0.329)
SRGB = ((0.64, 0.33), (0.3, 0.6), (0.15, 0.06))
ADOBE_RGB = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
DISPLAY_P3 = ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06))
PRIMARIES = {  # of H.273
    5: (((0.64, 0.33), (0.29, 0.6), (0.15, 0.06)), D65),
    6: (((0.63, 0.34), (0.31, 0.595), (0.155, 0.07)), D65),
    9: (((0.708, 0.292), (0.17, 0.797), (0.131, 0.046)), D65),
    11: (DISPLAY_P3, (0.314, 0.351)),
    12: (DISPLAY_P3, D65),
}
PRIMARIES[7] = PRIMARIES[6]
INTEROPERABILITY, ADOBE_INDEX = 1, "R03"  # of EXIF: how a camera says Adobe RGB
SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)  # (a x + b) ** g from d, or c x
BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
D50 = np.array([0.9642, 1.0, 0.8249])  # XYZ of a profile's white


class Space(NamedTuple):
    """An RGB space. gamma: of its curve; None = that of sRGB."""

    primaries: tuple[Point, Point, Point] = SRGB
    white: Point = D65
    gamma: float | None = None


def to_srgb(image: Image.Image) -> Image.Image:
    """An image of 8 bits a sample as RGB, or as RGBA where it has any transparency.

    Its `info` may say "cicp": its primaries and transfer function as numbers of H.273.
    Raises ValueError for HDR, of which 8 bits would be another image. A damaged profile is ignored.
    """
    transparent = image.mode in ALPHA or "transparency" in image.info
    space = "L" if image.mode in GREY else "CMYK" if image.mode == "CMYK" else "RGB"
    transform = _transform_of(image, space)
    if not transform:
        return image.convert("RGBA" if transparent else "RGB")
    alpha = image.convert("RGBA").getchannel("A") if transparent else None
    converted = transform.apply(image.convert(transform.input_mode))
    if alpha:
        converted.putalpha(alpha)
    return converted


def note_colors(image: Image.Image, encoded: bytes) -> None:
    """Puts into `info` what the file says of its colors beside what Pillow has put there."""
    if image.format == "PNG":
        at = encoded.find(b"\0\0\0\4cICP", 0, max(0, encoded.find(b"IDAT"))) + 8
        if at >= 8:
            image.info["cicp"] = (encoded[at], encoded[at + 1])
    elif image.format == "AVIF":
        at = encoded.find(b"colrnclx") + 8
        if at >= 8:
            image.info["cicp"] = struct.unpack_from(">HH", encoded, at)
    elif image.format == "JPEG2000":
        at = encoded.find(b"colr\2") - 4
        if at >= 0:
            size = int.from_bytes(encoded[at : at + 4], "big")
            image.info["icc_profile"] = encoded[at + 11 : at + size]


def jpeg_profile(encoded: bytes) -> bytes | None:
    """The ICC profile of a JPEG, as Pillow finds it."""
    if MARKER not in encoded:
        return None
    at, parts = 2, []
    while encoded[at : at + 1] == b"\xff" and encoded[at + 1] not in PIXELS:
        end = at + 2 + int.from_bytes(encoded[at + 2 : at + 4], "big")
        if encoded[at + 1] == APP2 and encoded.startswith(MARKER, at + 4):
            parts.append(encoded[at + 4 + len(MARKER) : end])
        at = end
    parts.sort()  # each begins with its number, and how many there are
    complete = parts and parts[0][1:2] == bytes([len(parts)])
    return b"".join(part[2:] for part in parts) if complete else None


def _transform_of(image: Image.Image, space: str) -> ImageCms.ImageCmsTransform | None:
    """None where the image is sRGB already, or its profile cannot be applied to it."""
    profile = image.info.get("icc_profile")
    primaries, transfer = image.info.get("cicp", (UNTOLD, UNTOLD))
    if HDR & {transfer, _transfer(profile or b"")}:
        raise ValueError("HDR (PQ or HLG), of which 8 bits would be another image")
    if primaries in PRIMARIES or transfer in GAMMAS:
        corners, white = PRIMARIES.get(primaries, (SRGB, D65))
        profile = _profile(Space(corners, white, GAMMAS.get(transfer)))
    elif not profile and (told := _told(image)):
        profile = _profile(told)
    return _transform(profile, space) if profile else None


def _told(image: Image.Image) -> Space | None:
    """What gAMA and cHRM of a PNG say, or the EXIF of a camera."""
    if "srgb" in image.info:
        return None
    gamma, points = image.info.get("gamma"), image.info.get("chromaticity")
    if gamma or points:
        x = points or (*D65, *SRGB[0], *SRGB[1], *SRGB[2])
        corners = ((x[2], x[3]), (x[4], x[5]), (x[6], x[7]))
        gamma = gamma or 1 / 2.2
        of_srgb = abs(gamma * 2.2 - 1) < 0.05
        return Space(corners, (x[0], x[1]), None if of_srgb else 1 / gamma)
    try:
        exif = image.getexif() if "exif" in image.info else Image.Exif()
        adobe = exif.get_ifd(ExifTags.IFD.Interop).get(INTEROPERABILITY) == ADOBE_INDEX
    except Exception:  # of damaged EXIF, nearly any
        return None
    return Space(ADOBE_RGB, gamma=563 / 256) if adobe else None


@lru_cache(MOST_PROFILES)
def _transform(profile: bytes, space: str) -> ImageCms.ImageCmsTransform | None:
    """From images of a mode to sRGB; None for sRGB, what is damaged or is for other images."""
    of = SPACES.get(profile[16:20], "")
    if of != space and (of, space) != ("RGB", "L"):
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        made = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), of, "RGB")
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return None
    if of == "CMYK":
        return made
    levels = np.linspace(0, 255, 18).astype(np.uint8)  # 18 ** 3 colors
    sample = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)
    asked = Image.fromarray(sample).convert(of)
    moved = np.asarray(made.apply(asked)).astype(int) - np.asarray(asked.convert("RGB"))
    return made if abs(moved).max() > CLOSE else None


def _transfer(profile: bytes) -> int:
    """What the tag cicp of a profile says; 0 without one."""
    at = profile.find(b"cicp\0\0\0\0")
    return profile[at + 9] if 0 <= at < len(profile) - 9 else 0


@lru_cache(MOST_PROFILES)
def _profile(space: Space) -> bytes:
    """An ICC profile; empty where the numbers make none."""
    try:
        matrix, gamma = _to_d50(space), space.gamma
    except (ZeroDivisionError, np.linalg.LinAlgError):
        return b""
    if not np.isfinite(matrix).all() or abs(matrix).max() > 100 or not 0.1 < (gamma or 1) < 10:
        return b""
    kind, numbers = (3, SRGB_CURVE) if gamma is None else (0, (gamma,))
    curve = struct.pack(">4s4xHxx", b"para", kind) + _fixed(numbers)
    tags = {b"wtpt": b"XYZ \0\0\0\0" + _fixed(D50.tolist())}
    for i, name in enumerate((b"r", b"g", b"b")):
        tags[name + b"XYZ"] = b"XYZ \0\0\0\0" + _fixed(matrix[:, i].tolist())
        tags[name + b"TRC"] = curve
    at, table, body = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += struct.pack(">4sII", name, at + len(body), len(data))
        body += data
    head = struct.pack(">I4xI4s4s4s", at + len(body), 0x04000000, b"mntr", b"RGB ", b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + _fixed(D50.tolist())
    return head.ljust(128, b"\0") + table + body


def _to_d50(space: Space) -> Float[np.ndarray, "3 3"]:
    """From linear RGB to XYZ that is adapted to D50."""
    corners = np.array([_xyz(point) for point in space.primaries]).T
    white = _xyz(space.white)
    matrix = corners * np.linalg.solve(corners, white)
    cones = np.diag((BRADFORD @ D50) / (BRADFORD @ white))
    return np.linalg.inv(BRADFORD) @ cones @ BRADFORD @ matrix


def _xyz(point: Point) -> Float[np.ndarray, "3"]:
    x, y = point
    return np.array([x / y, 1.0, (1 - x - y) / y])


def _fixed(numbers: Iterable[float]) -> bytes:
    """As s15Fixed16Number."""
    return b"".join(struct.pack(">i", round(number * 65536)) for number in numbers)
