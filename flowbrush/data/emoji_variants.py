"""Emoji that are drawn in several skin tones and both genders; some pairs are never learned.

    woman firefighter, dark skin tone        女性の消防士、濃い肌色

A pair is a concept (firefighter) and its attributes (dark skin, woman). Of an unseen pair the
concept is seen with other attributes and the attributes are seen of other concepts, so that a model
which composes can paint it. A neutral person is left out where there are a woman and a man: often
it is one of them to the pixel, and an unseen pair would have been seen under another name.
"""

from dataclasses import dataclass
from typing import Any, Literal

from flowbrush.data.emoji import SKIN_TONES, VARIATION, OpenMoji, named, plain, rank, svg
from flowbrush.data.source import Example
from flowbrush.errors import UserError
from flowbrush.randomness import derive

_JOINER = "\N{ZERO WIDTH JOINER}"
_SIGNS = {f"{_JOINER}♀": "woman", f"{_JOINER}♂": "man"}
_ADULTS = {"👩": "woman", "👨": "man"}
_PERSONS = {*_ADULTS, "🧑", "👧", "👦", "🧒"}
_ALONE = {  # a woman and a man that have code points of their own
    "🧒": {"woman": "👧", "man": "👦"},
    "🧓": {"woman": "👵", "man": "👴"},
    "🫅": {"woman": "👸", "man": "🤴"},
    "🫄": {"woman": "🤰", "man": "🫃"},
    f"🧑{_JOINER}🎄": {"woman": "🤶", "man": "🎅"},
}
_NEUTRAL = {one: (name, sex) for name, both in _ALONE.items() for sex, one in both.items()}
_COMMAS = {"ja": "、", "zh": "，"}


@dataclass(frozen=True)
class Variant:
    """A concept with its attributes: `truth` of an example.

    concept: the emoji without them (🧑‍🚒); tone: a skin tone's character, empty for the yellow of
    none; gender: "woman", "man" or empty; seen: whether the pair is learned.
    """

    concept: str
    tone: str
    gender: str
    seen: bool


@dataclass(frozen=True, kw_only=True)
class EmojiVariantsConfig:
    """Emoji with skin tones and genders; a share of the pairs is never learned."""

    concepts: int = 0  # how many; 0 = all (155)
    choice: int = 2831  # seed of the choice of concepts and of the unseen pairs
    attributes: tuple[Literal["tone", "gender"], ...] = ("tone", "gender")  # what varies
    languages: tuple[str, ...] = ("en", "ja")
    unseen: float = 0.2  # share of the pairs; which ones does not depend on `concepts`
    part: Literal["seen", "unseen", "all"] = "seen"

    def __post_init__(self) -> None:
        if not self.attributes:
            raise UserError("source.attributes: none; give tone, gender or both")
        if not 0 <= self.unseen < 1:
            raise UserError(f"source.unseen: {self.unseen}; it is a share in [0, 1)")

    def build(self, size: int) -> "EmojiVariants":
        """Raises UserError where a package is missing or a language unknown."""
        return EmojiVariants(self, size)


class EmojiVariants(OpenMoji):
    """A Source: one example a pair (1,432 at 32 px are 4 MB)."""

    def __init__(self, config: EmojiVariantsConfig, size: int) -> None:
        self.config, self.languages = config, config.languages
        drawn = _drawn(config)
        seen = _seen(config, {pair: rank(config.choice, pair[0]) for pair in drawn})
        concepts = sorted({pair[0] for pair in drawn}, key=lambda c: rank(config.choice, c))
        chosen = set(concepts[: config.concepts or None])
        kept = [
            pair
            for pair in sorted(drawn)
            if pair[0] in chosen and config.part in ("all", "seen" if pair in seen else "unseen")
        ]
        self.variants = tuple(Variant(*pair, seen=pair in seen) for pair in kept)
        self._drawn = [drawn[pair] for pair in kept]
        super().__init__([one.characters for one in self._drawn], size)

    def __len__(self) -> int:
        return len(self.variants)

    def __getitem__(self, i: int) -> Example:
        captions = {language: self._caption(i, language) for language in self.languages}
        return Example(self._pictures[i], captions, truth=self.variants[i])

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self._caption(i, self.languages[0]) for i in range(len(self)))

    def _caption(self, i: int, language: str) -> str:
        name, tone = self._drawn[i].names[language], self._drawn[i].tones[language]
        return f"{name}{_COMMAS.get(language, ', ')}{tone}" if tone else name


