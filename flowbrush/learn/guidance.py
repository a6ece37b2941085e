"""What guidance does to painted digits: measured, and drawn into the current figure."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from matplotlib import pyplot as plt
from torch import Tensor, nn

from flowbrush.condition import Condition
from flowbrush.data.idx import Idx
from flowbrush.data.source import all_pictures
from flowbrush.evaluate.intervals import of_share
from flowbrush.evaluate.metrics import fid
from flowbrush.learn.digits import DigitReader
from flowbrush.learn.drawing import BLUE, GREEN, ORANGE, grid
from flowbrush.text_to_image import TextToImage

WHITE = 250  # of 255: a pixel from here on counts as wholly white


@dataclass(frozen=True)
class Judged:
    """Painted digits beside real ones."""

    right: tuple[float, float, float]  # the share read as asked, and the ends of its interval
    white: float  # how many pixels are wholly white, of as many in real ones
    spread: float  # how far two of one class are from each other, of that of real ones
    distance: float  # Frechet's, to the real ones; less is nearer

    def __str__(self) -> str:
        right, low, high = self.right
        return (
            f"{right:6.1%} read as asked ({low:.1%} to {high:.1%}), white {self.white:.2f}, "
            f"spread {self.spread:.2f}, Frechet distance {self.distance:.1f}"
        )


class Judge:
    """Compares digits with all of `source`, in the features of `reader`."""

    def __init__(self, reader: DigitReader, source: Idx) -> None:
        self.reader = reader
        pictures = all_pictures(source)
        self.real, self.white = self._features(pictures), _white(pictures)
        self.spread = _spread(self.real, torch.from_numpy(source.labels).long())

    def __call__(self, pictures: UInt8[Tensor, "b 3 28 28"], asked: Int[Tensor, " b"]) -> Judged:
        """asked: the class that each was to be."""
        features = self._features(pictures)
        return Judged(
            right=of_share(self.reader.read(pictures) == asked),
            white=_white(pictures) / self.white,
            spread=_spread(features, asked) / self.spread,
            distance=fid(features, self.real, "the reader's features").value,
        )

    @torch.inference_mode()
    def _features(self, pictures: UInt8[Tensor, "b 3 28 28"]) -> Float[Tensor, "b 128"]:
        return torch.cat([self.reader.features(part) for part in pictures.split(500)])


def _white(pictures: UInt8[Tensor, "b 3 H W"]) -> float:
    return float((pictures >= WHITE).double().mean())


def _spread(features: Float[Tensor, "b d"], classes: Int[Tensor, " b"]) -> float:
    """The mean distance between two of a class, over the classes."""
    each = [torch.pdist(features[classes == one]).mean() for one in classes.unique()]
    return float(torch.stack(each).mean())


@dataclass
class Passes:
    """How many pictures a network has looked at."""

    count: int = 0


@contextmanager
def counted(painter: TextToImage) -> Iterator[Passes]:
    """The passes through its network meanwhile; a batch of b counts b times."""
    passes = Passes()

    def count(network: nn.Module, given: tuple[Tensor, Tensor, Condition]) -> None:
        passes.count += len(given[0])

    handle = painter.denoiser.backbone.register_forward_pre_hook(count)
    try:
        yield passes
    finally:
        handle.remove()


class Velocities(NamedTuple):
    """What a network says of one x_t: without the class, and with it."""

    t: float
    x_t: Float[Tensor, "c h w"]
    null: Float[Tensor, "c h w"]
    given: Float[Tensor, "c h w"]


def draw_velocities(rows: Sequence[Velocities], scale: float) -> None:
    """A row for each time: x_t, both velocities, their difference, and the data that they point at
    (x_t + (1 - t) velocity), guided by `scale` as well."""
    titles = ("$x_t$", r"$v_\varnothing$", "$v_y$", r"$v_y - v_\varnothing$")
    ends = (r"$\varnothing$ points at", "$y$ points at", f"scale {scale:g} points at")
    figure, axes = plt.subplots(len(rows), 7, figsize=(9, 1.45 * len(rows)), squeeze=False)
    for row, own in zip(axes, rows, strict=True):
        apart = own.given - own.null
        guided = own.null + scale * apart
        pointed = [own.x_t + (1 - own.t) * v for v in (own.null, own.given, guided)]
        for axis, value in zip(row[[0, 4, 5, 6]], [own.x_t, *pointed], strict=True):
            axis.imshow(value.mean(dim=0).numpy(), cmap="gray", vmin=-1, vmax=1)
        for axis, value in zip(row[1:4], [own.null, own.given, apart], strict=True):
            axis.imshow(value.mean(dim=0).numpy(), cmap="RdBu_r", vmin=-2, vmax=2)
        row[0].set_ylabel(f"t = {own.t:g}")
    for axis, title in zip(axes[0], (*titles, *ends), strict=True):
        axis.set_title(title, fontsize=10)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    figure.tight_layout(pad=0.4)


def draw_rows(rows: Mapping[str, UInt8[Tensor, "k 3 28 28"]], judged: Sequence[Judged]) -> None:
    """A row of pictures for each name, and beside it what was measured of many like them."""
    columns = len(next(iter(rows.values())))
    sheet = grid(torch.cat(list(rows.values())), columns)
    figure, axis = plt.subplots(figsize=(9, 0.6 * len(rows) + 0.4))
    axis.imshow(sheet)
    high, wide = sheet.height / len(rows), sheet.width
    heads, places = ("right", "white", "spread"), [wide * x for x in (1.08, 1.19, 1.30)]
    for head, x in zip(heads, places, strict=True):
        axis.text(x, -0.15 * high, head, ha="center", weight="bold")
    for i, own in enumerate(judged):
        figures = f"{own.right[0]:.1%}", f"{own.white:.2f}", f"{own.spread:.2f}"
        for x, said in zip(places, figures, strict=True):
            axis.text(x, (i + 0.5) * high, said, ha="center", va="center")
    axis.set_yticks([(i + 0.5) * high for i in range(len(rows))], list(rows))
    axis.tick_params(length=0)
    axis.set_xticks([])
    axis.set_frame_on(False)
    figure.tight_layout(pad=0.4)


def draw_scales(scales: Sequence[float], judged: Sequence[Judged]) -> None:
    """Over the scale: the share read as asked; how white and how different the digits are."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
    shares, lows, highs = (
        [100 * number for number in numbers]
        for numbers in zip(*(own.right for own in judged), strict=True)
    )
    left.fill_between(scales, lows, highs, color=BLUE, alpha=0.2, lw=0)
    left.plot(scales, shares, "o-", color=BLUE)
    left.set_ylabel("read as asked, %")
    right.axhline(1, color="0.6", lw=1, ls=":")
    right.plot(scales, [own.white for own in judged], "s-", color=ORANGE, label="white pixels")
    right.plot(scales, [own.spread for own in judged], "^-", color=GREEN, label="spread")
    right.set_ylabel("real digits = 1")
    right.legend(frameon=False)
    for axis in (left, right):
        axis.set_xlabel("guidance scale")
        axis.set_xscale("symlog", linthresh=1)
        axis.set_xticks(scales, [f"{scale:g}" for scale in scales])
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()


