from collections.abc import Iterator

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch
from torch import Tensor

from flowbrush.condition import Condition
from flowbrush.learn.plane import DATA, EDGE, NOISE, arrows, between, clouds, fan, ways

matplotlib.use("agg")


@pytest.fixture(autouse=True)
def figures_are_closed() -> Iterator[None]:
    yield
    plt.close("all")


def points(n: int = 5) -> Tensor:
    return torch.randn(n, 2, 1, 1)


def test_a_colour_goes_from_that_of_noise_to_that_of_data() -> None:
    assert (between(0.0), between(1.0)) == (NOISE.lower(), DATA.lower())
    assert between(0.5) not in (NOISE, DATA)


def test_clouds_have_a_panel_for_each_row_and_column() -> None:
    clouds({"pairs": [points(), points()], "flow": [points(), points()]}, ["a", "b"], [0.0, 1.0])
    panels = plt.gcf().axes
    assert [axes.get_title() for axes in panels] == ["a", "b", "", ""]
    assert [axes.get_ylabel() for axes in panels] == ["pairs", "", "flow", ""]
    assert all(axes.get_xlim() == (-EDGE, EDGE) for axes in panels)


def test_a_row_of_too_few_clouds_is_refused() -> None:
    with pytest.raises(ValueError, match="longer"):
        clouds({"pairs": [points()]}, ["a", "b"], [0.0, 1.0])


def test_ways_go_through_all_stops() -> None:
    stops = torch.randn(4, 3, 2, 1, 1)
    _, axes = plt.subplots()
    ways(axes, stops)
    drawn = torch.tensor(axes.lines[1].get_xydata())
    torch.testing.assert_close(drawn.float(), stops[:, 1].flatten(1))


def test_a_fan_shows_the_mean_of_all_velocities() -> None:
    velocities = torch.randn(100, 2)
    _, axes = plt.subplots()
    fan(axes, torch.zeros(2), velocities)
    some, mean = axes.collections
    assert len(some.U) == 60
    assert (mean.U[0], mean.V[0]) == pytest.approx(velocities.mean(dim=0).tolist())


def test_arrows_show_the_field_at_each_time() -> None:
    def field(x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        return t.view(-1, 1, 1, 1) * torch.ones_like(x_t)

    arrows(field, [0.0, 0.5], points(), side=3)
    first, second = (axes.collections[1] for axes in plt.gcf().axes)
    assert first.U.tolist() == [0.0] * 9
    assert second.V.tolist() == [0.5] * 9
