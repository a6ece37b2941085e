"""Emoji with skin tones and genders: which pairs there are, and which of them are never seen."""

from collections import Counter

import numpy as np
import pytest

from flowbrush.data.emoji_variants import EmojiVariants, EmojiVariantsConfig, Variant
from flowbrush.errors import UserError

LIGHT, DARK = "\U0001f3fb", "\U0001f3ff"
FIREFIGHTER, WAVE = "🧑\u200d🚒", "👋"


def variants(**choices) -> tuple[Variant, ...]:
    return EmojiVariantsConfig(**{"part": "all", **choices}).build(8).variants


def unseen(**choices) -> set[tuple[str, str, str]]:
    return {(v.concept, v.tone, v.gender) for v in variants(**choices) if not v.seen}


@pytest.fixture(scope="module")
def whole() -> EmojiVariants:
    return EmojiVariantsConfig(part="all").build(32)


@pytest.fixture(scope="module")
def recipes() -> EmojiVariants:
    return EmojiVariantsConfig(part="all", concepts=64).build(8)


def captions(source: EmojiVariants, *pair: str) -> dict[str, str]:
    of = [(v.concept, v.tone, v.gender) for v in source.variants].index(pair)
    return dict(source[of].captions)


# -- what there is


def test_a_concept_with_genders_has_both_in_six_tones(whole):
    of = [(v.tone, v.gender) for v in whole.variants if v.concept == FIREFIGHTER]
    assert len(set(of)) == len(of) == 12
    assert {gender for _, gender in of} == {"woman", "man"}


def test_a_hand_has_six_tones_and_no_gender(whole):
    of = [(v.tone, v.gender) for v in whole.variants if v.concept == WAVE]
    assert len(set(of)) == len(of) == 6
    assert {gender for _, gender in of} == {""}


def test_no_pair_is_there_twice(whole):
    assert len({(v.concept, v.tone, v.gender) for v in whole.variants}) == len(whole)


def test_no_two_pairs_look_the_same(whole):
    """Or an unseen pair would have been seen under another name."""
    assert len({whole[i].picture.tobytes() for i in range(len(whole))}) == len(whole)


@pytest.mark.parametrize(
    ("concept", "woman", "man"),
    [("🧒", "girl", "boy"), ("🧓", "old woman", "old man"), ("🫅", "princess", "prince")],
)
def test_genders_with_code_points_of_their_own_belong_to_one_concept(whole, concept, woman, man):
    assert captions(whole, concept, "", "woman")["en"] == woman
    assert captions(whole, concept, "", "man")["en"] == man


def test_a_caption_is_the_name_and_the_tone(whole):
    assert captions(whole, WAVE, DARK, "") == {
        "en": "waving hand, dark skin tone",
        "ja": "手を振る、濃い肌色",
    }
    assert captions(whole, WAVE, "", "") == {"en": "waving hand", "ja": "手を振る"}
    assert captions(whole, FIREFIGHTER, LIGHT, "woman") == {
        "en": "woman firefighter, light skin tone",
        "ja": "女性消防士、薄い肌色",
    }


def test_captions_are_plain_words_and_differ(whole):
    english = [whole[i].captions["en"] for i in range(len(whole))]
    assert len(set(english)) == len(whole)
    assert not [text for text in english if "_" in text or ":" in text]


def test_captions_are_in_the_languages_asked_for():
    source = EmojiVariantsConfig(part="all", languages=("de", "fr")).build(8)
    assert captions(source, WAVE, LIGHT, "") == {
        "de": "winkende hand, helle hautfarbe",
        "fr": "signe de la main, peau claire",
    }


def test_classes_are_the_captions_in_the_first_language(recipes):
    assert recipes.classes == tuple(recipes[i].captions["en"] for i in range(len(recipes)))


def test_truth_is_the_variant(recipes):
    assert tuple(recipes[i].truth for i in range(len(recipes))) == recipes.variants


def test_a_darker_tone_is_painted_darker(whole):
    of = {v.tone: i for i, v in enumerate(whole.variants) if v.concept == WAVE}
    tones = [whole[of[tone]].picture.mean() for tone in sorted(of) if tone]
    assert tones == sorted(tones, reverse=True)


