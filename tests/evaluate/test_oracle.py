"""What the oracle reads in pictures that the world drew, spoiled or not, and how it scores them."""

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

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
from flowbrush.evaluate.oracle import (
    GENEVAL,
    NOTHING,
    SKILLS,
    UNCLEAR,
    Skill,
    confusion,
    followed,
    read,
    relations,
    score,
    skills,
    tally,
)

NOISE, BLUR = 16.0, 0.6  # of 255; in pixels of 32


def world(*kinds: str, scenes: int, seed: int, size: int = 32) -> list:
    source = ShapesWorldConfig(scenes=scenes, kinds=kinds, seed=seed).build(size)
    return [source[i] for i in range(scenes)]


def spoiled(picture: np.ndarray, seed: int) -> np.ndarray:
    """Blurred, then with noise on every channel."""
    blur = ImageFilter.GaussianBlur(BLUR * len(picture) / 32)
    noise = np.random.default_rng(seed).normal(0, NOISE, picture.shape)
    blurred = np.asarray(Image.fromarray(picture).filter(blur))
    return np.clip(np.rint(blurred + noise), 0, 255).astype(np.uint8)


def tensor(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(picture.astype(np.uint8)).permute(2, 0, 1)


def seen_in(picture: np.ndarray) -> tuple[Thing, ...]:
    return read(tensor(picture))


def painted(*things: Thing, size: int = 32) -> tuple[Thing, ...]:
    """What is read where these are drawn."""
    return seen_in(draw(Scene(things), size))


def looks(things) -> Counter:
    return Counter((thing.shape, thing.colour, thing.size) for thing in things)


def thing(shape="circle", colour="red", size="medium", x=0.5, y=0.5) -> Thing:
    return Thing(shape, colour, size, x, y)


# -- reading what the world drew


@pytest.mark.parametrize(("size", "scenes", "wrong"), [(32, 2000, 2), (64, 200, 0)])
def test_clean_pictures_are_read_as_they_were_drawn(size, scenes, wrong):
    examples = world("single", "count", "relation", scenes=scenes, seed=1, size=size)
    right = [looks(seen_in(e.picture)) == looks(e.truth.things) for e in examples]
    assert right.count(False) <= wrong  # 0.1 %


@pytest.mark.parametrize(("size", "scenes", "wrong"), [(32, 2000, 10), (64, 200, 1)])
def test_noise_and_blur_hide_nothing(size, scenes, wrong):
    examples = world("single", "count", "relation", scenes=scenes, seed=2, size=size)
    seen = [seen_in(spoiled(e.picture, i)) for i, e in enumerate(examples)]
    right = [looks(s) == looks(e.truth.things) for s, e in zip(seen, examples, strict=True)]
    assert right.count(False) <= wrong  # 0.5 %


@pytest.mark.parametrize(("worst", "bad"), [(0.3, False), (0.9, True)])
def test_places_are_read_to_a_fraction_of_a_pixel(worst, bad):
    for i, example in enumerate(world("single", scenes=100, seed=3)):
        (seen,) = seen_in(spoiled(example.picture, i) if bad else example.picture)
        (drawn,) = example.truth.things
        assert max(abs(seen.x - drawn.x), abs(seen.y - drawn.y)) * 32 < worst


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("colour", COLOURS)
def test_every_look_is_read_in_every_size(shape, colour):
    drawn = [thing(shape, colour, size, 0.52, 0.47) for size in SIZES]
    assert [looks(painted(one)) for one in drawn] == [looks([one]) for one in drawn]


def test_a_colour_that_is_twenty_off_keeps_its_name():
    right, hidden = [], []
    for i, example in enumerate(world("single", scenes=150, seed=4)):
        shift = np.random.default_rng(i).choice([-20, 20], 3)
        inked = example.picture.min(axis=2, keepdims=True) < 250
        moved = np.clip(example.picture + shift * inked, 0, 255).astype(np.uint8)
        right.append(looks(seen_in(moved)) == looks(example.truth.things))
        hidden.append(looks(seen_in(spoiled(moved, i))) != looks(example.truth.things))
    assert all(right)
    assert sum(hidden) <= 3  # under noise and blur too, a small orange star may pass for yellow


def test_a_ground_that_is_not_quite_white_is_ground():
    for example in world("count", scenes=40, seed=5):
        assert looks(seen_in(example.picture * 0.92)) == looks(example.truth.things)


def test_speckles_are_no_things():
    for i, example in enumerate(world("single", scenes=100, seed=6)):
        rng, picture = random.Random(i), example.picture.copy()
        for _ in range(12):
            x, y = rng.randrange(30), rng.randrange(30)
            if picture[max(0, y - 2) : y + 4, max(0, x - 2) : x + 4].min() >= 250:
                picture[y : y + rng.choice([1, 2]), x : x + 2] = [rng.randrange(200)] * 3
        assert looks(seen_in(picture)) == looks(example.truth.things)


def test_circles_that_touch_are_two():
    pair = [thing(x=0.5 - 0.171), thing(x=0.5 + 0.171)]
    assert looks(painted(*pair)) == looks(pair)


def test_squares_of_two_colours_side_by_side_are_two():
    pair = [thing("square", "blue", x=0.5 - 0.152), thing("square", "black", x=0.5 + 0.152)]
    assert looks(painted(*pair)) == looks(pair)


def test_the_same_picture_is_read_the_same():
    picture = spoiled(world("count", scenes=1, seed=7)[0].picture, 0)
    assert seen_in(picture) == seen_in(picture.copy())


def test_things_come_from_left_to_right():
    drawn = [thing(x=0.75), thing("star", "green", x=0.25)]
    assert [one.shape for one in painted(*drawn)] == ["star", "circle"]


# -- pictures of nothing known


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape)