def draw_intervals(
    intervals: Sequence[tuple[float, float]], judged: Sequence[Judged], passes: Sequence[float]
) -> None:
    """Each interval of times as a bar; beside it its figures, and the passes a picture takes."""
    figure, axis = plt.subplots(figsize=(9, 0.4 * len(intervals) + 0.9))
    heads, places = ("right", "spread", "distance", "passes"), (1.1, 1.24, 1.39, 1.53)
    for head, x in zip(heads, places, strict=True):
        axis.text(x, -0.8, head, ha="center", weight="bold")
    for i, ((low, high), own, cost) in enumerate(zip(intervals, judged, passes, strict=True)):
        axis.plot([0, 1], [i, i], color="0.85", lw=1, zorder=0)
        axis.barh(i, high - low, left=low, height=0.55, color=BLUE)
        if low == high:
            ground = {"facecolor": "white", "edgecolor": "none"}
            axis.text(0.5, i, "no guidance", ha="center", va="center", color="0.4", bbox=ground)
        figures = f"{own.right[0]:.1%}", f"{own.spread:.2f}", f"{own.distance:.1f}", f"{cost:g}"
        for x, said in zip(places, figures, strict=True):
            axis.text(x, i, said, ha="center", va="center")
    axis.set_xlim(0, 1)
    axis.set_ylim(len(intervals) - 0.4, -0.6)
    axis.set_yticks([])
    axis.set_xlabel("t: noise on the left, data on the right")
    axis.spines[["top", "right", "left"]].set_visible(False)
    figure.subplots_adjust(left=0.02, right=0.62, top=0.85, bottom=0.25)
