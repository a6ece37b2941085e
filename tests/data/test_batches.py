"""The order of pictures: a function of the seed and the place, however the work is shared out."""

import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from flowbrush.data.batches import Batch, BatchConfig, batches
from flowbrush.data.shapes_world import ShapesWorldConfig
from flowbrush.data.source import Example, UnreadablePicture
from flowbrush.errors import UserError


@dataclass(frozen=True)
class Numbered:
    """Example i is i on the left and 200 on the right, in all channels but the last, and called
    "i"."""

    length: int
    broken: frozenset[int] = frozenset()
    languages: tuple[str, ...] = ("en",)
    classes: tuple[str, ...] = field(default=(), init=False)
    attribution: str = field(default="", init=False)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> Example:
        if i in self.broken:
            raise UnreadablePicture(f"{i}.png", "torn")
        picture = np.full((2, 2, 3), i, np.uint8)
        picture[:, 1] = 200
        picture[..., 2] = 7
        return Example(picture, {language: f"{language} {i}" for language in self.languages})


def take(count: int, source: Numbered, seed: int = 0, start: int = 0, **choices) -> list[Batch]:
    """The first batches of one process."""
    with closing(batches(source, BatchConfig(**choices), seed, start)) as loader:
        return list(islice(loader, count))


def numbers(found: list[Batch]) -> list[int]:
    return [int(caption.split()[1]) for batch in found for caption in batch.captions]


def flips(found: list[Batch]) -> list[bool]:
    return [bool(left == 200) for batch in found for left in batch.pictures[:, 0, 0, 0]]


def same(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a.pictures, b.pictures)
        and (a.captions, a.places, list(map(str, a.broken)))
        == (b.captions, b.places, list(map(str, b.broken)))
        for a, b in zip(first, second, strict=True)
    )


# -- one batch


def test_a_batch_is_bytes_with_channels_first():
    pictures = take(1, Numbered(8), size=4)[0].pictures
    assert (pictures.dtype, pictures.shape) == (torch.uint8, (4, 3, 2, 2))
    assert (pictures[:, 2] == 7).all()


def test_a_picture_keeps_its_caption():
    found = take(3, Numbered(12), size=4)
    assert torch.cat([batch.pictures for batch in found])[:, 0, 0, 0].tolist() == numbers(found)


@pytest.mark.parametrize("wrong", [{"size": 0}, {"workers": -1}])
def test_a_batch_of_nothing_is_refused(wrong):
    with pytest.raises(UserError, match="batch"):
        BatchConfig(**wrong)


# -- the order


def test_places_count_up():
    found = take(3, Numbered(7), size=4)
    assert [place for batch in found for place in batch.places] == list(range(12))


def test_every_example_comes_once_an_epoch():
    assert sorted(numbers(take(3, Numbered(12), size=4))) == list(range(12))


def test_an_epoch_may_end_within_a_batch():
    order = numbers(take(5, Numbered(10), size=4))
    assert sorted(order[:10]) == sorted(order[10:]) == list(range(10))


def test_a_batch_may_be_larger_than_the_source():
    assert sorted(numbers(take(1, Numbered(3), size=6))) == [0, 0, 1, 1, 2, 2]


def test_each_epoch_is_shuffled_differently():
    order = numbers(take(3, Numbered(30), size=30))
    assert len({tuple(order[i : i + 30]) for i in (0, 30, 60)} | {tuple(range(30))}) == 4


def test_the_same_seed_gives_the_same_order():
    assert same(take(4, Numbered(9), seed=5, size=3), take(4, Numbered(9), seed=5, size=3))


def test_another_seed_gives_another_order():
    first, second = (numbers(take(1, Numbered(30), seed=seed, size=30)) for seed in (0, 1))
    assert first != second


def test_the_order_does_not_depend_on_the_size_of_a_batch():
    choices = {"source": Numbered(10, languages=("en", "ja")), "flip": True}
    small, large = take(6, size=2, **choices), take(2, size=6, **choices)
    assert [c for b in small for c in b.captions] == [c for b in large for c in b.captions]
    assert flips(small) == flips(large)


@pytest.mark.parametrize("start", [4, 12, 6])
def test_starting_later_gives_the_tail_of_the_run(start):
    source = Numbered(10, broken=frozenset({3}), languages=("en", "ja"))
    whole = take(start + 5, source, size=1, flip=True)
    assert same(take(5, source, start=start, size=1, flip=True), whole[start:])


def test_processes_share_out_every_batch():
    source = Numbered(10, broken=frozenset({3}), languages=("en", "ja"))
    config = BatchConfig(size=4, flip=True)
    whole = take(4, source, size=4, flip=True)
    shares = []
    for rank in (0, 1):
        with closing(batches(source, config, 0, 0, rank, 2)) as loader:
            shares.append(list(islice(loader, 4)))
    for rank, share in enumerate(shares):
        for own, every in zip(share, whole, strict=True):
            assert torch.equal(own.pictures, every.pictures[rank::2])
            assert (own.captions, own.places) == (every.captions[rank::2], every.places[rank::2])