@pytest.mark.parametrize("size", [8, 16, 32, 48, 64, 100])
@pytest.mark.parametrize("grey", [0, 128, 199, 200, 255])
def test_a_plain_picture_has_no_things(size, grey):
    assert seen_in(np.full((size, size, 3), grey)) == ()


@pytest.mark.parametrize("size", [32, 64])
def test_noise_has_no_things(size):
    assert seen_in(noise(size, size, 3)) == ()


def test_noise_on_white_has_no_things():
    white = np.full((32, 32, 3), 255, np.uint8)
    assert [seen_in(spoiled(white, seed)) for seed in range(50)] == [()] * 50


@pytest.mark.parametrize("seed", range(6))
def test_garbage_is_no_scene_and_no_exception(seed):
    """Coarse noise, pale or not, stripes and gradients, over white or not."""
    rng = np.random.default_rng(seed)
    coarse = np.kron(rng.integers(0, 256, (8, 8, 3)), np.ones((4, 4, 1)))
    mask = rng.random((32, 32, 1)) < rng.random()
    stripes = np.arange(32)[:, None, None] % rng.integers(2, 7) < 2
    slope = np.linspace(0, 255, 32)[:, None, None]
    for garbage in (coarse, 128 + coarse / 2, coarse * mask, np.where(mask, 255, coarse)):
        for picture in (garbage, np.where(stripes, 255, garbage), np.maximum(garbage, slope)):
            seen = seen_in(picture)
            for scene in (Scene((thing(size="large"),)), Scene((thing(),) * 2)):
                assert not followed(scene, seen)


def test_a_blend_of_two_shapes_is_unclear():
    pair = [draw(Scene((thing(shape, "blue", "large"),)), 32) for shape in ("circle", "square")]
    (seen,) = seen_in(np.mean(pair, axis=0))
    assert (seen.shape, seen.colour) == (UNCLEAR, "blue")


def test_a_colour_between_the_others_is_unclear():
    picture = draw(Scene((thing("square", "black", "large"),)), 32)
    picture = np.where(picture < 200, [0, 200, 200], 255)  # cyan
    (seen,) = seen_in(picture)
    assert (seen.shape, seen.colour) == ("square", UNCLEAR)


def test_a_shape_that_the_world_does_not_know_is_unclear():
    picture = np.full((32, 32, 3), 255)
    picture[4:28, 4:28] = 0
    picture[8:24, 8:24] = 255  # a frame
    assert {one.shape for one in seen_in(picture)} == {UNCLEAR}


# -- scoring

KINDS = {
    "single": {"single object", "colours", "size"},
    "count": {"counting"},
    "relation": {"two objects", "position", "colour attribution"},
}


@pytest.fixture(scope="module")
def truths() -> dict[str, list[Scene]]:
    return {kind: [e.truth for e in world(kind, scenes=150, seed=8)] for kind in KINDS}


