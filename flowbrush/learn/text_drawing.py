"""Pictures of what a text does: similarities, attention, confusion. Any language's letters."""

from collections.abc import Sequence

import matplotlib
from jaxtyping import Float, Int, UInt8
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from flowbrush.contact_sheet import font_file, to_image

SPACE = "▁"  # what begins a word, among the pieces of words


def write_any_language() -> None:
    """From here on figures have the letters of every language, if the font's package is here."""
    if file := font_file():
        font_manager.fontManager.addfont(file)
        name = font_manager.FontProperties(fname=file).get_name()
        matplotlib.rcParams["font.family"] = ["sans-serif", name]


def draw_similarities(
    axes: Axes, values: Float[Tensor, "r c"], rows: Sequence[str], columns: Sequence[str]
) -> None:
    """A heat map of cosines, each written into its field."""
    _table(axes, values, rows, columns, "{:.2f}", highest=1.0)


def draw_confusion(
    axes: Axes, counts: Int[Tensor, "n n"], names: Sequence[str], title: str
) -> None:
    """Rows: what was asked for; columns: what was read, in per cent of the row."""
    shares = 100 * counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    _table(axes, shares, names, names, "{:.0f}", highest=100.0)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("read as")
    axes.set_ylabel("asked for")


def draw_attention(
    figure: Figure,
    picture: UInt8[Tensor, "3 H W"],
    maps: Sequence[Float[Tensor, "m h w"]],
    rows: Sequence[str],
    tokens: Sequence[str],
) -> None:
    """A row of maps for each of `rows`: the picture, then for each token where it is looked at.

    Each token has a scale of its own, from 0 to the share that stands above it, the largest in its
    column: a word that is hardly looked at is seen as well.
    """
    places = figure.subplots(len(maps), 1 + len(tokens), squeeze=False)
    side = picture.shape[-1]
    corners = (0, side, side, 0)
    for i, name in enumerate(rows):
        places[i, 0].imshow(to_image(picture), extent=corners)
        places[i, 0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    for j, token in enumerate(tokens):
        highest = max(float(one[j].max()) for one in maps)
        word = token.replace(SPACE, " ").strip() or "(space)"
        places[0, 1 + j].set_title(f"{word}\nto {highest:.0%}", fontsize=9)
        for axes, one in zip(places[:, 1 + j], maps, strict=True):
            axes.imshow(to_image(picture).convert("L"), "gray", extent=corners)
            heat = one[j].numpy()
            axes.imshow(heat, "viridis", alpha=0.8, vmin=0, vmax=highest, extent=corners)
    for axes in places.flat:
        axes.set_xticks([])
        axes.set_yticks([])


def thing(caption: str) -> str:
    """What a class's caption is a picture of: "fruit" of "a picture of a fruit" and so on."""
    name = caption.split(" of ")[-1].removesuffix("の絵").removesuffix("の写真")
    return name.removeprefix("an ").removeprefix("a ")


def _table(
    axes: Axes,
    values: Float[Tensor, "r c"],
    rows: Sequence[str],
    columns: Sequence[str],
    form: str,
    highest: float,
) -> None:
    axes.imshow(values.numpy(), "viridis", vmin=0, vmax=highest)
    axes.set_xticks(range(len(columns)), columns, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), rows)
    for i, row in enumerate(values.tolist()):
        for j, value in enumerate(row):
            ink = "black" if value > 0.6 * highest else "white"
            axes.text(j, i, form.format(value), ha="center", va="center", color=ink, fontsize=8)
