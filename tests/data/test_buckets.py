"""Buckets of shapes: which there are, what goes into each, and that every batch is of one."""

import json
import math
import pickle
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from numbered import InShards, Plain, unchecked
from PIL import Image

from flowbrush.data import EmojiConfig, FolderConfig
from flowbrush.data.batches import BatchConfig, batches
from flowbrush.data.buckets import Buckets, BucketsConfig, bucketed, nearest
from flowbrush.data.mixture import Mixture
from flowbrush.data.order import order_of
from flowbrush.data.part import BLOCK
from flowbrush.data.source import Example, Shaped
from flowbrush.data.split import split
from flowbrush.errors import UserError
from flowbrush.experiment import ExperimentConfig

TALL, SQUARE, WIDE = SHAPES = ((6, 3), (4, 4), (3, 6))


@dataclass(frozen=True)
class Many(InShards):
    """Example i has aspect `widths[i % len(widths)]`; `first` is the number of the first one."""

    widths: tuple[float, ...] = (1.0,)
    size: tuple[int, int] = (4, 4)
    first: int = 0

    def __getitem__(self, i: int) -> Example:
        super().__getitem__(i)  # raises where it is broken
        return Example(np.zeros((*self.size, 3), np.uint8), {"en": f"{self.first + i}"})

    def aspects(self) -> Iterator[np.ndarray]:
        for i in range(0, self.length, 100):
            numbers = np.arange(i, min(i + 100, self.length)) % len(self.widths)
            yield np.array(self.widths, np.float32)[numbers]

    def reshaped(self, size: tuple[int, int]) -> "Many":
        return replace(self, size=size)


def many(length: int = 240, widths: tuple[float, ...] = (0.5, 1.0, 2.0, 2.0), **more) -> Many:
    return Many(length, shards=(length // 2, length - length // 2), widths=widths, **more)


Read = list[tuple[tuple[int, int], list[int]]]


def read(
    source: Buckets, count: int, start: int = 0, rank: int = 0, world: int = 1, **more
) -> Read:
    """The shape and the numbers of each of the first batches of one process."""
    config = BatchConfig(size=source.batch, **more)
    with closing(batches(source, config, 7, start, rank, world)) as loader:
        found = list(islice(loader, count))
    return [(tuple(one.pictures.shape[2:]), list(map(int, one.captions))) for one in found]


# -- the shapes


@pytest.mark.parametrize(("size", "step"), [(256, 64), (512, 64), (512, 32), (1024, 64), (64, 8)])
@pytest.mark.parametrize("most", [1.0, 1.5, 2.0, 4.0])
def test_shapes_have_about_as_many_pixels_as_the_square_and_are_bounded(size, step, most):
    shapes = BucketsConfig(step=step, most=most).shapes(size)
    assert (size, size) in shapes
    assert len(set(shapes)) == len(shapes)
    assert {(width, height) for height, width in shapes} == set(shapes)
    assert [w / h for h, w in shapes] == sorted(w / h for h, w in shapes)
    for height, width in shapes:
        assert not height % step
        assert not width % step
        assert max(height / width, width / height) <= most
        assert abs(height * width - size**2) <= step / 2 * max(height, width)


def test_the_shapes_of_512_in_steps_of_64_are_seven():
    tall = ((704, 384), (640, 384), (576, 448))
    wide = ((448, 576), (384, 640), (384, 704))
    assert BucketsConfig(step=64).shapes(512) == (*tall, (512, 512), *wide)


def test_without_a_step_there_is_the_square():
    assert BucketsConfig().shapes(33) == ((33, 33),)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (lambda: BucketsConfig(step=-1), "step -1 must be 0 or more"),
        (lambda: BucketsConfig(most=0.5), r"most 0\.5 1 or more"),
        (lambda: BucketsConfig(most=math.nan), "most nan 1 or more"),
        (lambda: BucketsConfig(step=48).shapes(256), "48 does not divide the size of 256 pixels"),
        (lambda: BucketsConfig(step=1).shapes(256), "makes .* shapes, at most 63"),
        (lambda: ExperimentConfig(size=32, buckets=BucketsConfig(step=5)), "5 does not divide"),
    ],
)
def test_what_cannot_be_is_refused(config, said):
    with pytest.raises(UserError, match=said):
        config()


# -- what goes into each


def test_a_picture_goes_to_the_shape_of_the_nearest_ratio():
    aspects = np.array([1e-9, 0.5, 0.70, 0.71, 1, 1.41, 1.42, 2, np.inf, np.nan], np.float32)
    assert nearest(aspects, SHAPES).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 1]