@pytest.fixture(scope="module")
def everything(truths) -> list[Scene]:
    return [scene for scenes in truths.values() for scene in scenes]


def wrong(scene: Scene, seen: tuple[Thing, ...]) -> set[str]:
    return {name for name, right in skills(scene, seen).items() if not right}


def other(names, name: str) -> str:
    """The next name."""
    names = list(names)
    return names[(names.index(name) + 1) % len(names)]


def test_a_scene_asks_for_the_skills_of_its_kind(truths):
    for kind, scenes in truths.items():
        assert {frozenset(skills(scene, ())) for scene in scenes} == {frozenset(KINDS[kind])}


def test_all_skills_are_those_of_the_kinds():
    assert sorted(SKILLS) == sorted(set().union(*KINDS.values()))
    assert set(SKILLS) - set(GENEVAL) == {"size"}


def test_the_truth_itself_is_followed(everything):
    for scene in everything:
        assert followed(scene, scene.things)
        assert not wrong(scene, scene.things)
        assert followed(scene, scene.things[::-1])


def test_an_empty_picture_shows_no_skill(everything):
    for scene in everything:
        assert not followed(scene, ())
        assert wrong(scene, ()) == set(skills(scene, ()))


def test_one_thing_less_is_wrong(truths):
    for scene in truths["count"] + truths["relation"]:
        assert not followed(scene, scene.things[1:])
        assert wrong(scene, scene.things[1:]) == set(skills(scene, ()))


def test_one_thing_twice_is_wrong(everything):
    for scene in everything:
        assert not followed(scene, (*scene.things, scene.things[0]))


def test_one_thing_more_is_a_fault_of_single_objects_and_of_counts(truths):
    for scene in truths["single"]:
        assert wrong(scene, (*scene.things, scene.things[0])) == {"single object"}
    for scene in truths["count"]:
        assert wrong(scene, (*scene.things, scene.things[0])) == {"counting"}


def test_an_unclear_thing_more_leaves_the_count_but_is_not_followed(truths):
    for scene in truths["count"]:
        seen = (*scene.things, thing(UNCLEAR))
        assert not wrong(scene, seen)
        assert not followed(scene, seen)


def test_another_colour_is_a_fault_of_colour_alone(truths):
    for scene in truths["single"]:
        (one,) = scene.things
        changed = replace(one, colour=other(COLOURS, one.colour))
        assert wrong(scene, (changed,)) == {"colours"}
        assert not followed(scene, (changed,))
    for scene in truths["count"]:
        first, *rest = scene.things
        changed = replace(first, colour=other(COLOURS, first.colour))
        assert not wrong(scene, (changed, *rest))
        assert not followed(scene, (changed, *rest))


def test_another_size_is_a_fault_of_size_alone(truths):
    for scene in truths["single"]:
        changed = (replace(scene.things[0], size="medium"),)
        assert wrong(scene, changed) == {"size"}
        assert not followed(scene, changed)
    for scene in truths["count"] + truths["relation"]:
        assert followed(scene, tuple(replace(one, size="small") for one in scene.things))


def test_another_shape_is_a_fault_of_everything_bound_to_it(everything):
    for scene in everything:
        first, *rest = scene.things
        changed = replace(first, shape=UNCLEAR)
        assert wrong(scene, (changed, *rest)) == set(skills(scene, ()))


def test_colours_exchanged_are_a_fault_of_attribution(truths):
    for scene in truths["relation"]:
        a, b = scene.things
        swapped = replace(a, colour=b.colour), replace(b, colour=a.colour)
        if a.shape != b.shape and a.colour != b.colour:
            assert wrong(scene, swapped) == {"colour attribution"}
            assert not followed(scene, swapped)


def test_places_exchanged_are_a_fault_of_position(truths):
    for scene in truths["relation"]:
        a, b = scene.things
        swapped = replace(a, x=b.x, y=b.y), replace(b, x=a.x, y=a.y)
        assert wrong(scene, swapped) == {"position"}
        assert not followed(scene, swapped)


def test_standing_on_both_sides_is_a_fault_of_position():
    scene = Scene((thing(x=0.25), thing("star", x=0.75)), "left")
    seen = (thing(x=0.1), thing("star", x=0.5), thing(x=0.9))
    assert wrong(scene, seen) == {"position"}


