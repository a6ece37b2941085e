"""What is held out: which examples, and that nothing is lost or seen twice, for any number."""

import tracemalloc

import numpy as np
import pytest
from numbered import InShards, Plain, in_shards, unchecked

from flowbrush.data import EmojiConfig, ShapesWorldConfig
from flowbrush.data.part import BLOCK
from flowbrush.data.source import Source, shards_of
from flowbrush.data.split import split
from flowbrush.errors import UserError

SOURCE = ShapesWorldConfig(scenes=2_000).build(8)


def places(part) -> list[int]:
    with unchecked():
        return [part.place(i) for i in range(len(part))]


def test_a_part_is_a_source():
    learned, held_out = split(SOURCE, 0.1)
    assert isinstance(learned, Source)
    assert isinstance(held_out, Source)
    assert held_out[3].captions == SOURCE[held_out.place(3)].captions
    for outside in (-1, len(held_out)):
        with pytest.raises(IndexError):
            held_out[outside]


@pytest.mark.parametrize("length", [1, 7, BLOCK - 1, BLOCK, BLOCK + 1, 2_000])
@pytest.mark.parametrize("share", [0.3, 0.0003, 1 / 3, 0.999])
def test_every_example_is_in_one_part_in_order(share, length):
    try:
        learned, held_out = split(Plain(length), share)
    except UserError as error:  # too few for the share
        assert "comes to none; give more" in str(error)
        assert share * length < 1
        return
    first, second = places(learned), places(held_out)
    assert first == sorted(first)
    assert second == sorted(second)
    assert sorted(first + second) == list(range(length))


def test_the_parts_have_about_the_sizes_that_were_asked_for():
    assert 0.27 < len(split(SOURCE, 0.3).held_out) / 2_000 < 0.33


@pytest.mark.parametrize("share", [0.5, 0.01, 1e-5, 3e-7, 1 / 3])
def test_of_many_examples_the_share_is_exact_however_small_it_is(share):
    length = 100_000 * BLOCK
    assert len(split(Plain(length), share).held_out) == pytest.approx(share * length, abs=1)


@pytest.mark.parametrize(("share", "held_out"), [(0.0, 0), (1.0, 2_000)])
def test_all_or_nothing_may_be_held_out(share, held_out):
    assert len(split(SOURCE, share).held_out) == held_out


def test_the_parts_are_the_same_each_time_and_others_for_another_seed():
    one, again, other = (places(split(SOURCE, 0.1, seed).held_out) for seed in (0, 0, 1))
    assert one == again != other


def test_each_place_of_a_block_is_held_out_as_often_as_the_others():
    held = np.array(places(split(Plain(2_000 * BLOCK), 0.01).held_out)) % BLOCK
    counts = np.bincount(held, minlength=BLOCK)  # about binomial: deviation 4.4
    assert counts.mean() == 20
    assert 4 < counts.std() < 5


def test_a_source_that_grows_at_its_end_keeps_its_parts():
    more = places(split(ShapesWorldConfig(scenes=3_000).build(8), 0.1).held_out)
    assert [place for place in more if place < 2_000] == places(split(SOURCE, 0.1).held_out)


def test_a_part_is_due_to_whom_the_whole_is_due_to():
    emoji = EmojiConfig(concepts=20).build(8)
    held_out = split(emoji, 0.5).held_out
    assert held_out.attribution == emoji.attribution != ""
    assert held_out.classes == emoji.classes


def test_its_shards_have_what_is_left_of_the_sources():
    source = in_shards((5, 0, 3_000, 1, BLOCK))
    for part in split(source, 0.3):
        ends = np.cumsum(source.shards)
        inside = np.searchsorted(ends, places(part), side="right")
        assert shards_of(part) == tuple(np.bincount(inside, minlength=5))


def test_a_billion_examples_cost_no_more_than_their_shards():
    source = InShards(10**9, shards=(10**6,) * 1_000)
    tracemalloc.start()
    with unchecked():
        learned, held_out = split(source, 0.001)
        assert (len(learned), len(held_out)) == (999 * 10**6, 10**6)
        assert sum(shards_of(learned)) == len(learned)
        assert held_out[len(held_out) - 1].captions == {"en": f"{held_out.place(10**6 - 1)}"}
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 1_000_000
