"""Emoji of ten groups, sixteen of each: asked for by the group or by their own name.

    a picture of a fruit, 果物の絵        banana, バナナ

The groups are Unicode's subgroups (emoji-test.txt), or two or three of them together, and of these
what one would call so. The pictures are CC BY-SA 4.0: whatever shows them must carry `attribution`.
"""

from dataclasses import dataclass

from flowbrush.data.emoji import VARIATION, OpenMoji, named, plain
from flowbrush.data.source import Example

GROUPS = {
    ("a face", "顔"): "😀😃😄😁😆😅😂🙂😉😊😇😍🤩😘😋🤪",
    ("an animal", "動物"): "🐵🐶🐺🦊🦝🐱🦁🐯🐴🦄🦓🐮🐷🐭🐰🐼",
    ("a fruit", "果物"): "🍇🍈🍉🍊🍋🍌🍍🥭🍎🍏🍐🍑🍒🍓🥝🥥",
    ("a plant", "植物"): "🌸🪷🌹🌺🌻🌼🌷🌱🪴🌲🌳🌴🌵🍀🍁🍂",
    ("a vehicle", "乗り物"): "🚂🚃🚄🚌🚑🚒🚓🚕🚗🚙🛻🚚🚛🚜🏎🛵",
    ("clothes", "服"): "🥼🦺👔👕👖🧣🧤🧥🧦👗👘🩱🩳👚👟🥾",
    ("a heart", "ハート"): "💘💖💓💞💔❤🩷🧡💛💚💙🩵💜🤎🖤🩶",
    ("a building", "建物"): "🏛🛖🏠🏡🏢🏣🏤🏥🏦🏨🏪🏫🏭🏯🏰⛪",
    ("a hand", "手"): "👋🤚✋🖖🫱👌🤏✌🤞🤟🤘👈👇👍✊👊",
    ("a book", "本"): "📔📕📖📗📘📙📚📓📒📃📜📄📰🗞📑🔖",
}


@dataclass(frozen=True, kw_only=True)
class EmojiGroupsConfig:
    """Captions: sentences of the group (en, ja) and each emoji's own names (en-name, ja-name)."""

    def build(self, size: int) -> "EmojiGroups":
        """Raises UserError where a package is missing."""
        return EmojiGroups(size)


class EmojiGroups(OpenMoji):
    """A Source of 160 pictures; `truth` is the group's number."""

    def __init__(self, size: int) -> None:
        super().__init__("".join(GROUPS.values()), size)
        languages = ("en", "ja")
        names = {c.replace(VARIATION, ""): data for c, data in named(languages).items()}
        self.labels = [i for i, group in enumerate(GROUPS.values()) for _ in group]
        sentences = [{"en": f"a picture of {en}", "ja": f"{ja}の絵"} for en, ja in GROUPS]
        self._captions = [
            sentences[label] | {f"{kind}-name": plain(names[c][kind]) for kind in languages}
            for c, label in zip(self.characters, self.labels, strict=True)
        ]

    def __len__(self) -> int:
        return len(self.characters)

    def __getitem__(self, i: int) -> Example:
        return Example(self._pictures[i], self._captions[i], truth=self.labels[i])

    @property
    def classes(self) -> tuple[str, ...]:
        """The groups' captions in English."""
        return tuple(dict.fromkeys(captions["en"] for captions in self._captions))