def test_worker_processes_give_the_same_batches():
    source = Numbered(10, broken=frozenset({3}), languages=("en", "ja"))
    alone = take(5, source, size=4, flip=True)
    assert same(take(5, source, size=4, flip=True, workers=2), alone)


# -- captions and flips


def test_each_caption_of_an_example_is_chosen_about_as_often():
    found = take(10, Numbered(20, languages=("en", "ja")), size=100)
    japanese = sum(caption.startswith("ja") for batch in found for caption in batch.captions)
    assert 450 < japanese < 550


def test_an_example_is_called_by_one_caption_then_by_another():
    found = take(20, Numbered(1, languages=("en", "ja")), size=1)
    assert {caption for batch in found for caption in batch.captions} == {"en 0", "ja 0"}


def test_about_half_of_the_pictures_are_flipped():
    assert 450 < sum(flips(take(10, Numbered(20), size=100, flip=True))) < 550


def test_a_flipped_picture_is_mirrored_left_to_right():
    plain = take(1, Numbered(20), size=20)[0].pictures
    found = take(1, Numbered(20), size=20, flip=True)
    mirrored = torch.tensor(flips(found)).view(-1, 1, 1, 1)
    assert torch.equal(found[0].pictures, torch.where(mirrored, plain.flip(3), plain))


def test_nothing_is_flipped_unasked():
    assert not any(flips(take(1, Numbered(20), size=100)))


def test_a_flip_is_not_tied_to_an_example():
    assert set(flips(take(20, Numbered(1), size=1, flip=True))) == {False, True}


# -- broken pictures

TORN = Numbered(10, broken=frozenset({3, 4}))


def test_broken_pictures_are_replaced_by_others():
    assert not {3, 4} & set(numbers(take(5, TORN, size=4)))


def test_batches_stay_full_where_pictures_are_broken():
    found = take(5, TORN, size=4)
    assert [(len(b.pictures), len(b.captions), len(b.places)) for b in found] == [(4, 4, 4)] * 5


def test_the_places_of_the_others_keep_their_pictures():
    whole, torn = numbers(take(1, Numbered(10), size=10)), numbers(take(1, TORN, size=10))
    assert [a for a in whole if a not in (3, 4)] == [
        b for a, b in zip(whole, torn, strict=True) if a not in (3, 4)
    ]


def test_broken_pictures_are_reported_with_the_batch_that_skipped_them():
    whole, torn = Numbered(100), Numbered(100, broken=frozenset({42}))
    for expected, found in zip(take(10, whole, size=10), take(10, torn, size=10), strict=True):
        skipped = ["42.png"] if 42 in numbers([expected]) else []
        assert [error.name for error in found.broken] == skipped


def test_a_broken_picture_is_replaced_by_the_same_one_each_time():
    assert same(take(5, TORN, size=4), take(5, TORN, size=4))


def test_whole_pictures_are_not_reported():
    assert [batch.broken for batch in take(3, Numbered(10), size=4)] == [[], [], []]


def test_a_source_without_a_readable_picture_is_refused():
    with pytest.raises(UserError, match=r"\.png: torn .* no readable pictures"):
        take(1, Numbered(3, broken=frozenset({0, 1, 2})), size=2)


def test_captions_come_in_the_shares_that_are_asked_for() -> None:
    config = BatchConfig(size=800, captions=(("en", 0.8), ("ja", 0.2)))
    source = ShapesWorldConfig(scenes=400).build(8)
    with closing(batches(source, config, seed=0, start=0)) as loader:
        captions = [c for _, batch in zip(range(2), loader, strict=False) for c in batch.captions]
    english = sum(caption.isascii() for caption in captions) / len(captions)
    assert abs(english - 0.8) < 0.03


def test_a_kind_of_caption_that_is_not_there_is_refused() -> None:
    config = BatchConfig(size=4, captions=(("long", 1.0),))
    with (
        closing(batches(ShapesWorldConfig(scenes=9).build(8), config, seed=0, start=0)) as loader,
        pytest.raises(UserError, match=r"no caption long; there is en, ja .*batch\.captions"),
    ):
        next(loader)


READING = """
import multiprocessing
from flowbrush.data import ShapesWorldConfig
from flowbrush.data.batches import BatchConfig, batches

if __name__ == "__main__":
    loader = batches(ShapesWorldConfig(scenes=64).build(16), BatchConfig(size=4, workers=2), 0, 0)
    next(loader)
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    for _ in loader:
        pass
"""


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="where Linux keeps semaphores")
def test_workers_of_a_process_that_was_killed_end_and_leave_nothing(tmp_path):
    script = tmp_path / "reading.py"
    script.write_text(READING)
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as reading:
        workers = [Path("/proc", word) for word in reading.stdout.readline().split()]
        maps = Path(f"/proc/{reading.pid}/maps").read_text().splitlines()
        reading.kill()
    semaphores = {Path(line.split()[5]) for line in maps if "/dev/shm/" in line}
    assert len(workers) == 2 and semaphores
    patience = 600
    while patience and any(there.exists() for there in (*workers, *semaphores)):
        time.sleep(0.1)
        patience -= 1
    assert patience, "a worker lives, or its semaphores are there"
