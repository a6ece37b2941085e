"""What is measured of painted pictures whose faults are known."""

import numpy as np
import pytest
import torch
from drawn import SOURCE, Draughtsman

from flowbrush.condition import Condition
from flowbrush.data.source import Example
from flowbrush.errors import UserError
from flowbrush.evaluate.asked import asked
from flowbrush.evaluate.efficientnet import EfficientNetConfig
from flowbrush.evaluate.gaussian import gaussian
from flowbrush.evaluate.intervals import cautions
from flowbrush.evaluate.measure import Comparison, by_features, by_source, comparison
from flowbrush.evaluate.reference import Reference
from flowbrush.evaluate.vision_transformers import CLIPFeaturesConfig
from flowbrush.shapes import ConditionShapes
from flowbrush.text.cached import CachedEncoder


class Greys:
    """A Source: example i is the grey 20 i + 15 beside a white pixel."""

    classes: tuple[str, ...] = ()
    attribution = ""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, i: int) -> Example:
        picture = np.full((2, 2, 3), 20 * i + 15, np.uint8)
        picture[0, 0] = 255
        return Example(picture, {"en": f"grey {i}", "ja": f"灰 {i}"})


def values(measured) -> dict[str, float]:
    return {one.name: one.value for one in measured}


def test_what_the_drawn_world_draws_follows_its_captions():
    what = asked(SOURCE, 0)
    found = values(by_source(what, [Draughtsman().generate(what.captions)]))
    assert set(found.values()) == {1.0}
    assert {"followed, English", "followed, Japanese", "position, English"} <= set(found)


def test_a_wrong_picture_in_three_is_counted_in_each_kind():
    what = asked(SOURCE, 0)
    found = by_source(what, [Draughtsman(wrong=3).generate(what.captions)])
    followed = [one for one in found if one.name.startswith("followed")]
    assert [one.value for one in followed] == [pytest.approx(2 / 3)] * 2
    assert all(one.low < 2 / 3 < one.high for one in followed)


def test_parts_of_any_size_give_the_same_figures():
    what = asked(SOURCE, 0)
    pictures = Draughtsman(wrong=5).generate(what.captions)
    assert by_source(what, [pictures]) == by_source(what, pictures.split(7))


def test_other_pictures_are_right_where_their_own_is_nearest():
    what = asked(Greys(), 0)
    real = torch.cat([*what.real()])
    found = values(by_source(what, [real, real[[0, 0, 0, 0, 0]]]))
    assert found["right first, English"] == 1.0
    assert found["right first, Japanese"] == 0.2
    assert found["white ground error, English"] == 0.0


def test_a_kind_of_caption_keeps_its_own_name():
    class Long(Greys):
        def __getitem__(self, i: int) -> Example:
            return Example(super().__getitem__(i).picture, {"long": f"a grey of {i}"})

    what = asked(Long(), 0)
    assert "right first, long" in values(by_source(what, [*what.real()]))


def test_clip_measures_pictures_and_their_captions(tmp_path, monkeypatch):
    class Stub:
        """Features: the mean colour."""

        name, width = "mean colour", 3

        def __call__(self, pictures):
            return torch.nn.functional.normalize(pictures.float().mean(dim=(2, 3)))

    class Words:
        """A TextModel of ones."""

        cut = 0

        def __call__(self, captions: list[str]) -> list[Condition]:
            return [Condition(pooled=torch.ones(1, 3)) for _ in captions]

        def in_batches(self, captions: list[str], batch: int) -> list[Condition]:
            return self(captions)

    words = CachedEncoder([Words()], ConditionShapes(pooled_width=3))
    monkeypatch.setattr(CLIPFeaturesConfig, "build", lambda *_: Stub())
    monkeypatch.setattr(CLIPFeaturesConfig, "build_text", lambda *_: words)
    what = asked(SOURCE, 30)
    painted = [*what.real(), *what.real()]
    by = comparison(CLIPFeaturesConfig(), None, what, torch.device("cpu"))
    found = values(by_features(what, painted, by, tmp_path))
    assert set(found) == {"CMMD", "unbiased CMMD", "CLIP score"}
    assert found["CMMD"] == pytest.approx(0.0, abs=1e-6)
    assert 90 < found["CLIP score"] <= 100, "white ground points where all ones do"


def test_images_of_one_color_are_told_in_every_figure():
    what = asked(Greys(), 0)
    black = torch.zeros(10, 3, 2, 2, dtype=torch.uint8)
    found = by_source(what, [black])
    told = "10 of 10 painted images are of one color; only 1 of 10 painted images are distinct"
    assert {one.note for one in found} == {told}
    assert cautions(found) == [told]


def test_images_that_differ_are_told_nothing_of():
    what = asked(Greys(), 0, ("en",))
    assert {one.note for one in by_source(what, [*what.real()])} == {""}


class Means:
    """PictureFeatures: the mean of each channel; not a number of black images."""

    name, width = "means", 3

    def __call__(self, pictures):
        means = pictures.float().mean(dim=(2, 3))
        return torch.where(means == 0, torch.nan, means)


def test_features_that_are_not_finite_are_refused(tmp_path):
    what = asked(Greys(), 0, ("en",))
    by = Comparison(Means(), None, None, torch.ones(5, 3))
    with pytest.raises(UserError, match="features of 5 of 5 pictures are not finite"):
        by_features(what, [torch.zeros(5, 3, 2, 2, dtype=torch.uint8)], by, tmp_path)


def test_a_reference_of_another_size_is_told_one_of_no_use_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(EfficientNetConfig, "build", lambda self, device: Means())
    what, file = asked(Greys(), 0, ("en",)), tmp_path / "r.npz"
    real = torch.rand(12, 3)
    Reference(gaussian(real), "means", vectors=real, size=64).save(file)
    by = comparison(EfficientNetConfig(), file, what, torch.device("cpu"))
    found = by_features(what, [*what.real()], by, tmp_path)
    assert {one.note for one in found} == {"the reference is of 64 px, the run is of 2 px"}
    Reference(gaussian(real), "means", vectors=real).save(file)
    by = comparison(EfficientNetConfig(), file, what, torch.device("cpu"))
    assert by.note == "the reference does not say of what size its images are, the run is of 2 px"
    Reference(gaussian(real), "means").save(file)
    with pytest.raises(UserError, match="keeps no vectors"):
        comparison(EfficientNetConfig(), file, what, torch.device("cpu"))