def test_a_fake_source_of_many_shapes_is_one():
    assert isinstance(many(), Shaped)


def test_every_example_is_in_one_bucket():
    source = bucketed(many(length=3 * BLOCK + 40), SHAPES, 8)
    found = [int(source[i].captions["en"]) for i in range(len(source))]
    assert sorted(found) == list(range(3 * BLOCK + 40))
    assert source.shapes == SHAPES
    assert [len(part) for part in source.together.parts] == [778, 778, 1556]


def test_its_line_says_how_many_shapes_there_are_and_of_how_many_pictures():
    said = bucketed(many(), SHAPES, 8).summary
    assert said.startswith(
        "3 shapes of pictures: 6 x 3 (60), 4 x 4 (60), 3 x 6 (120); looked at in"
    )


def test_a_bucket_of_less_than_a_batch_goes_to_the_nearest():
    widths = (0.5,) * 2 + (1.0,) * 90 + (2.0,) * 8
    source = bucketed(many(100, widths), SHAPES, 8)
    assert source.shapes == (SQUARE, WIDE)
    assert (
        "2 shapes of pictures: 4 x 4 (92 of which 2 of rarer shapes), 3 x 6 (8);" in source.summary
    )
    assert source[0].picture.shape == (4, 4, 3)


def test_of_few_examples_in_all_the_commonest_shape_is_left():
    source = bucketed(many(8, (0.5, 0.5, 0.5, 0.5, 1.0, 2.0, 2.0, 2.0)), SHAPES, 64)
    assert source.shapes in (((6, 3),), ((4, 4),), ((3, 6),))
    assert len(source) == 8


def test_pictures_of_no_known_shape_are_squares():
    assert bucketed(many(20, (math.nan,)), SHAPES, 4).shapes == (SQUARE,)


def test_a_source_of_squares_is_refused():
    for source in (EmojiConfig(concepts=4).build(8), Plain(9), split(Plain(90), 0.5).learned):
        with pytest.raises(UserError, match="has square pictures alone; leave it at 0"):
            bucketed(source, SHAPES, 4)


# -- the batches


@pytest.mark.parametrize("window", [0, 1])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_in_an_epoch_of_every_bucket_each_example_is_seen_once_by_any_processes(world, window):
    source = bucketed(many(), SHAPES, 12)
    parts = [read(source, 40, rank=rank, world=world, window=window) for rank in range(world)]
    seen: dict[tuple[int, int], list[int]] = {shape: [] for shape in SHAPES}
    for ranks in zip(*parts, strict=True):
        (shape,) = {shape for shape, _ in ranks}
        seen[shape] += [number for _, numbers in ranks for number in numbers]
    # Of 40 batches every bucket has had its share: two epochs of all 240.
    for number, shape in enumerate(SHAPES):
        own = [
            i for i in range(240) if nearest(np.float32([many().widths[i % 4]]), SHAPES) == number
        ]
        epochs = [seen[shape][i : i + len(own)] for i in range(0, len(seen[shape]), len(own))]
        assert [sorted(epoch) for epoch in epochs] == [own, own]


