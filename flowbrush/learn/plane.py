"""Drawings in the plane, where a point is a "picture" of 2 channels and 1 x 1 pixels."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from torch import Tensor

from flowbrush.condition import Condition
from flowbrush.flow.denoiser import VelocityField
from flowbrush.learn.drawing import BLUE, VERMILION

NOISE, DATA, WAY = BLUE, VERMILION, "#555555"
EDGE = 3.0  # of what is drawn, on every side

Points = Float[Tensor, "n 2 1 1"]


def frame(axes: Axes, title: str = "") -> None:
    """A square window on the plane, the same in every drawing."""
    axes.set(xlim=(-EDGE, EDGE), ylim=(-EDGE, EDGE), aspect="equal", xticks=[], yticks=[])
    axes.set_title(title, fontsize=10)


def dots(axes: Axes, points: Points, colour: str, size: float = 2.0) -> None:
    x, y = points.flatten(1).T
    axes.scatter(x, y, s=size, color=colour, alpha=0.5, linewidths=0)


def ways(axes: Axes, stops: Float[Tensor, "s n 2 1 1"], colour: str = WAY) -> None:
    """The line of each point through all stops, from noise to data."""
    lines = stops.flatten(2)  # (s, n, 2)
    axes.plot(lines[..., 0], lines[..., 1], color=colour, linewidth=0.6, alpha=0.6)
    dots(axes, stops[0], NOISE, size=6.0)
    dots(axes, stops[-1], DATA, size=6.0)


def fan(axes: Axes, spot: Float[Tensor, "2"], velocities: Float[Tensor, "n 2"]) -> None:
    """Some of the velocities at a spot in grey, and the mean of all, at half their length."""
    some, mean = velocities[:60], velocities.mean(dim=0, keepdim=True)
    for shown, colour, width in ((some, "#999999", 0.004), (mean, DATA, 0.015)):
        at = spot.expand_as(shown)
        axes.quiver(*at.T, *shown.T, color=colour, width=width, scale=2, scale_units="xy")


def clouds(
    rows: Mapping[str, Sequence[Points]], titles: Sequence[str], times: Sequence[float]
) -> None:
    """A picture of points for each row and column; its colour says the column's time."""
    size = 1.8 * len(titles), 1.9 * len(rows)
    _, panels = plt.subplots(
        len(rows), len(titles), figsize=size, squeeze=False, layout="constrained"
    )
    for (name, row), beside in zip(rows.items(), panels, strict=True):
        beside[0].set_ylabel(name)
        for points, title, t, axes in zip(row, titles, times, beside, strict=True):
            dots(axes, points, between(t), size=3.0)
            frame(axes, title if axes in panels[0] else "")


def between(t: float) -> str:
    """The colour at time t: noise's at 0, data's at 1."""
    ends = zip(to_rgb(NOISE), to_rgb(DATA), strict=True)
    red, green, blue = ((1 - t) * a + t * b for a, b in ends)
    return to_hex((red, green, blue))


@torch.no_grad()
def arrows(field: VelocityField, times: Sequence[float], data: Points, side: int = 13) -> None:
    """The field at each time: the way and how fast it moves a point, over the data in the back."""
    line = torch.linspace(-EDGE, EDGE, side)
    x = torch.stack(torch.meshgrid(line, line, indexing="xy")).flatten(1).T[:, :, None, None]
    _, panels = plt.subplots(1, len(times), figsize=(2.1 * len(times), 2.3), layout="constrained")
    for t, axes in zip(times, panels, strict=True):
        velocity = field(x, torch.full((len(x),), t), Condition())
        dots(axes, data, DATA, size=1.0)
        axes.quiver(*x.flatten(1).T, *velocity.flatten(1).T, color=WAY, scale=45, width=0.007)
        frame(axes, f"t = {t:g}")
