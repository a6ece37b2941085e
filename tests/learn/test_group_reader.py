"""A judge that says how good it is."""

from dataclasses import dataclass

import numpy as np
import torch

from flowbrush.data.source import Example, stacked
from flowbrush.learn.group_reader import _fold, counted, group_reader

COLOURS = [(220, 30, 30), (30, 180, 40), (40, 60, 220)]
DRAWN_BY_LOT = np.random.default_rng(0).permutation(30) % 3


@dataclass
class Discs:
    """Discs of three colours and several sizes; `truth` is the colour's number."""

    mixed: bool = False  # the truth is drawn by lot
    classes = ("red", "green", "blue")
    attribution = ""

    def __len__(self) -> int:
        return 30

    def __getitem__(self, i: int) -> Example:
        y, x = np.mgrid[:32, :32] - 15.5
        picture = np.full((32, 32, 3), 255, np.uint8)
        picture[np.hypot(x, y) < 5 + i // 3] = COLOURS[i % 3]
        return Example(
            picture, {"en": "a disc"}, truth=int(DRAWN_BY_LOT[i]) if self.mixed else i % 3
        )


def test_what_is_easy_is_read_right():
    source = Discs()
    reader = group_reader(source)
    assert reader.accuracy == 1
    pictures = stacked([source[i].picture for i in range(6)])
    assert reader(pictures).tolist() == [0, 1, 2, 0, 1, 2]


def test_its_accuracy_is_of_pictures_that_it_was_not_fitted_on():
    """Here it could know each picture by heart, and knows nothing of another."""
    reader = group_reader(Discs(mixed=True))
    assert reader.accuracy < 0.7
    assert reader.read.shape == reader.groups.shape == (30,)


def test_each_tenth_has_some_of_each_group():
    groups = torch.arange(160) // 16
    folds = _fold(groups)
    assert sorted(folds.unique().tolist()) == list(range(10))
    per = torch.stack([torch.bincount(folds[groups == group], minlength=10) for group in range(10)])
    assert int(per.min()) >= 1 and int(per.max()) <= 2


def test_as_many_pictures_as_are_asked_for():
    assert len(group_reader(Discs(), most=12).groups) == 12


def test_what_was_asked_for_is_a_row_and_what_was_read_a_column():
    table = counted([0, 0, 0, 1], torch.tensor([0, 1, 1, 1]), 3)
    assert table.tolist() == [[1, 2, 0], [0, 1, 0], [0, 0, 0]]
