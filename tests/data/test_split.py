"""What is held out: which examples, and that nothing is lost or seen twice."""

import pytest

from flowbrush.data import EmojiConfig, ShapesWorldConfig
from flowbrush.data.source import Source
from flowbrush.data.split import split

SOURCE = ShapesWorldConfig(scenes=2_000).build(8)


def test_a_part_is_a_source():
    learned, held_out = split(SOURCE, 0.1)
    assert isinstance(learned, Source)
    assert isinstance(held_out, Source)
    assert held_out[3].captions == SOURCE[held_out.indices[3]].captions


def test_every_example_is_in_one_part():
    learned, held_out = split(SOURCE, 0.3)
    assert sorted(learned.indices + held_out.indices) == list(range(2_000))


def test_the_parts_have_about_the_sizes_that_were_asked_for():
    assert 0.27 < len(split(SOURCE, 0.3).held_out) / 2_000 < 0.33


@pytest.mark.parametrize(("share", "held_out"), [(0.0, 0), (1.0, 2_000)])
def test_all_or_nothing_may_be_held_out(share, held_out):
    assert len(split(SOURCE, share).held_out) == held_out


def test_the_parts_are_the_same_each_time_and_others_for_another_seed():
    assert split(SOURCE, 0.1).held_out.indices == split(SOURCE, 0.1).held_out.indices
    assert split(SOURCE, 0.1).held_out.indices != split(SOURCE, 0.1, seed=1).held_out.indices


def test_a_source_that_grows_at_its_end_keeps_its_parts():
    more = ShapesWorldConfig(scenes=3_000).build(8)
    held_out = split(more, 0.1).held_out.indices
    assert tuple(i for i in held_out if i < 2_000) == split(SOURCE, 0.1).held_out.indices


def test_a_part_is_due_to_whom_the_whole_is_due_to():
    emoji = EmojiConfig(concepts=20).build(8)
    held_out = split(emoji, 0.5).held_out
    assert held_out.attribution == emoji.attribution != ""
    assert held_out.classes == emoji.classes
