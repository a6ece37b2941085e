"""Whether a painted picture of shapes_world shows what its scene asks for, in the skills of GenEval
(Ghosh, Hajishirzi, Schmidt 2023, arXiv 2310.11513), with a reader in place of its detector.

The reader finds the patches of ink and explains each by synthesis: every shape, as the world itself
draws it, is laid where it has the patch's centre and area, then moved and scaled until it fits
best. Two things that touch are parted where two explain the ink far better than one.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image
from torch import Tensor

from flowbrush.data.shapes_world import COLOURS, SHAPES, SIZES, Relation, Scene, Thing, draw

UNCLEAR = "unclear"  # a shape that fits hardly better than another; a colour far from all
NOTHING = "nothing"  # what is read in a picture without things

GENEVAL = "single object", "two objects", "counting", "colours", "position", "colour attribution"
SKILLS = (*GENEVAL, "size")  # and one of our own

SIDE = 32  # a larger picture is reduced to this
GROUND = 200  # a pixel whose channels all reach this is ground
LEAST_GROUND = 0.1  # a picture with a smaller share of ground has nothing to read
INK = 55.0  # distance from the ground, of 442, at which ink begins: half of pink's
LEAST_AREA = 0.008  # share of the picture; a smaller patch is a speckle (a small star: 0.021)
FAR = 75.0  # a colour farther from all of COLOURS is unclear (the two nearest are 76 apart)
MARGIN = 0.01  # the least lead of the best shape over the next, as a share of the explained ink
VAGUE = 0.35  # the share of ink from which on what a shape leaves makes it unclear
POOR = 0.08  # the unexplained share from which more than one thing are tried
BETTER = 0.6  # several things must leave less than this of what one leaves
WIDTHS = (1.0, 2.0)  # a pixel's width, sharp and blurred
STEPS = np.array([0.35, 0.35, 0.06])  # in x, y and log radius, to both sides of where a fit begins

Rows = Float[np.ndarray, "H W 3"]
Mask = Bool[np.ndarray, "H W"]


# -- scoring


def relations(first: Thing, second: Thing) -> frozenset[Relation]:
    """How `first` stands to `second`, by GenEval's rule: none, one or two neighbouring ones.

    The offset of the centres, each axis shortened by a tenth of both extents, must keep more than
    half of the distance on that axis.
    """
    offset = np.array([first.x - second.x, first.y - second.y])
    slack = 0.1 * 2 * (SIZES[first.size][0] + SIZES[second.size][0])
    kept = np.sign(offset) * np.maximum(abs(offset) - slack, 0)
    x, y = kept / max(float(np.hypot(*offset)), 1e-9)
    ways: dict[Relation, float] = {"left": -x, "right": x, "above": -y, "below": y}
    return frozenset(name for name, way in ways.items() if way > 0.5)


def skills(scene: Scene, seen: Sequence[Thing]) -> dict[str, bool]:
    """The skills that a scene asks for, and whether what was seen shows them. Of one thing:

    "single object": there is exactly one thing, of the asked shape;
    "colours", "size": the shape is there, and every thing of it has the colour, or the size.

    Of a count, "counting": there are exactly so many things of the shape, in whatever colour.
    Of a relation:

    "two objects": both shapes are there (two of one, if they are the same), more is no fault;
    "position": both are there, and every pair of them stands as asked (`relations`); which is
    which is told by shape, and by colour too if the shapes are the same;
    "colour attribution": both are there in their colours, and no thing of these shapes has
    another look. A shape or colour that is UNCLEAR is none of those asked for.
    """
    first, shapes = scene.things[0], Counter(thing.shape for thing in seen)
    if scene.relation is not None:
        asked = {_look(thing) for thing in scene.things}
        names = Counter(thing.shape for thing in scene.things)
        return {
            "two objects": names <= shapes,
            "position": _placed(scene, seen),
            "colour attribution": asked == {_look(t) for t in seen if t.shape in names},
        }
    if len(scene.things) > 1:
        return {"counting": shapes[first.shape] == len(scene.things)}
    alike = [thing for thing in seen if thing.shape == first.shape]
    return {
        "single object": len(seen) == len(alike) == 1,
        "colours": {thing.colour for thing in alike} == {first.colour},
        "size": {thing.size for thing in alike} == {first.size},
    }


def _look(thing: Thing) -> tuple[str, str]:
    return thing.shape, thing.colour


def _placed(scene: Scene, seen: Sequence[Thing]) -> bool:
    told_by = (lambda t: t.shape) if len({t.shape for t in scene.things}) > 1 else _look
    first, second = ([t for t in seen if told_by(t) == told_by(one)] for one in scene.things)
    pairs = [(a, b) for a in first for b in second]
    return bool(pairs) and all(scene.relation in relations(a, b) for a, b in pairs)


def followed(scene: Scene, seen: Sequence[Thing]) -> bool:
    """Everything that the caption says is right, and nothing else is there.

    Sizes are asked of a single thing only: captions of other scenes do not tell them.
    """
    same = Counter(map(_look, seen)) == Counter(map(_look, scene.things))
    return same and all(skills(scene, seen).values())


@dataclass(frozen=True)
class Skill:
    """How often a skill was asked for and shown."""

    right: int
    asked: int

    @property
    def share(self) -> float:
        return self.right / self.asked

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's interval of the share, 95 % (JASA 1927)."""
        z2 = 1.959964**2
        middle = (self.right + z2 / 2) / (self.asked + z2)
        spread = math.sqrt(z2 * (self.right * (1 - self.share) + z2 / 4)) / (self.asked + z2)
        return max(0.0, middle - spread), min(1.0, middle + spread)


