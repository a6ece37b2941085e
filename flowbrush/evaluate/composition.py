"""Whether a model paints pairs of a concept and attributes that it has never seen together.

A painted picture counts as the pair of its nearest real picture, in pixels, among those of all
pairs, seen and unseen. A model that copies what it saw of a concept has no unseen pair right, and
a seen pair of the concept instead every time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from flowbrush.contact_sheet import contact_sheet
from flowbrush.data.emoji_variants import EmojiVariants, EmojiVariantsConfig, Variant
from flowbrush.data.part import Listed, Part
from flowbrush.data.source import Source, all_pictures, stacked
from flowbrush.errors import UserError
from flowbrush.evaluate.intervals import Measured, groups_of, of_share
from flowbrush.evaluate.spread import spread


@dataclass(frozen=True)
class Catalogue:
    """All pairs of a run's concepts, and their real pictures."""

    variants: tuple[Variant, ...]
    pictures: UInt8[Tensor, "m 3 H W"]

    def nearest(self, painted: UInt8[Tensor, "b _ _ _"]) -> list[Variant]:
        """The pair of the nearest picture, in squared pixel distance; the first of equal ones."""
        distance = torch.cdist(painted.flatten(1).double(), self.pictures.flatten(1).double())
        return [self.variants[i] for i in distance.argmin(dim=1).tolist()]


def catalogue(source: Source) -> Catalogue | None:
    """Of the emoji variants that a source, or a part of one, is taken from; None of any other."""
    while isinstance(source, Part | Listed):
        source = source.source
    if not isinstance(source, EmojiVariants):
        return None
    whole = replace(source.config, part="all").build(source.size)
    return Catalogue(whole.variants, all_pictures(whole))


def pairs(config: EmojiVariantsConfig, size: int, most: int = 0) -> Listed:
    """Unseen pairs, `most` of them evenly over all (0 = all), then as many seen ones.

    Raises UserError where the source has no unseen pair.
    """
    whole = replace(config, part="all").build(size)
    seen = [i for i, one in enumerate(whole.variants) if one.seen]
    unseen = [i for i, one in enumerate(whole.variants) if not one.seen]
    if not unseen:
        raise UserError("source.unseen: no pair is unseen; train with a larger share")
    count = min(most or len(unseen), len(unseen), len(seen))
    chosen = (group[i] for group in (unseen, seen) for i in spread(count, len(group)))
    return Listed(whole, tuple(chosen))


def composition(
    asked: Sequence[Variant], nearest: Sequence[Variant], among: Catalogue, kind: str
) -> list[Measured]:
    """The shares of right pairs, concepts and attributes, of unseen and of seen pairs.

    asked, nearest: what was asked for and what was painted, picture by picture. kind: of the
    captions, as a language. The intervals take the pairs of one concept together, as one group.
    """
    found: list[Measured] = []
    for name, seen in (("unseen", False), ("seen", True)):
        rows = [(a, n) for a, n in zip(asked, nearest, strict=True) if a.seen == seen]
        where = f"{name} pairs, {kind}"
        found += _share(f"right pair, {where}", rows, lambda a, n: a == n, among)
        found += _share(f"right concept, {where}", rows, lambda a, n: a.concept == n.concept, among)
        tones = _varying(rows, lambda variant: variant.tone, among)
        found += _share(f"right skin tone, {where}", tones, lambda a, n: a.tone == n.tone, among)
        genders = _varying(rows, lambda variant: variant.gender, among)
        found += _share(f"right gender, {where}", genders, lambda a, n: a.gender == n.gender, among)
        if not seen:
            what = f"a seen pair of the concept instead, {where}"
            found += _share(what, rows, _is_seen_instead, among, "lower")
    return found


def sheet(
    painted: UInt8[Tensor, "b 3 H W"], source: Source, kind: str, each: int = 24
) -> Image.Image:
    """`each` of the pictures painted of a source's first examples, evenly over all, each with its
    caption and the real one beside it."""
    chosen = spread(each, len(painted))
    examples = [source[i] for i in chosen]
    captions = [text for one in examples for text in (one.captions[kind], "real")]
    beside = torch.stack(
        [painted[chosen], stacked([one.picture for one in examples])], dim=1
    ).flatten(0, 1)
    return contact_sheet(beside, captions, cell=160)


Row = tuple[Variant, Variant]  # the pair asked for and the nearest one


def _varying(rows: list[Row], value: Callable[[Variant], str], among: Catalogue) -> list[Row]:
    """Those whose concept comes with several values of an attribute, so that it can be wrong."""
    there = {(one.concept, value(one)) for one in among.variants}
    concepts = [concept for concept, _ in there]
    return [row for row in rows if concepts.count(row[0].concept) > 1]


def _is_seen_instead(asked: Variant, nearest: Variant) -> bool:
    return nearest.seen and nearest.concept == asked.concept and nearest != asked


def _share(
    name: str,
    rows: Sequence[Row],
    test: Callable[[Variant, Variant], bool],
    among: Catalogue,
    better: Literal["lower", "higher"] = "higher",
) -> list[Measured]:
    if not rows:
        return []
    concepts, n = groups_of(asked.concept for asked, _ in rows), len(rows)
    share = of_share(torch.tensor([test(*row) for row in rows]), concepts)
    m = len(among.variants)
    chance = sum(test(asked, one) for asked, _ in rows for one in among.variants) / (n * m)
    by = f"the nearest of {m:,} real pictures; a random one: {chance:.4f}"
    if (distinct := len(concepts.unique())) < n:
        by += f"; {distinct:,} concepts"
    return [Measured(name, *share, n, by, better, "none")]