def test_a_picture_is_square_bytes_of_the_size(recipes):
    assert (recipes[0].picture.shape, recipes[0].picture.dtype) == ((8, 8, 3), np.uint8)


def test_attribution_names_the_artists_and_the_licence(recipes):
    assert "OpenMoji" in recipes.attribution
    assert "CC BY-SA" in recipes.attribution


# -- what varies


def test_tones_alone_are_of_neutral_persons():
    found = variants(attributes=("tone",))
    assert {v.gender for v in found} == {""}
    assert FIREFIGHTER in {v.concept for v in found}


def test_genders_alone_are_yellow():
    found = variants(attributes=("gender",))
    assert {v.tone for v in found} == {""}
    assert {v.gender for v in found} == {"woman", "man"}


def test_every_concept_varies(whole):
    assert min(Counter(v.concept for v in whole.variants).values()) > 1


def test_no_attribute_is_refused():
    with pytest.raises(UserError, match="attributes: none"):
        EmojiVariantsConfig(attributes=())


# -- what is held out

CHOICES = [
    {},
    {"concepts": 64},
    {"concepts": 5},
    {"concepts": 2, "unseen": 0.9},
    {"unseen": 0.9},
    {"unseen": 0.6, "choice": 3},
    {"attributes": ("tone",), "unseen": 0.7},
    {"attributes": ("gender",), "unseen": 0.7},
    {"attributes": ("gender",), "concepts": 7, "unseen": 0.99},
]


@pytest.mark.parametrize("choices", CHOICES)
def test_an_unseen_pairs_concept_is_seen_with_other_attributes(choices):
    found = variants(**choices)
    seen = {v.concept for v in found if v.seen}
    assert {v.concept for v in found} <= seen


@pytest.mark.parametrize("choices", CHOICES)
def test_an_unseen_pairs_attributes_are_seen_of_another_concept(choices):
    found = variants(**choices)
    seen = {(v.tone, v.gender) for v in found if v.seen}
    assert {(v.tone, v.gender) for v in found} <= seen


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_about_the_share_asked_for_is_unseen(share):
    found = variants(unseen=share)
    assert abs(sum(not v.seen for v in found) / len(found) - share) < 0.03


def test_a_share_of_zero_holds_nothing_out():
    assert not unseen(unseen=0.0)


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(UserError, match="it is a share"):
        EmojiVariantsConfig(unseen=share)


def test_a_larger_share_holds_the_same_out_and_more():
    assert unseen(unseen=0.1) < unseen(unseen=0.2)


@pytest.mark.parametrize("concepts", [1, 3, 20, 64, 150])
def test_what_is_unseen_does_not_depend_on_the_number_of_concepts(whole, concepts):
    some = variants(concepts=concepts)
    assert len({v.concept for v in some}) == concepts
    assert set(some) <= set(whole.variants)


def test_what_is_unseen_depends_on_no_language():
    assert unseen(languages=("de", "fr")) == unseen()


def test_the_same_is_unseen_each_time(whole):
    assert variants() == whole.variants


def test_another_choice_holds_other_pairs_out():
    assert unseen(choice=1) != unseen(choice=2)


def test_the_parts_are_the_whole_and_share_nothing(recipes):
    seen, held = (
        EmojiVariantsConfig(part=part, concepts=64).build(8) for part in ("seen", "unseen")
    )
    assert all(v.seen for v in seen.variants)
    assert not any(v.seen for v in held.variants)
    assert {*seen.variants, *held.variants} == set(recipes.variants)
    assert len(seen) + len(held) == len(recipes)


def test_a_part_shows_what_the_whole_shows(recipes):
    held = EmojiVariantsConfig(part="unseen", concepts=64).build(8)
    for i in range(0, len(held), 9):
        other = recipes[recipes.variants.index(held.variants[i])]
        assert (held[i].picture == other.picture).all()
        assert held[i].captions == other.captions


def test_what_is_learned_is_what_is_seen():
    assert EmojiVariantsConfig().part == "seen"
