"""Whether unseen pairs are painted: measured on pictures that are made right or wrong."""

import math
from dataclasses import replace

import pytest
import torch

from flowbrush.data.emoji import EmojiConfig
from flowbrush.data.emoji_variants import EmojiVariantsConfig, Variant
from flowbrush.data.part import Listed
from flowbrush.data.source import Source
from flowbrush.errors import UserError
from flowbrush.evaluate.composition import Catalogue, catalogue, composition, pairs, sheet
from flowbrush.evaluate.intervals import Measured

CONFIG = EmojiVariantsConfig(concepts=12, unseen=0.3)
LIGHT, DARK = "\U0001f3fb", "\U0001f3ff"


def filled(*values: int) -> torch.Tensor:
    """A picture of each grey."""
    return torch.tensor(values, dtype=torch.uint8).view(-1, 1, 1, 1).repeat(1, 3, 2, 2)


@pytest.fixture(scope="module")
def among() -> Catalogue:
    found = catalogue(CONFIG.build(16))
    assert found is not None
    return found


@pytest.fixture(scope="module")
def asked():
    return pairs(CONFIG, 16)


def truths_of(source: Source) -> list[Variant]:
    return [source[i].truth for i in range(len(source))]


# -- what is asked


def test_all_unseen_pairs_are_asked_and_as_many_seen_ones(asked):
    held = replace(CONFIG, part="unseen").build(16)
    n, truths = len(held), truths_of(asked)
    assert truths[:n] == [*held.variants]
    assert [one.seen for one in truths] == [False] * n + [True] * n
    assert len(set(truths)) == 2 * n


def test_no_more_pairs_are_asked_than_the_limit():
    few = truths_of(pairs(CONFIG, 8, 5))
    assert [one.seen for one in few] == [False] * 5 + [True] * 5


def test_there_are_no_more_seen_pairs_than_there_are():
    many = truths_of(pairs(replace(CONFIG, unseen=0.9), 8))
    assert sum(one.seen for one in many) * 2 == len(many)


def test_a_source_without_unseen_pairs_is_refused():
    with pytest.raises(UserError, match="no pair is unseen"):
        pairs(EmojiVariantsConfig(concepts=3, unseen=0.0), 8)


def test_the_catalogue_has_seen_and_unseen_pairs_whatever_the_run_learns(among):
    assert {one.seen for one in among.variants} == {True, False}
    assert among.pictures.shape == (len(among.variants), 3, 16, 16)
    assert among.pictures.dtype == torch.uint8


def test_the_catalogue_of_a_part_is_that_of_the_whole(asked, among):
    found = catalogue(Listed(asked, (3, 1)))
    assert found is not None
    assert found.variants == among.variants


def test_another_source_has_no_catalogue():
    assert catalogue(EmojiConfig(concepts=2).build(8)) is None


def test_the_nearest_of_many_pictures_is_found(among):
    assert tuple(among.nearest(among.pictures)) == among.variants


def test_the_first_of_equally_near_pictures_is_taken():
    assert SMALL.nearest(filled(25, 125)) == [VARIANTS[0], VARIANTS[2]]


# -- what is measured: two concepts of two tones, one of two genders; three pairs are unseen

VARIANTS = (
    Variant("👋", LIGHT, "", True),
    Variant("👋", DARK, "", False),
    Variant("🧑", LIGHT, "woman", True),
    Variant("🧑", DARK, "woman", False),
    Variant("🧑", LIGHT, "man", False),
    Variant("🧑", DARK, "man", True),
)
SMALL = Catalogue(VARIANTS, filled(0, 50, 100, 150, 200, 250))


def measured(*greys: int) -> dict[str, Measured]:
    """Of greys painted for the six pairs in their order."""
    nearest = SMALL.nearest(filled(*greys))
    return {one.name: one for one in composition(VARIANTS, nearest, SMALL, "en")}


def shares(*greys: int) -> dict[str, float]:
    return {name: one.value for name, one in measured(*greys).items()}


