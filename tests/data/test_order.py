"""Every example once an epoch, shard by shard, wherever one begins and whoever shares the work."""

import pickle
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numbered import Plain, in_shards, loaded, numbers, unchecked

from flowbrush.data.batches import BatchConfig
from flowbrush.data.mixture import Mixture
from flowbrush.data.order import WholeOrder, WindowOrder, order_of, permuted
from flowbrush.data.source import shards_of
from flowbrush.data.split import split
from flowbrush.errors import UserError

EMPTY = (3, 20, 36)
SIZES = np.random.default_rng(0).integers(1, 5_400, 37)
SIZES[list(EMPTY)] = 0
SIZES[0] += 100_000 - SIZES.sum()
TOTAL, WINDOW = 100_000, 4
SMALL = in_shards((30, 1, 0, 12, 40, 7, 0, 9))
GRAINS = [3, 9, 4, 8, 1, 0, 6, 5, 7, 2, 7, 6, 1, 5, 9, 0, 4, 3, 2, 8]  # of 10, with the seed 5


@pytest.fixture(scope="module")
def three_epochs() -> np.ndarray:
    return numbers(WindowOrder(SIZES.tolist(), WINDOW, seed=0), range(3 * TOTAL)).reshape(3, TOTAL)


def shards_read(order: np.ndarray, span: int) -> list[int]:
    """How many shards are read in each `span` places in a row."""
    shard = np.searchsorted(np.cumsum(SIZES), order, side="right")
    return [len(np.unique(shard[i : i + span])) for i in range(0, len(shard), span)]


# -- one window of shards at a time


def test_each_example_comes_exactly_once_an_epoch(three_epochs: np.ndarray) -> None:
    for epoch in three_epochs:
        assert (np.bincount(epoch, minlength=TOTAL) == 1).all()


def test_epochs_have_different_orders(three_epochs: np.ndarray) -> None:
    assert all((three_epochs[a] == three_epochs[b]).mean() < 0.01 for a, b in ((0, 1), (1, 2)))


def test_seeds_have_different_orders(three_epochs: np.ndarray) -> None:
    other = numbers(WindowOrder(SIZES.tolist(), WINDOW, seed=1), range(5_000))
    assert (other == three_epochs[0, :5_000]).mean() < 0.01


def test_one_may_begin_at_any_place(three_epochs: np.ndarray) -> None:
    for start in (1, 54_321, TOTAL - 1, TOTAL, 2 * TOTAL + 777):
        places = range(start, start + 500)
        again = numbers(WindowOrder(SIZES.tolist(), WINDOW, seed=0), places)
        assert (again == three_epochs.ravel()[start : start + 500]).all()


def test_only_a_few_shards_are_read_at_a_time(three_epochs: np.ndarray) -> None:
    # A span that is shorter than most windows touches two of them at most, or a short one more.
    for epoch in three_epochs:
        assert max(shards_read(epoch, 1_000)) <= 2 * WINDOW
    assert max(shards_read(three_epochs.ravel(), 1_000)) <= 3 * WINDOW
    assert np.mean(shards_read(three_epochs.ravel(), 100)) > 0.6 * WINDOW


def test_each_shard_is_read_in_one_stretch_of_its_epoch(three_epochs: np.ndarray) -> None:
    shard = np.searchsorted(np.cumsum(SIZES), three_epochs[0], side="right")
    for number in set(range(37)) - set(EMPTY):
        places = np.flatnonzero(shard == number)
        assert places[-1] - places[0] < WINDOW * SIZES.max()


def test_a_window_is_well_mixed() -> None:
    order = numbers(WindowOrder((5_000, 5_000), 2, seed=0), range(10_000))
    halves = [(order[i : i + 100] < 5_000).mean() for i in range(0, 10_000, 100)]
    assert abs(np.mean(halves) - 0.5) < 1e-9
    assert 0.03 < np.std(halves) < 0.07  # 0.05, as of coins
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.04


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any),
    st.integers(1, 13),
    st.integers(0, 2**70),
)
def test_any_shards_make_whole_epochs(shards: list[int], window: int, seed: int) -> None:
    order, total = WindowOrder(shards, window, seed), sum(shards)
    for epoch in (0, 1, 10**9):
        places = range(epoch * total, (epoch + 1) * total)
        assert sorted(numbers(order, places)) == list(range(total))


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 300), st.integers(0, 2**63 - 1))
def test_a_permutation_takes_each_number_to_one(n: int, key: int) -> None:
    with unchecked():
        assert sorted(permuted(i, n, key) for i in range(n)) == list(range(n))


