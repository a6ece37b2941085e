"""The drawn world: captions, truth and picture agree."""

import itertools
import math

import numpy as np
import pytest

from flowbrush.data.shapes_world import (
    COLOURS,
    RELATIONS,
    SHAPES,
    SIZES,
    Scene,
    ShapesWorldConfig,
    Thing,
    draw,
)
from flowbrush.errors import UserError

SIDE = 64


def world(*kinds: str, scenes: int = 200, seed: int = 0, size: int = SIDE) -> list:
    source = ShapesWorldConfig(scenes=scenes, kinds=kinds, seed=seed).build(size)
    return [source[i] for i in range(scenes)]


@pytest.fixture(scope="module")
def examples() -> dict[str, list]:
    return {kind: world(kind) for kind in ("single", "count", "relation")}


@pytest.fixture(scope="module")
def everything(examples) -> list:
    return [example for kind in examples.values() for example in kind]


def thing(shape: str, colour: str, size: str = "medium", x: float = 0.5, y: float = 0.5) -> Thing:
    return Thing(shape, colour, size, x, y)


# -- where an example comes from


def test_an_example_does_not_depend_on_what_was_asked_before():
    long, short = (ShapesWorldConfig(scenes=n).build(16) for n in (1000, 10))
    backwards = [long[i] for i in reversed(range(10))][::-1]
    assert [e.truth for e in backwards] == [short[i].truth for i in range(10)]
    assert all((e.picture == short[i].picture).all() for i, e in enumerate(backwards))


def test_the_size_in_pixels_does_not_change_the_scene():
    small, large = (ShapesWorldConfig().build(size) for size in (8, 32))
    assert [small[i].truth for i in range(20)] == [large[i].truth for i in range(20)]


def test_another_seed_is_another_world():
    first, second = (ShapesWorldConfig(seed=seed).build(8) for seed in (0, 1))
    assert [first[i].truth for i in range(20)] != [second[i].truth for i in range(20)]


def test_it_is_as_long_as_asked():
    assert len(ShapesWorldConfig(scenes=17).build(8)) == 17


@pytest.mark.parametrize("wrong", [{"scenes": 0}, {"kinds": ()}])
def test_a_world_of_nothing_is_refused(wrong):
    with pytest.raises(UserError, match="source"):
        ShapesWorldConfig(**wrong)


# -- what scenes there are


def test_a_single_is_one_thing_small_or_large(examples):
    assert {len(e.truth.things) for e in examples["single"]} == {1}
    assert {e.truth.things[0].size for e in examples["single"]} == {"small", "large"}


def test_every_shape_and_every_colour_occurs(examples):
    singles = [e.truth.things[0] for e in examples["single"]]
    assert {one.shape for one in singles} == set(SHAPES)
    assert {one.colour for one in singles} == set(COLOURS)


def test_a_count_is_two_three_or_four_of_one_look(examples):
    assert {len(e.truth.things) for e in examples["count"]} == {2, 3, 4}
    assert all(len({(t.shape, t.colour) for t in e.truth.things}) == 1 for e in examples["count"])


def test_the_number_in_the_caption_is_the_number_of_things(examples):
    words, signs = {"two": 2, "three": 3, "four": 4}, {"二つ": 2, "三つ": 3, "四つ": 4}
    for example in examples["count"]:
        english, japanese = example.captions["en"], example.captions["ja"]
        assert words[english.split()[0]] == len(example.truth.things)
        assert signs[japanese[-2:]] == len(example.truth.things)


def test_every_relation_occurs(examples):
    assert {e.truth.relation for e in examples["relation"]} == set(RELATIONS)


@pytest.mark.parametrize(
    ("relation", "holds"),
    [
        ("left", lambda a, b: a.x < b.x - 0.4),
        ("right", lambda a, b: a.x > b.x + 0.4),
        ("above", lambda a, b: a.y < b.y - 0.4),
        ("below", lambda a, b: a.y > b.y + 0.4),
    ],
)
def test_a_relation_holds_between_the_things(examples, relation, holds):
    scenes = [e.truth for e in examples["relation"] if e.truth.relation == relation]
    assert all(holds(*scene.things) for scene in scenes)