def tally(scenes: Sequence[Scene], seen: Sequence[Sequence[Thing]]) -> dict[str, Skill]:
    """Every skill that some scene asks for, in the order of SKILLS, and "followed" of all."""
    right: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    for scene, things in zip(scenes, seen, strict=True):
        shown = {**skills(scene, things), "followed": followed(scene, things)}
        asked.update(shown.keys())
        right.update(name for name, is_so in shown.items() if is_so)
    return {name: Skill(right[name], asked[name]) for name in (*SKILLS, "followed") if asked[name]}


def score(pictures: UInt8[Tensor, "b 3 H H"], scenes: Sequence[Scene]) -> dict[str, Skill]:
    """`tally` of painted pictures. scenes: the truth of the examples whose captions they had."""
    return tally(scenes, [read(picture) for picture in pictures])


def confusion(
    scenes: Sequence[Scene], seen: Sequence[Sequence[Thing]], by: Literal["shape", "colour"]
) -> dict[str, Counter[str]]:
    """How often each asked shape or colour was read as which: every thing counts; NOTHING where
    there was none. Scenes with a relation are left out: which of two wrong things stands for which
    is anybody's guess.
    """
    names: Sequence[str] = list(SHAPES if by == "shape" else COLOURS)
    table: dict[str, Counter[str]] = {name: Counter() for name in names}
    for scene, things in zip(scenes, seen, strict=True):
        if scene.relation is None:
            asked = getattr(scene.things[0], by)
            table[asked].update([getattr(thing, by) for thing in things] or [NOTHING])
    return table


# -- reading


def read(picture: UInt8[Tensor, "3 H H"]) -> tuple[Thing, ...]:
    """The things in a picture, from left to right; the same bytes give the same things.

    Shape and colour may be UNCLEAR; the size is the nearest of SIZES, by ratio. A picture without
    nearly white ground has none.
    """
    image = Image.fromarray(picture.permute(1, 2, 0).contiguous().cpu().numpy())
    if image.width > SIDE:
        image = image.resize((SIDE, SIDE), Image.Resampling.BOX)
    rows = np.asarray(image, np.float64)
    white = rows.min(axis=2) >= GROUND
    if white.mean() < LEAST_GROUND:
        return ()
    ground = rows[white].mean(axis=0)
    ink = rows - ground
    least = max(1, math.ceil(LEAST_AREA * white.size))
    patches = list(_patches(_inked(ink, 0.5), least))
    owners = _owners(patches, np.ones_like(white), rounds=2)
    fits: list[_Fit] = []
    for number, patch in enumerate(patches, start=1):
        mine = owners == number
        fits += _one_or_more(ink, patch, mine, mine | (owners == 0), least)
    fits.sort(key=lambda fit: tuple(fit.place))
    return tuple(fit.thing(ground, len(rows)) for fit in fits)


class _Fit(NamedTuple):
    """The shape that explains a patch best: x, y and log radius in pixels, its ink in bytes, and
    how much of the patch's energy (squares) it leaves unexplained."""

    shape: str
    place: Float[np.ndarray, "3"]
    ink: Float[np.ndarray, "3"]
    energy: float
    left: float

    def thing(self, ground: Float[np.ndarray, "3"], side: int) -> Thing:
        radius = self.place[2] - math.log(side)
        size = min(SIZES, key=lambda name: abs(radius - math.log(SIZES[name][0])))
        far = {name: math.dist(ground + self.ink, rgb) for name, (rgb, _) in COLOURS.items()}
        colour = min(far, key=far.__getitem__)
        x, y = (float(middle) / side for middle in self.place[:2])
        return Thing(self.shape, colour if far[colour] <= FAR else UNCLEAR, size, x, y)


def _inked(ink: Rows, share: float) -> Mask:
    """Pixels with at least `share` of the strongest ink within two pixels."""
    strength = np.linalg.norm(ink, axis=2)
    around = np.lib.stride_tricks.sliding_window_view(np.pad(strength, 2), (5, 5))
    return (strength >= INK) & (strength >= share * around.max(axis=(2, 3)))