def test_a_permutation_takes_each_number_everywhere_alike() -> None:
    n, keys = 16, 4_000
    with unchecked():
        found = np.array([[permuted(i, n, 7919 * key) for i in range(n)] for key in range(keys)])
    counts = np.array([np.bincount(column, minlength=n) for column in found.T])
    freedom = (n - 1) ** 2
    assert abs((((counts - keys / n) ** 2) / (keys / n)).sum() / freedom - 1) < 0.3


def test_a_billion_examples_need_no_list_of_them() -> None:
    began = time.process_time()
    order = WindowOrder([10_000] * 100_000, 16, seed=0)
    assert 0 <= order[10**12 + 5] < 10**9
    assert time.process_time() - began < 10


# -- which order a source has


def test_a_source_without_a_window_is_shuffled_as_a_whole() -> None:
    assert isinstance(order_of(SMALL, 0, 0), WholeOrder)
    assert isinstance(order_of(SMALL, 8, 0), WholeOrder)
    assert isinstance(order_of(SMALL, 7, 0), WindowOrder)
    assert isinstance(order_of(Plain(9), 7, 0), WholeOrder)


def test_the_order_of_a_whole_source_stays_what_it_was() -> None:
    """Else runs that go on would see other pictures."""
    assert numbers(order_of(Plain(10), 0, 5), range(20)).tolist() == GRAINS


def test_a_source_of_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="no pictures"):
        order_of(in_shards((0, 0)), 1, 0)


def test_a_part_of_a_source_in_shards_has_what_is_left_of_each() -> None:
    learned, held_out = split(SMALL, 0.3)
    left = np.array(shards_of(learned)) + np.array(shards_of(held_out))
    assert tuple(left) == SMALL.shards
    assert sum(shards_of(learned)) == len(learned)
    assert shards_of(split(Plain(9), 0.5).learned) == (len(split(Plain(9), 0.5).learned),)


# -- through the batches


@pytest.mark.parametrize("world", [1, 2, 3])
def test_processes_share_out_three_epochs_and_go_on_in_the_middle(world: int) -> None:
    total, size, middle = len(SMALL), 6, 150
    count = 3 * total // size + 1
    before = [loaded(SMALL, middle // size, 0, r, world, size=size, window=2) for r in range(world)]
    after = [
        loaded(SMALL, count - middle // size, middle, r, world, size=size, window=2)
        for r in range(world)
    ]
    shares = [one + other for one, other in zip(before, after, strict=True)]
    together = np.array(shares).transpose(1, 2, 0).ravel()[: 3 * total].reshape(3, total)
    assert (np.sort(together) == np.arange(total)).all()
    assert (together.ravel() == numbers(order_of(SMALL, 2, 7), range(3 * total))).all()


def test_worker_processes_read_the_same_windows() -> None:
    assert loaded(SMALL, 5, size=4, window=2, workers=2) == loaded(SMALL, 5, size=4, window=2)


def test_an_order_can_be_sent_to_another_process() -> None:
    order = order_of(Mixture((SMALL, Plain(9)), (0.5, 0.5)), 2, 0)
    again = pickle.loads(pickle.dumps(order))
    assert (numbers(order, range(50)) == numbers(again, range(50))).all()


def test_a_broken_picture_is_replaced_out_of_its_own_window() -> None:
    source = in_shards((100,) * 20, range(0, 2_000, 7))
    whole = loaded(replace(source, broken=frozenset()), 20, size=100, window=1)
    torn = loaded(source, 20, size=100, window=1)
    for before, after in zip(whole, torn, strict=True):
        assert {i // 100 for i in before} == {i // 100 for i in after}
        assert not source.broken & set(after)


def test_a_window_of_broken_pictures_does_not_end_the_run() -> None:
    source = in_shards((10, 10, 10), range(10, 20))
    found = [i for batch in loaded(source, 3, size=10, window=1) for i in batch]
    assert len(found) == 30
    assert not source.broken & set(found)


def test_a_window_below_zero_is_refused() -> None:
    with pytest.raises(UserError, match="window -1"):
        BatchConfig(window=-1)
