"""Names that datasets give their columns, and the files that a path stands for."""

import glob
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Shaped

from flowbrush.data.source import LONGEST_CAPTION, IncompleteExample, UnreadablePicture
from flowbrush.errors import UserError, nearest

PICTURES = ("image", "jpg", "jpeg", "png", "webp", "img", "picture", "image_bytes")
LATENTS = ("latent", "latents", "moments", "vae_latent", "vae_latents")
ADDRESSES = ("url", "image_url", "URL")
SIDES = (("width", "height"), ("WIDTH", "HEIGHT"), ("original_width", "original_height"))
CAPTIONS = ("caption", "text", "TEXT", "alt_text", "alt-text", "prompt", "description")
SHORT_AND_LONG = {"short": "short_caption", "long": "long_caption"}  # JaxFM's


def caption_columns(given: Sequence[str], there: Sequence[str], where: str) -> dict[str, str]:
    """The column of each kind of captions; empty where none is given and none is known.

    given: columns, whose names are the kinds, or KIND=COLUMN. where: that has them, for errors.
    Raises UserError for a column that is not there, or a kind that is given twice.
    """
    if not given:
        pairs = {kind: column for kind, column in SHORT_AND_LONG.items() if column in there}
        return pairs or {column: column for column in CAPTIONS if column in there and not pairs}
    found: dict[str, str] = {}
    for text in given:
        kind, _, column = (text, "", text) if text in there else text.rpartition("=")
        kind = kind or column
        if kind in found:
            raise UserError(f"source.captions: {kind} is given twice; name it once")
        found[kind] = existing(column, there, where, "source.captions")
    return found


def aspects_of(
    width: Shaped[np.ndarray, " n"], height: Shaped[np.ndarray, " n"]
) -> Float32[np.ndarray, " n"]:
    """Width / height; NaN where either is missing or not above 0."""
    known = (width > 0) & (height > 0)
    found = np.full(len(width), np.nan, np.float32)
    return np.divide(width, height, out=found, where=known, casting="unsafe")


def existing(column: str, there: Sequence[str], where: str, field: str) -> str:
    """The column. Raises UserError where it is not there."""
    if column not in there:
        raise UserError(
            f"{field}: {where} has no column {column!r}, only {', '.join(there)}"
            f"{nearest(column, there)}"
        )
    return column


def captions_of(kinds: Mapping[str, str], read: Callable[[str], Any], name: str) -> dict[str, str]:
    """Those that a row has, by their kinds.

    kinds: to columns. read: a column -> what the row has there, or raises UnreadablePicture.
    Raises what `captions_from` raises.
    """

    def reader(kind: str, column: str) -> Callable[[], dict[str, str]]:
        return lambda: {kind: one_line(read(column), column, name)}

    return captions_from([(column, reader(kind, column)) for kind, column in kinds.items()], name)


def captions_from(
    readers: Iterable[tuple[str, Callable[[], dict[str, str]]]], name: str
) -> dict[str, str]:
    """Those that a row has, by their kinds.

    readers: of each column, what it gives; each raises IncompleteExample or UnreadablePicture.
    Raises IncompleteExample where the row has none, UnreadablePicture where those that it has are
    no captions.
    """
    found, missing, broken = dict[str, str](), list[str](), list[UnreadablePicture]()
    for column, read in readers:
        try:
            found |= read()
        except IncompleteExample:
            missing.append(column)
        except UnreadablePicture as error:
            broken.append(error)
    if not found and broken:
        raise broken[0]
    if not found:
        raise IncompleteExample(name, f"no caption in {', '.join(dict.fromkeys(missing))}")
    return found


def one_line(text: Any, column: str, name: str) -> str:
    """The caption in a row. Raises IncompleteExample where there is none, UnreadablePicture where
    it is no text, or too long."""
    if text is None or (isinstance(text, str) and not text.strip()):
        raise IncompleteExample(name, f"no caption in {column}")
    if not isinstance(text, str):
        raise UnreadablePicture(name, f"no caption, but a {type(text).__name__} in {column}")
    if len(text) > LONGEST_CAPTION:
        raise UnreadablePicture(name, too_long(column))
    return " ".join(text.split())


def too_long(column: str) -> str:
    return f"over {LONGEST_CAPTION:,} characters in {column}"


def first_readable(read: Callable[[int], Any], places: Iterable[int]) -> Any:
    """What `read` gives for the first place where it can. Raises the first UnreadablePicture."""
    broken: list[UnreadablePicture] = []
    for place in places:
        try:
            return read(place)
        except UnreadablePicture as error:
            broken.append(error)
    raise broken[0]


def files_of(path: Path, patterns: tuple[str, ...]) -> list[Path]:
    """A file, those of a folder and its subfolders with a name of the patterns, or those of a glob.

    In the order of their names. Raises UserError where there is none.
    """
    if path.is_file():
        return [path]
    if path.is_dir():
        inside = {found for pattern in patterns for found in path.rglob(pattern)}
        below = [p for p in inside if p.is_file()]
        files = [p for p in below if not any(n[0] == "." for n in p.relative_to(path).parts)]
    else:
        matches = glob.glob(str(path), recursive=True)  # noqa: PTH207 (it may begin anywhere)
        files = [Path(match) for match in matches if Path(match).is_file()]
    if not files:
        raise UserError(
            f"{path}: no {' or '.join(patterns)} there; give a file, a folder or a pattern with "
            "--source.path"
        )
    return sorted(files)
