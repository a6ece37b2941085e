"""ICC profiles for tests: made here, independently of those that `flowbrush.data.color` makes."""

import io
import struct

import numpy as np
from PIL import Image, ImageCms

Corners = tuple[tuple[float, float], ...]
P3: Corners = ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06))
ADOBE: Corners = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
PROPHOTO: Corners = ((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001))
D65, D50 = (0.3127, 0.329), (0.3457, 0.3585)


def numbers(values) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def icc(tags: dict[bytes, bytes], space: bytes) -> bytes:
    """A display's profile of version 2."""
    at, table, body = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for tag, data in tags.items():
        table += tag + struct.pack(">II", at + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I4xI4s4s4s", at + len(body), 0x02100000, b"mntr", space, b"XYZ ")
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    return (head + numbers((0.9642, 1, 0.8249))).ljust(128, b"\0") + table + body


def gamma_curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))


def rgb_profile(corners: Corners, white: tuple[float, float], gamma: float) -> bytes:
    """The white point is adapted to D50 by Bradford's matrix."""
    primaries = np.array([[x / y, 1, (1 - x - y) / y] for x, y in corners]).T
    at = np.array([white[0] / white[1], 1, (1 - sum(white)) / white[1]])
    cone = np.array(
        [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
    )
    scale = np.diag((cone @ [0.9642, 1, 0.8249]) / (cone @ at))
    matrix = np.linalg.inv(cone) @ scale @ cone @ (primaries * np.linalg.solve(primaries, at))
    tags = {b"wtpt": b"XYZ \0\0\0\0" + numbers((0.9642, 1, 0.8249))}
    for i, name in enumerate((b"r", b"g", b"b")):
        tags[name + b"XYZ"] = b"XYZ \0\0\0\0" + numbers(matrix[:, i])
        tags[name + b"TRC"] = gamma_curve(gamma)
    return icc(tags, b"RGB ")


def grey_profile(gamma: float) -> bytes:
    white = b"XYZ \0\0\0\0" + numbers((0.9642, 1, 0.8249))
    return icc({b"wtpt": white, b"kTRC": gamma_curve(gamma)}, b"GRAY")


WIDE = rgb_profile(P3, D65, 2.2)


def shown(image: Image.Image, profile: bytes) -> np.ndarray:
    """In sRGB, as littleCMS has it."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    srgb = ImageCms.createProfile("sRGB")
    found = ImageCms.profileToProfile(image, source, srgb, outputMode="RGB")
    return np.asarray(found).astype(int)
