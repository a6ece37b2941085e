"""Class names to numbers."""

import pytest
import torch

from flowbrush.errors import UserError
from flowbrush.shapes import ConditionShapes
from flowbrush.text.labels import LabelsConfig

CPU = torch.device("cpu")
ANIMALS = LabelsConfig(names=("cat", "dog", "狐")).build(CPU)


def test_a_class_is_its_place_among_the_names():
    assert ANIMALS(["狐", "cat", "dog", "cat"]).label.tolist() == [2, 0, 1, 0]


def test_null_is_the_number_after_the_last():
    assert ANIMALS.null.label.tolist() == [3]


def test_shapes_count_the_classes_without_the_null():
    assert ANIMALS.shapes == ConditionShapes(labels=3)


def test_an_unknown_class_is_refused_with_the_nearest():
    with pytest.raises(UserError, match=r"'dogs' is not a class .* did you mean 'dog'\?"):
        ANIMALS(["cat", "dogs"])


def test_an_unknown_class_near_nothing_is_refused_with_the_known():
    with pytest.raises(UserError, match=r"'zebra' is not a class of this model \(cat, dog, 狐\)$"):
        ANIMALS(["zebra"])


def test_of_many_classes_ten_are_told():
    digits = LabelsConfig(names=tuple(f"n{i:02}" for i in range(11))).build(CPU)
    with pytest.raises(UserError, match=r"n08, n09, \.\.\.\)"):
        digits(["zebra"])


def test_only_the_label_is_there():
    condition = ANIMALS(["cat"])
    assert condition.text is condition.text_mask is condition.pooled is None


def test_a_class_that_is_not_heard_is_null():
    silent = torch.tensor([[False], [True]])
    assert ANIMALS(["dog", "dog"], silent).label.tolist() == [1, 3]


def test_many_classes_are_a_condition_each():
    rows = ANIMALS.encode_many(["狐", "cat"], batch=2)
    assert [row.label.tolist() for row in rows] == [[2], [0]]


def test_labels_are_one_part_that_cuts_nothing():
    assert (ANIMALS.parts, ANIMALS.cut) == (1, 0)