def test_equal_shapes_are_told_by_their_colours():
    left, right = thing(colour="red", x=0.25), thing(colour="blue", x=0.75)
    assert followed(Scene((left, right), "left"), (right, left))
    assert wrong(Scene((left, right), "right"), (right, left)) == {"position"}
    green = replace(right, colour="green")
    assert wrong(Scene((left, right), "left"), (left, green)) == {"position", "colour attribution"}


def test_a_changed_picture_is_scored_as_its_change(truths):
    """Drawn, spoiled and read: relation, colours, number."""
    for i, scene in enumerate(truths["relation"][:60]):
        a, b = scene.things
        moved = Scene((replace(a, x=b.x, y=b.y), replace(b, x=a.x, y=a.y)))
        assert wrong(scene, seen_in(spoiled(draw(moved, 32), i))) == {"position"}
        dyed = Scene((replace(a, colour=other(COLOURS, a.colour)), b))
        faults = wrong(scene, seen_in(spoiled(draw(dyed, 32), i)))
        assert faults - {"position"} == {"colour attribution"}
        alone = seen_in(spoiled(draw(Scene((b,)), 32), i))
        assert wrong(scene, alone) == set(skills(scene, ()))
    for i, scene in enumerate(truths["count"][:40]):
        fewer = seen_in(spoiled(draw(Scene(scene.things[1:]), 32), i))
        assert wrong(scene, fewer) == {"counting"}


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (-0.5, 0.0, {"left"}),
        (0.5, 0.0, {"right"}),
        (0.0, -0.5, {"above"}),
        (0.0, 0.5, {"below"}),
        (-0.5, -0.5, {"left", "above"}),
        (0.5, 0.2, {"right"}),
        (0.0, 0.0, set()),
        (0.05, 0.05, set()),  # within a tenth of both extents: they overlap
    ],
)
def test_relations_are_those_of_the_offset(x, y, expected):
    assert relations(thing(x=0.5 + x, y=0.5 + y), thing()) == expected


def test_every_relation_of_the_world_holds_alone(truths):
    for scene in truths["relation"]:
        assert relations(*scene.things) == {scene.relation}
    assert {scene.relation for scene in truths["relation"]} == set(RELATIONS)


# -- sums


def test_drawn_pictures_have_full_scores():
    examples = world("single", "count", "relation", scenes=60, seed=9)
    pictures = torch.stack([tensor(example.picture) for example in examples])
    scores = score(pictures, [example.truth for example in examples])
    assert list(scores) == [*SKILLS, "followed"]
    assert all(skill.right == skill.asked for skill in scores.values())
    assert scores["followed"].asked == 60


def test_a_skill_that_no_scene_asks_for_has_no_score():
    scene = Scene((thing(),) * 2)
    scores = tally([scene, scene], [scene.things, ()])
    assert scores == {"counting": Skill(1, 2), "followed": Skill(1, 2)}


def test_as_many_pictures_as_scenes_are_needed():
    with pytest.raises(ValueError, match="zip"):
        tally([Scene((thing(),))], [])


@pytest.mark.parametrize(
    ("right", "asked", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (5, 10, 0.2366, 0.7634),
        (81, 263, 0.2553, 0.3662),
    ],
)  # the last is Newcombe's example (1998)
def test_the_interval_is_wilsons(right, asked, low, high):
    assert Skill(right, asked).interval == pytest.approx((low, high), abs=5e-5)
    assert Skill(right, asked).share == right / asked


def test_confusions_are_counted_by_what_was_asked():
    scenes = [Scene((thing("star", "red"),)), Scene((thing("star", "red"),) * 2)]
    seen = [(), (thing("star", "pink"), thing("cross", "red"))]
    shapes, colours = confusion(scenes, seen, "shape"), confusion(scenes, seen, "colour")
    assert shapes["star"] == {NOTHING: 1, "star": 1, "cross": 1}
    assert colours["red"] == {NOTHING: 1, "pink": 1, "red": 1}
    assert list(shapes) == list(SHAPES) and not shapes["circle"]
    assert list(colours) == list(COLOURS)


def test_scenes_with_a_relation_are_in_no_confusion():
    scene = Scene((thing("star"), thing("cross")), "left")
    assert not any(confusion([scene], [scene.things], "shape").values())
