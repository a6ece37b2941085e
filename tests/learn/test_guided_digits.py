from collections.abc import Iterator

import matplotlib
import pytest
import torch
from matplotlib import pyplot as plt
from tiny import untrained

from flowbrush.data.idx import Idx, IdxConfig
from flowbrush.flow.sampling import SamplingConfig
from flowbrush.learn.digits import DigitReader
from flowbrush.learn.guidance import (
    Judge,
    Judged,
    Velocities,
    counted,
    draw_intervals,
    draw_rows,
    draw_scales,
    draw_velocities,
)
from flowbrush.recipes import recipe
from flowbrush.text_to_image import TextToImage

JUDGED = [Judged((0.5, 0.4, 0.6), 0.9, 0.8, 3.0), Judged((1.0, 0.9, 1.0), 1.1, 0.6, 4.0)]


@pytest.fixture
def source() -> Idx:
    idx = IdxConfig().build(28)
    idx.pictures, idx.labels = idx.pictures[::25], idx.labels[::25]
    return idx


@pytest.fixture
def painter() -> TextToImage:
    """Of the recipe's own shape, untrained."""
    return untrained(recipe("learn-3-guidance"))


@pytest.fixture
def figure(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = matplotlib.get_backend()
    plt.switch_backend("agg")
    yield
    plt.close("all")
    plt.switch_backend(before)


def said() -> str:
    """All that is written in the figure that was drawn last."""
    plt.gcf().canvas.draw()
    return " ".join(text.get_text() for axis in plt.gcf().axes for text in axis.texts)


def test_real_digits_are_judged_to_be_like_real_ones(source: Idx) -> None:
    pictures = torch.from_numpy(source.pictures)[:, None].repeat(1, 3, 1, 1)
    labels = torch.from_numpy(source.labels).long()
    judged = Judge(DigitReader().eval(), source)(pictures, labels)
    assert judged.white == judged.spread == 1
    assert judged.distance == pytest.approx(0, abs=1e-3)


def test_copies_of_one_digit_a_class_have_no_spread(source: Idx) -> None:
    labels = torch.arange(10).repeat(3)
    one = [source.pictures[(source.labels == label).argmax()] for label in range(10)]
    pictures = torch.stack([torch.from_numpy(p) for p in one])[:, None].repeat(3, 3, 1, 1)
    judged = Judge(DigitReader().eval(), source)(pictures, labels)
    assert judged.spread == pytest.approx(0, abs=1e-6)
    assert judged.distance > 0


def test_the_share_that_is_read_as_asked_stands_with_its_interval(source: Idx) -> None:
    judge = Judge(DigitReader().eval(), source)
    pictures = torch.zeros(20, 3, 28, 28, dtype=torch.uint8)
    read = judge.reader.read(pictures)
    asked = torch.cat([read[:10], (read[10:] + 1) % 10])
    right, low, high = judge(pictures.repeat(1, 1, 1, 1), asked).right
    assert right == 0.5
    assert low < 0.5 < high


@pytest.mark.parametrize(
    ("interval", "passes"), [((0.0, 1.0), 6), ((0.0, 0.0), 3), ((0.0, 0.4), 4)]
)
def test_passes_are_counted_twice_where_guidance_acts(
    painter: TextToImage, interval: tuple[float, float], passes: int
) -> None:
    # Two steps, the last one Euler's: the times 0, 0.5 and 0.5 again.
    sampling = SamplingConfig(method="heun", steps=2, scale=3.0, interval=interval)
    with counted(painter) as looks:
        painter.generate(["3", "7"], sampling)
    assert looks.count == 2 * passes
    painter.generate(["3"], sampling)
    assert looks.count == 2 * passes, "it no longer counts"


@pytest.mark.usefixtures("figure")
def test_velocities_are_drawn_in_seven_columns() -> None:
    x = torch.zeros(3, 8, 8)
    draw_velocities([Velocities(t, x, x, x + 1) for t in (0.1, 0.5)], scale=3.0)
    assert len(plt.gcf().axes) == 14


@pytest.mark.usefixtures("figure")
def test_rows_of_pictures_have_their_figures_beside_them() -> None:
    row = torch.zeros(4, 3, 28, 28, dtype=torch.uint8)
    draw_rows({"scale 1": row, "scale 3": row}, JUDGED)
    assert "50.0% 0.90 0.80 100.0% 1.10 0.60" in said()


@pytest.mark.usefixtures("figure")
def test_shares_are_drawn_over_the_scale() -> None:
    draw_scales([1.0, 3.0], JUDGED)
    left = plt.gcf().axes[0].lines[0]
    assert list(left.get_xdata()) == [1, 3]
    assert list(left.get_ydata()) == [50, 100]


@pytest.mark.usefixtures("figure")
def test_an_empty_interval_is_said_to_be_no_guidance() -> None:
    draw_intervals([(0.0, 0.0), (0.0, 1.0)], JUDGED, [3.0, 6.0])
    assert "no guidance" in said()
    assert "100.0% 0.60 4.0 6" in said()