def _patches(mask: Mask, least: int) -> Iterator[Mask]:
    """The 4-connected parts of at least `least` pixels. A mask is one long integer here."""
    bits = np.pad(mask, ((0, 0), (0, 1)))  # an empty column keeps rows apart
    step, length = bits.shape[1], (bits.size + 7) // 8
    rest = int.from_bytes(np.packbits(bits, bitorder="little").tobytes(), "little")
    while rest:
        part, grown = 0, rest & -rest
        while grown != part:
            part = grown
            grown = (part | part << 1 | part >> 1 | part << step | part >> step) & rest
        rest ^= part
        if part.bit_count() >= least:
            flat = np.frombuffer(part.to_bytes(length, "little"), np.uint8)
            flat = np.unpackbits(flat, count=bits.size, bitorder="little")
            yield flat.reshape(bits.shape)[:, :-1].astype(bool)


def _beside(pixels: np.ndarray) -> np.ndarray:
    """The four neighbours of each pixel, (4, H, W); 0 outside."""
    wide = np.pad(pixels, 1)
    return np.stack([wide[:-2, 1:-1], wide[2:, 1:-1], wide[1:-1, :-2], wide[1:-1, 2:]])


def _owners(patches: Sequence[Mask], within: Mask, rounds: int) -> Int[np.ndarray, "H W"]:
    """1 in the first patch, 2 in the second; 0 is nobody's. They grow `rounds` pixels `within`."""
    owners = np.zeros(within.shape, np.int64)
    for number, patch in enumerate(patches, start=1):
        owners[patch] = number
    for _ in range(rounds):
        before, owners = owners, np.where(owners, owners, _beside(owners).max(axis=0) * within)
        if (before == owners).all():
            break
    return owners


def _one_or_more(ink: Rows, patch: Mask, mine: Mask, free: Mask, least: int) -> list[_Fit]:
    """A patch as a thing, or as several. mine: with its seam; free: where shapes may lie."""
    one = _fit(ink, patch, mine, free)
    if one.left < POOR * one.energy:
        return [one]
    best, left = [one], BETTER * one.left
    for parts in _partings(ink, patch, least):
        owners = _owners(parts, patch, ink.size)
        parts = [owners == number for number in range(1, len(parts) + 1)]
        if len(parts) > 1 and min(part.sum() for part in parts) >= least:
            owners = _owners(parts, mine, 2)
            owned = [owners == number for number in range(len(parts) + 1)]
            fits = [
                _fit(ink, part, own, free & (own | owned[0]))
                for part, own in zip(parts, owned[1:], strict=True)
            ]
            if (leave := sum(fit.left for fit in fits)) < left:
                best, left = fits, leave
    return best