@pytest.mark.parametrize("start", [12, 120, 12_288])
def test_a_run_that_goes_on_has_the_batches_that_it_would_have_had(start):
    source = bucketed(many(), SHAPES, 12)
    with unchecked():
        whole = read(source, start // 12 + 6)
        assert read(source, 6, start=start) == whole[start // 12 :]
        halves = [read(source, 6, start, rank, 2) for rank in range(2)]
    for (shape, numbers), one, other in zip(whole[start // 12 :], *halves, strict=True):
        assert shape == one[0] == other[0]
        assert sorted(numbers) == sorted(one[1] + other[1])


def test_shapes_come_in_exact_shares():
    order = order_of(bucketed(many(), SHAPES, 12), 0, 0)
    with unchecked():
        counts = Counter(order.turn(12 * n)[0] for n in range(20))
    assert counts == {0: 5, 1: 5, 2: 10}


def test_a_broken_picture_is_replaced_by_one_of_its_shape():
    source = bucketed(many(broken=frozenset(range(0, 240, 8))), SHAPES, 12)
    for shape, numbers in read(source, 20):
        assert all(SHAPES[(0, 1, 2, 2)[number % 4]] == shape for number in numbers)


def test_windows_of_all_buckets_go_through_the_shards_together():
    source = bucketed(replace(many(2_400), shards=(240,) * 10), SHAPES, 12)
    shards = [{n // 240 for n in numbers} for _, numbers in read(source, 200, window=1)]
    assert max(len(set().union(*shards[i : i + 5])) for i in range(195)) <= 3


def test_a_mixture_keeps_its_shares_in_all_and_in_each_example_once():
    first, second = many(120, (1.0,)), many(240, (0.5, 1.0, 2.0, 2.0), first=120)
    source = bucketed(Mixture((first, Mixture((second,), (1.0,))), (3.0, 1.0)), SHAPES, 12)
    assert list(map(float, source.weights)) == [1 / 16, 13 / 16, 1 / 8]
    with unchecked():
        numbers = [number for _, batch in read(source, 1024) for number in batch]
    assert np.mean([number < 120 for number in numbers]) == pytest.approx(0.75, abs=0.01)
    assert set(numbers) == set(range(360))


def test_what_is_held_out_is_in_no_bucket():
    learned, held_out = split(many(), 0.2)
    held = {held_out.place(i) for i in range(len(held_out))}
    source = bucketed(learned, SHAPES, 12)
    assert {n for _, numbers in read(source, 40) for n in numbers} == set(range(240)) - held
    assert all(SHAPES[(0, 1, 2, 2)[n % 4]] == shape for shape, ns in read(source, 9) for n in ns)


def test_another_shape_than_was_said_does_not_leave_the_loader():
    @dataclass(frozen=True)
    class Stubborn(Many):
        def reshaped(self, size: tuple[int, int]) -> Many:
            return replace(self, size=(5, 5))

    source = bucketed(Stubborn(24, shards=(24,)), SHAPES, 12)
    with pytest.raises(UserError, match="pictures of 5 x 5 among 1 shape of"):
        read(source, 1)


@pytest.mark.parametrize(("size", "start"), [(12, 6), (6, 12)])
def test_a_batch_that_would_be_of_two_shapes_is_no_batch(size, start):
    source = bucketed(many(), SHAPES, 12)
    with pytest.raises(ValueError, match=f"no batch of {size} begins at {start}"):
        next(batches(source, BatchConfig(size=size), 0, start))


def test_it_can_be_pickled_for_workers():
    source = bucketed(many(), SHAPES, 12)
    again = pickle.loads(pickle.dumps(source))
    assert [again[i].captions for i in range(9)] == [source[i].captions for i in range(9)]
    assert len(pickle.dumps(bucketed(many(100_000), SHAPES, 12))) < 110_000  # a byte an example


# -- of real files


def folder(root: Path, sizes: list[tuple[int, int]]) -> Path:
    for i, (height, width) in enumerate(sizes):
        picture = np.full((height, width, 3), i % 250, np.uint8)
        Image.fromarray(picture).save(root / f"{i:03d}.png")
        (root / f"{i:03d}.txt").write_text(f"{i}")
    return root


EXTREME = [(1, 1), (1, 400), (400, 1), (2, 3), (3, 2), (64, 64), (7, 500), (500, 7)]


def test_of_pictures_of_extreme_ratios_every_batch_has_a_declared_shape(tmp_path):
    shapes = BucketsConfig(step=8).shapes(32)
    whole = FolderConfig(path=folder(tmp_path, EXTREME * 4)).build(32)
    (tmp_path / "005.png").write_bytes(b"torn")
    source = bucketed(whole, shapes, 4)
    for flip in (False, True):
        found = read(source, 24, flip=flip)
        assert {shape for shape, _ in found} == set(source.shapes) <= set(shapes)
        assert sum(len(numbers) for _, numbers in found) == 96
    numbers = {
        int(source[i].captions["caption"]) for i in range(len(source)) if i != at_broken(source)
    }
    assert numbers == set(range(32)) - {5}


def at_broken(source: Buckets) -> int:
    with_errors = []
    for i in range(len(source)):
        try:
            source[i]
        except Exception:
            with_errors.append(i)
    assert len(with_errors) == 1
    return with_errors[0]


def test_the_config_goes_through_json(tmp_path):
    from flowbrush import config_io

    config = ExperimentConfig(buckets=BucketsConfig(step=8), stages=((100, 16), (200, 24)))
    config_io.save(config, tmp_path / "config.json")
    assert config_io.load(ExperimentConfig, tmp_path / "config.json") == config
    older = {
        k: v
        for k, v in json.loads((tmp_path / "config.json").read_text()).items()
        if k not in ("buckets", "stages")
    }
    read_again = config_io.from_json(ExperimentConfig, older, "config.json")
    assert (read_again.buckets, read_again.stages) == (BucketsConfig(), ())
