"""A drawn world whose captions can be checked exactly.

Coloured shapes with a size, a count or a relation:

a large red star             大きい赤い星
three blue squares           青い四角が三つ
a red circle above a star…   緑の星の上に赤い丸
"""

import random
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

from flowbrush.data.source import Example
from flowbrush.errors import UserError
from flowbrush.randomness import derive

Relation = Literal["left", "right", "above", "below"]

COLOURS = {
    "red": ((220, 40, 45), "赤い"),
    "orange": ((250, 140, 30), "オレンジの"),
    "yellow": ((245, 215, 40), "黄色い"),
    "green": ((40, 160, 70), "緑の"),
    "blue": ((40, 90, 220), "青い"),
    "purple": ((135, 55, 175), "紫の"),
    "pink": ((255, 150, 200), "ピンクの"),
    "black": ((25, 25, 25), "黒い"),
}
SHAPES = {"circle": "丸", "square": "四角", "triangle": "三角", "star": "星", "cross": "十字"}
SIZES = {"small": (0.13, "小さい"), "medium": (0.19, ""), "large": (0.36, "大きい")}  # radius
COUNTS = {2: ("two", "二つ"), 3: ("three", "三つ"), 4: ("four", "四つ")}
RELATIONS: dict[Relation, tuple[str, str]] = {
    "left": ("to the left of", "左"),
    "right": ("to the right of", "右"),
    "above": ("above", "上"),
    "below": ("below", "下"),
}


@dataclass(frozen=True)
class Thing:
    """A shape; x, y of its centre and its size are shares of the picture's side."""

    shape: str
    colour: str
    size: str
    x: float
    y: float


@dataclass(frozen=True)
class Scene:
    """What is drawn. With a relation, the first of two things stands so to the second."""

    things: tuple[Thing, ...]
    relation: Relation | None = None

    def captions(self) -> dict[str, str]:
        """In English ("en") and Japanese ("ja")."""
        first = self.things[0]
        if self.relation is not None:
            english, japanese = RELATIONS[self.relation]
            subject, place = _named(first), _named(self.things[1])
            return {
                "en": f"a {subject[0]} {english} a {place[0]}".replace("a orange", "an orange"),
                "ja": f"{place[1]}の{japanese}に{subject[1]}",
            }
        named = _named(first)
        if len(self.things) > 1:
            english, japanese = COUNTS[len(self.things)]
            plural = f"{named[0]}es" if first.shape == "cross" else f"{named[0]}s"
            return {"en": f"{english} {plural}", "ja": f"{named[1]}が{japanese}"}
        size = SIZES[first.size][1]
        return {"en": f"a {first.size} {named[0]}", "ja": f"{size}{named[1]}"}


@dataclass(frozen=True, kw_only=True)
class ShapesWorldConfig:
    """How many scenes there are, of which kinds."""

    scenes: int = 100_000
    kinds: tuple[Literal["single", "count", "relation"], ...] = ("single", "count", "relation")
    seed: int = 0

    def __post_init__(self) -> None:
        if self.scenes < 1 or not self.kinds:
            raise UserError(
                "source: scenes must be 1 or more, and kinds must name at least one kind"
            )

    def build(self, size: int) -> "ShapesWorld":
        return ShapesWorld(self, size)


class ShapesWorld:
    """A Source that draws scene i when it is asked for; `truth` is the Scene."""

    def __init__(self, config: ShapesWorldConfig, size: int) -> None:
        self.config, self.size = config, size

    def __len__(self) -> int:
        return self.config.scenes

    def __getitem__(self, i: int) -> Example:
        rng = random.Random(derive(self.config.seed, "scene", i))
        scene = _SCENES[rng.choice(self.config.kinds)](rng)
        return Example(draw(scene, self.size), scene.captions(), truth=scene)

    @property
    def classes(self) -> tuple[str, ...]:
        return ()

    @property
    def attribution(self) -> str:
        return ""


def draw(scene: Scene, size: int) -> np.ndarray:
    """The scene on white ground, (size, size, 3) bytes, drawn four times as large and reduced."""
    side = 4 * size
    image = Image.new("RGB", (side, side), "white")
    pen = ImageDraw.Draw(image)
    for thing in scene.things:
        radius = SIZES[thing.size][0] * side
        corners = [
            (thing.x * side + radius * dx, thing.y * side + radius * dy)
            for dx, dy in _OUTLINES[thing.shape]
        ]
        if thing.shape == "circle":
            pen.ellipse(corners, fill=COLOURS[thing.colour][0])
        else:
            pen.polygon(corners, fill=COLOURS[thing.colour][0])
    return np.asarray(image.reduce(4))


def _ring(corners: int, radii: tuple[float, ...]) -> list[tuple[float, float]]:
    angles = [2 * np.pi * i / corners - np.pi / 2 for i in range(corners)]
    return [
        (float(np.cos(a) * radii[i % len(radii)]), float(np.sin(a) * radii[i % len(radii)]))
        for i, a in enumerate(angles)
    ]


_OUTLINES = {
    "circle": [(-0.9, -0.9), (0.9, 0.9)],  # the box around it
    "square": [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)],
    "triangle": [(x, y + 0.2) for x, y in _ring(3, (1.05,))],
    "star": _ring(10, (1.0, 0.42)),
    "cross": [
        (x * a + y * b, x * b - y * a)
        for a, b in ((1, 0), (0, 1), (-1, 0), (0, -1))
        for x, y in ((-0.3, 0.9), (0.3, 0.9), (0.3, 0.3))
    ],
}


def _named(thing: Thing) -> tuple[str, str]:
    return f"{thing.colour} {thing.shape}", f"{COLOURS[thing.colour][1]}{SHAPES[thing.shape]}"


def _look(rng: random.Random) -> tuple[str, str]:
    return rng.choice(list(SHAPES)), rng.choice(list(COLOURS))


def _inside(rng: random.Random, size: str) -> float:
    radius = SIZES[size][0] + 0.02
    return rng.uniform(radius, 1 - radius)


def _single(rng: random.Random) -> Scene:
    size = rng.choice(["small", "large"])
    return Scene((Thing(*_look(rng), size, _inside(rng, size), _inside(rng, size)),))


def _count(rng: random.Random) -> Scene:
    look, number = _look(rng), rng.choice(list(COUNTS))
    quarters = [(0.26, 0.26), (0.74, 0.26), (0.26, 0.74), (0.74, 0.74)]

    def near(place: float) -> float:
        return place + rng.uniform(-0.05, 0.05)

    places = rng.sample(quarters, number)
    return Scene(tuple(Thing(*look, "medium", near(x), near(y)) for x, y in places))


def _relation(rng: random.Random) -> Scene:
    relation = rng.choice(list(RELATIONS))
    subject = _look(rng)
    place = _look(rng)
    while place == subject:
        place = _look(rng)
    near, far = rng.uniform(0.22, 0.28), rng.uniform(0.72, 0.78)
    along = (near, far) if relation in ("left", "above") else (far, near)
    across = (rng.uniform(0.4, 0.6), rng.uniform(0.4, 0.6))
    if relation in ("left", "right"):
        spots = list(zip(along, across, strict=True))
    else:
        spots = list(zip(across, along, strict=True))
    things = (Thing(*subject, "medium", *spots[0]), Thing(*place, "medium", *spots[1]))
    return Scene(things, relation)


_SCENES = {"single": _single, "count": _count, "relation": _relation}
