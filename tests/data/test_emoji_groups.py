"""Emoji by group: which there are, what they are called."""

import pytest

from flowbrush import config_io
from flowbrush.data import EmojiGroupsConfig
from flowbrush.data.emoji_groups import GROUPS, EmojiGroups
from flowbrush.data.source import Source
from flowbrush.experiment import ExperimentConfig


@pytest.fixture(scope="module")
def source() -> EmojiGroups:
    return EmojiGroupsConfig().build(32)


def test_it_is_a_source(source):
    assert isinstance(source, Source)
    assert source[0].picture.shape == (32, 32, 3)


def test_there_are_ten_groups_of_sixteen(source):
    assert len(source) == 160 and len(source.classes) == 10
    assert [source[i].truth for i in range(160)] == [i // 16 for i in range(160)]


def test_no_emoji_is_in_two_groups(source):
    assert len(set(source.characters)) == 160


def test_no_two_look_the_same(source):
    assert len({source[i].picture.tobytes() for i in range(160)}) == 160


def test_each_is_called_by_its_group_and_by_its_name_in_both_languages(source):
    banana = source[source.characters.index("🍌")]
    assert banana.captions == {
        "en": "a picture of a fruit",
        "ja": "果物の絵",
        "en-name": "banana",
        "ja-name": "バナナ",
    }


def test_the_classes_are_the_groups_in_english(source):
    assert source.classes == tuple(f"a picture of {name}" for name, _ in GROUPS)


def test_a_run_remembers_it():
    config = ExperimentConfig(source=EmojiGroupsConfig())
    written = config_io.to_json(config)
    assert config_io.from_json(ExperimentConfig, written, "here") == config