@pytest.mark.parametrize("axis", ["x", "y"])
def test_things_of_a_relation_are_level_across_it(examples, axis):
    level = {"x": ("above", "below"), "y": ("left", "right")}[axis]
    scenes = [e.truth for e in examples["relation"] if e.truth.relation in level]
    assert all(abs(getattr(s.things[0], axis) - getattr(s.things[1], axis)) < 0.21 for s in scenes)


def test_both_things_of_a_relation_are_never_alike(examples):
    pairs = [e.truth.things for e in examples["relation"]]
    assert all((a.shape, a.colour) != (b.shape, b.colour) for a, b in pairs)


def test_things_do_not_overlap(everything):
    for example in everything:
        for a, b in itertools.combinations(example.truth.things, 2):
            reach = SIZES[a.size][0] + SIZES[b.size][0]
            assert math.hypot(a.x - b.x, a.y - b.y) > reach - 1e-9


# -- what is drawn


def test_pictures_are_bytes_of_the_size():
    picture = world("single", scenes=1, size=12)[0].picture
    assert (picture.shape, picture.dtype) == ((12, 12, 3), np.uint8)


def test_each_thing_is_drawn_in_its_colour_at_its_centre(everything):
    for example in everything:
        for one in example.truth.things:
            pixel = example.picture[int(one.y * SIDE), int(one.x * SIDE)].astype(int)
            assert abs(pixel - COLOURS[one.colour][0]).max() <= 2


def test_things_stay_inside_the_picture(everything):
    for example in everything:
        rim = [example.picture[side] for side in (0, -1)]
        rim += [example.picture[:, side] for side in (0, -1)]
        assert (np.stack(rim) == 255).all()


@pytest.mark.parametrize(
    ("shape", "area"),
    [
        ("circle", math.pi * 0.9**2),
        ("square", 1.6**2),
        ("triangle", 3 * math.sqrt(3) / 4 * 1.05**2),
        ("star", 10 * 0.5 * 0.42 * math.sin(math.pi / 5)),
        ("cross", 2 * 1.8 * 0.6 - 0.6**2),
    ],
)
@pytest.mark.parametrize("size", ["medium", "large"])
def test_a_shape_covers_its_area(shape, area, size):
    picture = draw(Scene((thing(shape, "black", size),)), SIDE)
    ink = float(((255 - picture.astype(float)) / 230).mean())
    assert ink == pytest.approx(area * SIZES[size][0] ** 2, rel=0.06)


def test_x_runs_to_the_right_and_y_down():
    picture = draw(Scene((thing("circle", "red", "small", x=0.75, y=0.25),)), SIDE)
    assert (picture[:32, 32:] < 100).any()
    assert (picture[32:] == 255).all()
    assert (picture[:, :32] == 255).all()


# -- what captions say


@pytest.mark.parametrize(
    ("scene", "english", "japanese"),
    [
        (Scene((thing("star", "red", "large"),)), "a large red star", "大きい赤い星"),
        (Scene((thing("star", "orange", "small"),)), "a small orange star", "小さいオレンジの星"),
        (Scene((thing("square", "blue"),) * 3), "three blue squares", "青い四角が三つ"),
        (Scene((thing("cross", "black"),) * 2), "two black crosses", "黒い十字が二つ"),
        (Scene((thing("circle", "pink"),) * 4), "four pink circles", "ピンクの丸が四つ"),
        (
            Scene((thing("circle", "red"), thing("star", "green")), "above"),
            "a red circle above a green star",
            "緑の星の上に赤い丸",
        ),
        (
            Scene((thing("star", "orange"), thing("cross", "orange")), "left"),
            "an orange star to the left of an orange cross",
            "オレンジの十字の左にオレンジの星",
        ),
        (
            Scene((thing("triangle", "purple"), thing("star", "orange")), "right"),
            "a purple triangle to the right of an orange star",
            "オレンジの星の右に紫の三角",
        ),
        (
            Scene((thing("square", "yellow"), thing("circle", "black")), "below"),
            "a yellow square below a black circle",
            "黒い丸の下に黄色い四角",
        ),
    ],
)
def test_a_scene_is_described_in_both_languages(scene, english, japanese):
    assert scene.captions() == {"en": english, "ja": japanese}


def test_an_example_carries_the_captions_of_its_truth(everything):
    assert all(dict(e.captions) == e.truth.captions() for e in everything)


def test_no_caption_says_a_orange(everything):
    assert not [e.captions["en"] for e in everything if "a orange" in e.captions["en"]]