def test_all_right_is_one_of_everything_and_no_seen_pair_instead():
    found = shares(3, 53, 97, 147, 203, 247)
    assert found.pop("a seen pair of the concept instead, unseen pairs, en") == 0.0
    assert set(found.values()) == {1.0}
    assert set(found) == {
        f"right {what}, {part} pairs, en"
        for what in ("pair", "concept", "skin tone", "gender")
        for part in ("unseen", "seen")
    }


def test_all_wrong_is_none_of_everything():
    assert set(shares(150, 100, 50, 0, 50, 0).values()) == {0.0}


def test_copies_of_seen_pairs_are_right_concepts_and_wrong_pairs():
    found = shares(0, 0, 100, 100, 100, 250)
    assert found["a seen pair of the concept instead, unseen pairs, en"] == 1.0
    assert found["right pair, unseen pairs, en"] == 0.0
    assert found["right concept, unseen pairs, en"] == 1.0
    assert found["right skin tone, unseen pairs, en"] == pytest.approx(1 / 3)
    assert found["right gender, unseen pairs, en"] == 0.5
    assert found["right pair, seen pairs, en"] == 1.0


def test_an_unseen_pair_in_place_of_another_is_no_seen_one():
    found = shares(0, 50, 100, 200, 150, 250)
    assert found["a seen pair of the concept instead, unseen pairs, en"] == 0.0
    assert found["right pair, unseen pairs, en"] == pytest.approx(1 / 3)


def test_the_genders_of_a_concept_without_any_are_not_counted():
    found = measured(0, 50, 100, 150, 200, 250)
    assert found["right gender, unseen pairs, en"].pictures == 2
    assert found["right skin tone, unseen pairs, en"].pictures == 3


def test_a_figure_says_what_a_random_picture_would_have():
    found = measured(0, 50, 100, 150, 200, 250)
    assert "the nearest of 6 real pictures; a random one: 0.1667" in (
        found["right pair, unseen pairs, en"].by
    )
    chance = (2 / 6 + 4 / 6 + 4 / 6) / 3
    assert f"a random one: {chance:.4f}" in found["right concept, unseen pairs, en"].by


def test_seen_pairs_instead_are_better_the_fewer():
    found = measured(0, 50, 100, 150, 200, 250)
    assert {name for name, one in found.items() if one.better == "lower"} == {
        "a seen pair of the concept instead, unseen pairs, en"
    }


def test_no_interval_is_given_of_so_few_pictures():
    assert math.isnan(measured(0, 50, 100, 150, 200, 250)["right pair, unseen pairs, en"].low)


def test_what_was_not_asked_is_not_measured():
    seen = [one for one in VARIANTS if one.seen]
    names = [one.name for one in composition(seen, seen, SMALL, "ja")]
    assert names == [
        f"right {what}, seen pairs, ja" for what in ("pair", "concept", "skin tone", "gender")
    ]


def test_an_attribute_that_does_not_vary_is_not_measured():
    yellow = tuple(Variant(v.concept, "", v.gender, v.seen) for v in VARIANTS[2:5:2])
    found = composition(yellow, yellow, Catalogue(yellow, filled(100, 200)), "en")
    assert not [one.name for one in found if "tone" in one.name]


def test_real_pictures_are_all_right_with_an_interval_below_one(asked, among):
    pictures = [torch.tensor(asked[i].picture) for i in range(len(asked))]
    painted = torch.stack(pictures).permute(0, 3, 1, 2)
    right = composition(truths_of(asked), among.nearest(painted), among, "en")[0]
    assert (right.name, right.value, right.high) == ("right pair, unseen pairs, en", 1.0, 1.0)
    assert 0.5 < right.low < 1.0


# -- the sheet


def test_the_sheet_shows_each_painted_picture_beside_the_real_one(asked):
    painted = torch.zeros(len(asked), 3, 16, 16, dtype=torch.uint8)
    four, eight = (sheet(painted, asked, "en", each) for each in (4, 8))
    assert four.width == eight.width == 8 * 168 + 8
    assert eight.height > four.height
