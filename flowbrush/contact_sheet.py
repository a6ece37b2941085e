"""Pictures with their captions, as one picture."""

import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from flowbrush.whole_files import written_whole

_FONT_PACKAGE, _FONT_FILE = "cvttf_NotoSansCJK_Regular", "NotoSansCJKtc-Regular.otf"
_INK, _GROUND = (40, 40, 40), (255, 255, 255)


def to_image(picture: UInt8[Tensor, "3 H W"]) -> Image.Image:
    return Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())


def save(image: Image.Image, path: Path) -> None:
    """Write a picture so that the file is the whole picture or not there. Makes its folder."""
    with written_whole(path) as aside:
        image.save(aside)


def contact_sheet(
    pictures: UInt8[Tensor, "b 3 H W"], captions: Sequence[str], columns: int = 8, cell: int = 128
) -> Image.Image:
    """Pictures in rows, each as large as fits `cell` pixels (small ones enlarged unsmoothed),
    captions below."""
    font = _font(13)
    lines = [_wrapped(caption, font, cell) for caption in captions]
    gap, text = 8, 18 * max(map(len, lines)) + 6
    rows, columns = -(-len(captions) // columns), min(columns, len(captions))
    size = columns * (cell + gap) + gap, rows * (cell + gap + text) + gap
    sheet = Image.new("RGB", size, _GROUND)
    pen = ImageDraw.Draw(sheet)
    for i, picture in enumerate(pictures):
        x = gap + i % columns * (cell + gap)
        y = gap + i // columns * (cell + gap + text)
        image = to_image(picture)
        longer = max(image.size)
        smooth = Image.Resampling.NEAREST if longer <= cell else Image.Resampling.LANCZOS
        width, height = (max(1, side * cell // longer) for side in image.size)
        place = x + (cell - width) // 2, y + (cell - height) // 2
        sheet.paste(image.resize((width, height), smooth), place)
        for j, line in enumerate(lines[i]):
            pen.text((x + cell / 2, y + cell + 2 + 18 * j), line, _INK, font, anchor="ma")
    return sheet


Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def font_file() -> Path | None:
    """Noto Sans CJK (OFL), which has the letters of every language that a caption may be in."""
    found = importlib.util.find_spec(_FONT_PACKAGE)
    if found is None or found.origin is None:
        return None
    return Path(found.origin).parent / _FONT_FILE


@cache
def _font(points: int) -> Font:
    file = font_file()
    return ImageFont.truetype(str(file), points) if file else ImageFont.load_default(points)


def _wrapped(caption: str, font: Font, width: int) -> list[str]:
    """At most three lines; breaks between words, or anywhere in a script without spaces."""
    lines = [""]
    for word in " ".join(caption.split()).replace(" ", " \0").split("\0"):
        for piece in [word] if font.getlength(word) <= width else list(word):
            if font.getlength((lines[-1] + piece).strip()) <= width:
                lines[-1] += piece
            else:
                lines.append(piece)
    if len(lines) > 3:
        lines = [*lines[:2], lines[2][:-1] + "…"]
    return [line.strip() for line in lines]
