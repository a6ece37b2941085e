"""A run is judged by what its source knows."""

from dataclasses import replace

import pytest
from tiny import tiny, untrained

from flowbrush.data import EmojiConfig
from flowbrush.learn.judging import Judged, judged, table
from flowbrush.plan.flops import LEARNING


@pytest.fixture(scope="module")
def found() -> Judged:
    return judged(untrained(replace(tiny(), source=EmojiConfig(concepts=6))), most=4)


def test_every_name_is_painted_and_judged(found: Judged) -> None:
    assert len(found.what) == 4
    assert found.pictures.shape == (8, 3, 16, 16)
    assert [*found.right] == ["en", "ja"]
    assert all(0 <= share <= 1 for share, _, _ in found.right.values())
    assert 0 < found.psnr[0] < 30
    assert found.seconds > 0


def test_what_its_training_took_is_counted(found: Judged) -> None:
    weights = found.parameters
    linear = LEARNING * 2 * weights * 160  # pictures; each weight once, as for one token
    assert weights > 10_000
    assert linear / 4 < found.flops < 10 * linear


def test_the_table_has_each_runs_figures(found: Judged) -> None:
    many = replace(found, psnr=(9.0, 8.5, 9.5), right={"en": (0.5, 0.4, 0.6)})
    few, more = table({"few": found}), table({"many": many})
    assert few.startswith("few: right first en ")
    assert "nan" not in few  # too few for an interval
    assert "9.0 (8.5 to 9.5) dB" in more
    assert "en 50% (40% to 60%), of 4 names each" in more
