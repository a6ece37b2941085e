"""Which captions are painted, and which examples they belong to."""

import numpy as np
import pytest
import torch
from drawn import SOURCE

from flowbrush.data.source import Example, UnreadablePicture
from flowbrush.errors import UserError
from flowbrush.evaluate.asked import asked, sheet
from flowbrush.evaluate.spread import spread


class Half:
    """A Source of ten grey pictures of which the odd ones are broken; the last has no Japanese."""

    classes: tuple[str, ...] = ()
    attribution = ""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, i: int) -> Example:
        if i % 2:
            raise UnreadablePicture(f"{i}.png", "cut short")
        captions = {"en": f"grey {i}"} if i == 8 else {"en": f"grey {i}", "ja": f"灰 {i}"}
        return Example(np.full((2, 2, 3), i, np.uint8), captions, truth=i)


def test_captions_come_kind_after_kind():
    what = asked(SOURCE, 5)
    assert what.kinds == ("en", "ja")
    assert len(what) == 5
    assert len(what.captions) == 10
    for kind in what.kinds:
        own = [SOURCE[i].captions[kind] for i in what.indices]
        assert list(what.captions[what.of(kind)]) == own


def test_the_examples_lie_evenly_over_the_source():
    assert list(spread(5, 60)) == [0, 12, 24, 36, 48]
    assert list(spread(0, 4)) == list(spread(9, 4)) == [0, 1, 2, 3]


def test_real_pictures_come_in_parts_and_in_order():
    what = asked(SOURCE, 7)
    parts = list(what.real(together=3))
    assert [len(part) for part in parts] == [3, 3, 1]
    for picture, i in zip(torch.cat(parts), what.indices, strict=True):
        assert np.array_equal(picture.permute(1, 2, 0).numpy(), SOURCE[i].picture)


def test_broken_pictures_are_not_asked_for():
    what = asked(Half(), 0, ("en",))
    assert what.indices == what.truths == (0, 2, 4, 6, 8)


def test_an_example_that_lacks_a_kind_is_not_asked_for():
    what = asked(Half(), 0)
    assert (what.kinds, what.indices) == (("en", "ja"), (0, 2, 4, 6))
    assert what.captions[4:] == ("灰 0", "灰 2", "灰 4", "灰 6")


def test_a_kind_that_no_example_has_is_refused():
    with pytest.raises(UserError, match="--kinds fr: no picture has it; one of them has en, ja"):
        asked(SOURCE, 3, ("fr",))


def test_a_source_without_readable_pictures_is_refused(monkeypatch):
    monkeypatch.setattr(Half, "__len__", lambda _: 2)
    monkeypatch.setattr(Half, "__getitem__", lambda _, i: Half.broken(i))
    monkeypatch.setattr(Half, "broken", broken, raising=False)
    with pytest.raises(UserError, match="no picture that can be read"):
        asked(Half(), 0)


def broken(i: int) -> Example:
    raise UnreadablePicture(f"{i}.png", "cut short")


def test_the_sheet_has_a_row_for_each_kind_of_caption():
    one, two = asked(SOURCE, 9, ("en",)), asked(SOURCE, 9)
    single, double = (sheet(what, [*what.real()] * len(what.kinds), each=3) for what in (one, two))
    assert single.width == double.width
    assert double.height > 1.7 * single.height


class Captioned:
    """A Source of grey pictures, each with one caption."""

    attribution = ""

    def __init__(self, *rows: tuple[int, str], classes: tuple[str, ...] = ()) -> None:
        self.rows, self.classes = rows, classes

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> Example:
        grey, caption = self.rows[i]
        return Example(np.full((2, 2, 3), grey, np.uint8), {"text": caption, "copy": caption})


def test_examples_of_one_image_or_one_caption_are_a_group_in_every_kind():
    # the first and the last are linked by the second: its image, then its caption
    what = asked(Captioned((1, "a"), (1, "b"), (2, "c"), (3, "b")), 0)
    first, second, third, last = what.groups[:4].tolist()
    assert first == second == last != third
    assert what.groups.tolist() == 2 * [first, second, third, last]


def test_examples_of_one_class_are_independent():
    what = asked(Captioned((1, "cat"), (2, "cat"), (2, "dog"), classes=("cat", "dog")), 0)
    assert [len(set(what.groups[rows].tolist())) for rows in ([0, 1], [1, 2])] == [2, 1]