def _partings(ink: Rows, patch: Mask, least: int) -> Iterator[list[Mask]]:
    """Ways to take a patch for several: where ink is thin, where it is narrow, by colour."""
    for share in (0.65, 0.8):
        yield list(_patches(patch & _inked(ink, share), max(2, least // 2)))
    core = patch
    for _ in range(3):
        core = core & _beside(core).all(axis=0)
        yield list(_patches(core, 2))
    colours = np.array([colour for colour, _ in COLOURS.values()]) - 255.0
    nearest = ((ink[:, :, None] - colours) ** 2).sum(axis=3).argmin(axis=2)
    names = np.unique(nearest[patch])
    yield [part for name in names for part in _patches(patch & (nearest == name), least)]


# -- synthesis


class _Outlines(NamedTuple):
    """The shapes, drawn large. sums: the ink above and left of each corner of a pixel; radius and
    middle in pixels; area in squared radii; low: the centre of the ink under the centre, in radii.
    """

    sums: Float[np.ndarray, "shapes n n"]
    radius: float
    middle: float
    area: Float[np.ndarray, " shapes"]
    low: Float[np.ndarray, " shapes"]


@cache
def _outlines() -> _Outlines:
    side, reach = 512, 210
    radius, near = SIZES["large"][0] * side, slice(side // 2 - reach, side // 2 + reach)
    drawn = [draw(Scene((Thing(shape, "black", "large", 0.5, 0.5),)), side) for shape in SHAPES]
    ink = (255.0 - np.stack(drawn)[:, near, near, 0]) / (255 - COLOURS["black"][0][0])
    area = ink.sum(axis=(1, 2))
    low = ink.sum(axis=2) @ (np.arange(2 * reach) + 0.5 - reach) / area / radius
    sums = np.pad(ink.cumsum(axis=1).cumsum(axis=2), ((0, 0), (1, 0), (1, 0)))
    return _Outlines(sums, radius, float(reach), area / radius**2, low)


def _laid(
    shapes: Int[np.ndarray, " k"],
    places: Float[np.ndarray, "k 3"],
    widths: Float[np.ndarray, " k"],
    window: tuple[slice, slice],
    free: Mask,
) -> Float[np.ndarray, "k n"]:
    """How much of each free pixel of a window, row by row, the shapes cover. places: x, y of the
    centre, log radius. widths: of a pixel; above 1 it blurs."""
    out = _outlines()
    corners, scales = out.sums.shape[1], out.radius / np.exp(places[:, 2:])
    halves, spots = widths[:, None] / 2, []
    for pixels, axis in zip(window, (1, 0), strict=True):
        middles = np.arange(pixels.start, pixels.stop) + 0.5 - places[:, axis, None]
        edges = np.concatenate([middles - halves, middles + halves], axis=1) * scales + out.middle
        spots.append(np.minimum(np.maximum(np.rint(edges).astype(np.int64), 0), corners - 1))
    down = (shapes[:, None] * corners + spots[0]) * corners
    sums = out.sums.ravel().take(down[:, :, None] + spots[1][:, None, :])
    h, w = free[window].shape
    inside = sums[:, h:, w:] - sums[:, :h, w:] - sums[:, h:, :w] + sums[:, :h, :w]
    return (inside * free[window]).reshape(-1, h * w) / (2 * halves * scales) ** 2


def _left(laid: Float[np.ndarray, "k n"], ink: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " k"]:
    """The energy of the ink that each shape leaves unexplained in the colour that suits it best."""
    return (ink**2).sum() - ((laid @ ink) ** 2).sum(axis=1) / np.maximum(
        (laid**2).sum(axis=1), 1e-9
    )


def _fit(ink: Rows, patch: Mask, mine: Mask, free: Mask) -> _Fit:
    """The shape that explains a patch best, each in its best place and with its best ink.

    mine: where the patch's ink is; free: where a shape may lie. Each shape begins with the patch's
    centre and area; the best three then move to the vertex of a parabola in x, y and log radius.
    """
    spots = np.argwhere(mine)
    corner = np.maximum(spots.min(axis=0) - 2, 0)
    end = np.minimum(spots.max(axis=0) + 3, patch.shape)
    window = slice(corner[0], end[0]), slice(corner[1], end[1])
    target = ink[window] * mine[window][..., None]
    inks, count = target.reshape(-1, 3), len(SHAPES)

    places = _begun(target, patch[window])
    places[:, :2] += corner[::-1]
    both = np.tile(np.arange(count), 2), np.tile(places, (2, 1)), np.repeat(WIDTHS, count)
    tried = _left(_laid(*both, window, free), inks).reshape(2, count)
    widths, lefts = np.take(WIDTHS, tried.argmin(axis=0)), tried.min(axis=0)

    few = np.argsort(lefts, kind="stable")[:3]
    moved = (places[few] + np.concatenate([np.diag(STEPS), -np.diag(STEPS)])[:, None]).reshape(
        -1, 3
    )
    around = _laid(np.tile(few, 6), moved, np.tile(widths[few], 6), window, free)
    ahead, behind = _left(around, inks).reshape(2, 3, 3)
    bend = np.maximum(ahead + behind - 2 * lefts[few], 1e-9)
    mended = places[few] + np.clip((behind - ahead) / (2 * bend), -1.5, 1.5).T * STEPS
    after = _left(_laid(few, mended, widths[few], window, free), inks)
    better = after < lefts[few]
    places[few[better]], lefts[few[better]] = mended[better], after[better]

    best, second = np.argsort(lefts, kind="stable")[:2]
    one = slice(best, best + 1)
    laid = _laid(np.arange(count)[one], places[one], widths[one], window, free)[0]
    energy, left = float((inks**2).sum()), float(lefts[best])
    sure = lefts[second] - left >= MARGIN * (energy - left) and left < VAGUE * energy
    shape = list(SHAPES)[best] if sure else UNCLEAR
    return _Fit(shape, places[best], laid @ inks / max(laid @ laid, 1e-9), energy, left)


def _begun(target: Rows, patch: Mask) -> Float[np.ndarray, "shapes 3"]:
    """x, y and log radius at which each shape has the centre and the area of the ink."""
    strength = (target[patch] ** 2).sum(axis=1)
    strong = target[patch][strength >= np.median(strength)].mean(axis=0)
    share = target @ strong / max(float(strong @ strong), 1.0)
    area = max(float(share.sum()), 1.0)
    out = _outlines()
    radius = np.sqrt(area / out.area)
    y, x = (share.sum(axis=1 - a) @ (np.arange(n) + 0.5) / area for a, n in enumerate(share.shape))
    return np.stack([np.full_like(radius, x), y - out.low * radius, np.log(radius)], axis=1)