Pair = tuple[str, str, str]  # concept, tone, gender


@dataclass(frozen=True)
class _Drawn:
    """What a pair is drawn from, and its names by language: without its tone, and the tone's."""

    characters: str
    names: dict[str, str]
    tones: dict[str, str]


def _drawn(config: EmojiVariantsConfig) -> dict[Pair, _Drawn]:
    """All pairs of the concepts that vary in what the config names."""
    everything = named(config.languages)
    found: dict[Pair, tuple[str, dict[str, Any]]] = {}
    for characters, data in everything.items():
        pair = _parsed(characters)
        single = len(characters) <= 2  # one point and its selector, which files leave out
        file = characters.replace(VARIATION, "") if single else characters
        if pair is not None and svg(file) is not None:
            found[pair] = (file, data)
    gendered = {concept for concept, _, gender in found if gender}
    pairs = [
        (concept, tone, gender)
        for concept, tone, gender in found
        if (tone == "" or "tone" in config.attributes)
        and bool(gender) == ("gender" in config.attributes and concept in gendered)
        and (concept, "", gender) in found
    ]
    concepts = [concept for concept, _, _ in pairs]
    varied = {concept for concept in set(concepts) if concepts.count(concept) > 1}

    def words(data: dict[str, Any]) -> dict[str, str]:
        return {language: plain(data[language]) for language in config.languages}

    tones = {tone: words(everything[tone]) for tone in SKIN_TONES}
    tones[""] = dict.fromkeys(config.languages, "")
    return {
        (concept, tone, gender): _Drawn(
            found[concept, tone, gender][0], words(found[concept, "", gender][1]), tones[tone]
        )
        for concept, tone, gender in pairs
        if concept in varied
    }


def _parsed(characters: str) -> Pair | None:
    """The pair that an emoji shows; None for a tone itself, or several persons or tones."""
    plain_ones = characters.replace(VARIATION, "")
    tones = [one for one in plain_ones if one in SKIN_TONES]
    concept = "".join(one for one in plain_ones if one not in SKIN_TONES)
    if not concept or len(tones) > 1 or sum(one in _PERSONS for one in concept) > 1:
        return None
    tone, gender = "".join(tones), ""
    for sign, said in _SIGNS.items():
        if sign in concept:
            concept, gender = concept.replace(sign, ""), said
    if concept in _NEUTRAL:
        concept, gender = _NEUTRAL[concept]
    elif concept[0] in _ADULTS:
        concept, gender = f"🧑{concept[1:]}", _ADULTS[concept[0]]
    return concept, tone, gender


def _seen(config: EmojiVariantsConfig, ranks: dict[Pair, bytes]) -> set[Pair]:
    """The pairs that are learned: those whose hash is high enough, and two kinds more.

    The highest of each concept, and each attribute's pair with the concept of the first rank, which
    is among any number of concepts that have the attribute.
    """
    hashes = {pair: derive(config.choice, f"pair {' '.join(pair)}", 0) / 2**63 for pair in ranks}
    highest: dict[str, Pair] = {}
    first: dict[tuple[str, ...], Pair] = {}
    for pair in sorted(ranks, key=hashes.__getitem__):
        highest[pair[0]] = pair
    for pair in sorted(ranks, key=ranks.__getitem__, reverse=True):
        first[pair[1:]] = pair
    high = {pair for pair in ranks if hashes[pair] >= config.unseen}
    return high | {*highest.values()} | {*first.values()}
