"""What a page shows: tables, pictures, and drawings of figures, as SVG that takes its colours and
its letters from the page around it. Nothing in a page is fetched from elsewhere."""

import io
import math
import re
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import matplotlib
import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from flowbrush.evaluate.intervals import Measured
from flowbrush.evaluate.record import Evaluation

Points = Sequence[tuple[float, float]]

SEEN = "pictures seen"
COLOURS = 6  # that the page names --series-0 and so on
DASHES = ("solid", "dashed", "dotted")
MOST_POINTS = 400  # of a curve; more are averaged
LOG_FROM = 5.0  # largest over smallest value from which a logarithmic axis is drawn
FACE = (4.6, 2.9)  # inches; at 72 units an inch, legible from a phone's width on

# Colours that no drawing has of its own, replaced by the page's.
_INK, _GRID = "#010101", "#020202"
_SERIES = [f"#0300{i:02x}" for i in range(COLOURS)]
_NAMED = {_INK: "--ink", _GRID: "--grid"} | {c: f"--series-{i}" for i, c in enumerate(_SERIES)}
_STYLE: Any = {
    "svg.hashsalt": "flowbrush",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _INK
    ),
}


@dataclass(frozen=True)
class Curve:
    """Points in the order of x; `ends` of their intervals (nan: unknown); `behind` is faint."""

    label: str
    points: Points
    ends: Points = ()
    behind: Points = ()


@dataclass(frozen=True)
class Chart:
    """caption: a line above it. legend: what each curve is, in their order."""

    svg: str
    caption: str
    legend: tuple[str, ...] = ()


def dash(i: int) -> str:
    """Of the i-th curve, so that colour is not all that tells them apart."""
    return DASHES[(i + i // COLOURS) % len(DASHES)]


def curves(
    caption: str, lines: Sequence[Curve], x: str, y: str, may_be_log: bool = True, zero: bool = True
) -> Chart:
    """Curves over one another. x, y: the axes' names. zero: the x axis begins at 0.

    The y axis is logarithmic where the values allow it and spread enough.
    """

    def draw(axes: Axes) -> None:
        for i, line in enumerate(lines):
            _draw_curve(axes, line, _SERIES[i % COLOURS], dash(i))
        values = [v for line in lines for v in _heights(line)]
        if may_be_log and values and min(values) > 0 and max(values) / min(values) >= LOG_FROM:
            axes.set_yscale("log")
            wide = max(values) / min(values) > 1_000
            axes.yaxis.set_major_locator(
                ticker.LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0))
            )
            axes.yaxis.set_minor_locator(ticker.NullLocator())
        axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda v, _: plain(v)))
        axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda v, _: short(v)))
        axes.xaxis.set_major_locator(ticker.MaxNLocator(5))
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        if zero:
            axes.set_xlim(left=0)
        axes.grid(True)

    labels = tuple(line.label for line in lines) if len(lines) > 1 else ()
    return Chart(_svg(draw, FACE, f"{caption}: {y} over {x}"), caption, labels)


def sweep_maps(
    title: str,
    axes: Sequence[str],
    places: Sequence[dict[str, str]],
    found: Sequence[Measured | None],
) -> list[Chart]:
    """Heat maps of what was `found` at each place, over the first two axes that vary; one for every
    choice of the rest."""
    seen = {name: list(dict.fromkeys(place[name] for place in places)) for name in axes}
    across, down, *rest = [name for name, there in seen.items() if len(there) > 1] + ["", ""]
    if not across:
        return []
    groups: dict[str, dict[tuple[int, int], Measured]] = {}
    for place, one in zip(places, found, strict=True):
        if one and math.isfinite(one.value):
            group = ", ".join(f"{name} {place[name]}" for name in rest if name)
            row = seen[down].index(place[down]) if down else 0
            groups.setdefault(group, {})[row, seen[across].index(place[across])] = one
    ticks = (down, seen.get(down, [""])), (across, seen[across])
    return [
        _heat_map(f"{title}: {group}" if group else title, cells, *ticks)
        for group, cells in groups.items()
    ]


def _heat_map(
    title: str,
    cells: dict[tuple[int, int], Measured],
    rows: tuple[str, list[str]],
    columns: tuple[str, list[str]],
) -> Chart:
    """From dark (worse) to light, the best framed. rows, columns: an axis' name, its ticks."""
    better = next(iter(cells.values())).better
    sign = -1 if better == "lower" else 1
    best = max(cells, key=lambda place: sign * cells[place].value)

    def draw(axes: Axes) -> None:
        values = np.full((len(rows[1]), len(columns[1])), math.nan)
        for place, one in cells.items():
            values[place] = sign * one.value
        mesh = axes.pcolormesh(values, cmap="viridis")
        colours = mesh.to_rgba(values)
        for (i, j), one in cells.items():
            ink = "#000000" if colours[i, j, :3] @ (0.299, 0.587, 0.114) > 0.5 else "#ffffff"
            text = said(one).value + " ≈" * ((i, j) != best and overlap(one, cells[best]))
            axes.text(j + 0.5, i + 0.5, text, ha="center", va="center", color=ink, size=8.5)
        corner = best[1] + 0.03, best[0] + 0.03
        axes.add_patch(Rectangle(corner, 0.94, 0.94, fill=False, ec=_SERIES[1], lw=3))
        axes.set_xticks([j + 0.5 for j in range(len(columns[1]))], columns[1])
        axes.set_yticks([i + 0.5 for i in range(len(rows[1]))], rows[1])
        axes.tick_params(length=0)
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.set_xlabel(columns[0])
        axes.set_ylabel(rows[0])

    caption = f"{title} ({better} is better)"
    return Chart(_svg(draw, (FACE[0], 0.9 + 0.42 * max(2, len(rows[1]))), caption), caption)


def overlap(one: Measured, other: Measured) -> bool:
    """Whether their intervals do, or one has none: what then cannot be told apart."""
    return not (one.low > other.high or other.low > one.high)


def over_pictures(evaluations: Sequence[Evaluation], titles: Sequence[str]) -> list[Chart]:
    """A drawing for each title (`title` and `title, part` go together) with a curve for each way in
    which it was measured, painted and counted, where there is one with two points or more."""
    charts = []
    for title in titles:
        ways: dict[tuple[str, str, str, str], dict[int, Measured]] = {}
        for at in evaluations:
            for one in at.measured:
                own, _, part = one.name.partition(", ")
                if own == title and math.isfinite(one.value):
                    way = part, how(at), f"{one.pictures:,} painted", one.by
                    ways.setdefault(way, {})[at.pictures] = one
        ways = {way: points for way, points in ways.items() if len(points) > 1}
        varies = [len(set(parts)) > 1 for parts in zip(*ways, strict=True)]
        lines = []
        for way, points in ways.items():
            label = "; ".join(word for word, v in zip(way, varies, strict=True) if v and word)
            values = [(float(at), one.value) for at, one in points.items()]
            lines.append(Curve(label, values, [(one.low, one.high) for one in points.values()]))
        if lines:
            better = next(iter(next(iter(ways.values())).values())).better
            caption = f"{title} ({better} is better)"
            charts.append(curves(caption, lines, SEEN, title, may_be_log=better == "lower"))
    return charts


class Said(NamedTuple):
    value: str
    ends: str


def said(one: Measured) -> Said:
    """Value and interval, with two digits of half the interval, as `Measured.line` has them."""
    if math.isnan(one.value):
        return Said("–", "")
    half = (one.high - one.low) / 2
    places = max(0, 1 - math.floor(math.log10(half))) if half > 0 else 4
    ends = "" if math.isnan(half) else f"{one.low:.{places}f} to {one.high:.{places}f}"
    return Said(f"{one.value:.{places}f}", ends)


def arrow(one: Measured) -> str:
    return f"{one.name}\N{NO-BREAK SPACE}{'↓' if one.better == 'lower' else '↑'}"


def how(one: Evaluation) -> str:
    """`ema_0.998; heun, 8 steps, scale 2.5`."""
    known = one.sampling
    parts = [str(known["method"])] if "method" in known else []
    parts += [f"{known['steps']} steps"] if "steps" in known else []
    parts += [f"{name} {words(known[name])}" for name in ("scale", "interval") if name in known]
    return "; ".join(part for part in (one.weights, ", ".join(parts)) if part)


def words(value: Any) -> str:
    """A plain value of a config."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value in ("", [], ()):
        return "–"
    if isinstance(value, list | tuple):
        return ", ".join(map(words, value))
    return plain(value) if isinstance(value, float) else str(value)


def thinned(points: Points) -> Points:
    """At most 400 points: means of as many neighbours each."""
    of = -(-len(points) // MOST_POINTS)
    parts = [points[i : i + of] for i in range(0, len(points), of)] if of > 1 else []
    means = [(sum(x for x, _ in p) / len(p), sum(y for _, y in p) / len(p)) for p in parts]
    return means or points


def smoothed(points: Points) -> Points:
    """The mean around each point, over a twentieth of them; the same where there are few."""
    points = thinned(points)
    half = len(points) // 40
    return [
        (x, sum(y for _, y in near) / len(near))
        for i, (x, _) in enumerate(points)
        for near in [points[max(0, i - half) : i + half + 1]]
    ]


def short(value: float | int) -> str:
    """64000 as 64k, 1500000 as 1.5M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}"


def plain(value: float | int) -> str:
    """Without needless digits: 0.3, 1e-5."""
    return re.sub(r"e([+-])0*", lambda e: "e" + e[1].replace("+", ""), f"{value:.6g}")


def _draw_curve(axes: Axes, line: Curve, colour: str, dashes: str) -> None:
    if line.behind:
        axes.plot(*zip(*thinned(line.behind), strict=True), color=colour, lw=0.8, alpha=0.35)
    x, y = zip(*thinned(line.points), strict=True) if line.points else ((), ())
    few = len(x) <= 40
    mark: dict[str, Any] = {"marker": "o", "ms": 3.2} if few and not line.behind else {}
    axes.plot(x, y, color=colour, ls=dashes, lw=1.5, **mark)
    if line.ends and len(line.points) > 1:
        x = tuple(at for at, _ in line.points)
        low, high = zip(*line.ends, strict=True)
        axes.fill_between(x, low, high, color=colour, alpha=0.18, lw=0)
    elif line.ends:
        axes.vlines(x, *line.ends[0], color=colour, lw=1.2)


def _heights(line: Curve) -> list[float]:
    found = [y for _, y in [*line.points, *line.behind]] + [
        end for pair in line.ends for end in pair
    ]
    return [y for y in found if y == y]


def _svg(draw: Callable[[Axes], None], face: tuple[float, float], label: str) -> str:
    """The same bytes for the same drawing; ids are its own, so that many fit on a page."""
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the page's letters are drawn
        figure = Figure(figsize=face, layout="constrained")
        draw(figure.subplots())
        file = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    text = file.getvalue()
    inside = text[text.index("</defs>", text.index("<style")) + len("</defs>") :]
    inside = re.sub(r' id="(?![mp][0-9a-f]{10}")[^"]*"', "", inside)
    own = f"c{zlib.crc32((label + text).encode()):08x}"
    inside = re.sub(r'(id="|href="#|url\(#)(?=[mp][0-9a-f]{10})', rf"\g<1>{own}", inside)
    inside = re.sub(r"font-family: [^;\"]*; ?", "", inside)
    inside = re.sub(r' transform="rotate\(-0 [^"]*"', "", inside)
    inside = re.sub("|".join(_NAMED), lambda colour: f"var({_NAMED[colour[0]]})", inside)
    width, height = (72 * side for side in face)
    label = label.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{label}">' + re.sub(
        r"\s*\n\s*", " ", inside
    )


# -- what a page is made of


class Cell(NamedTuple):
    text: str
    mark: str  # best, worse or nothing


@dataclass(frozen=True)
class Note:
    kind: ClassVar[str] = "note"
    text: str
    mark: str = ""  # faint, quote or nothing


@dataclass(frozen=True)
class Words:
    kind: ClassVar[str] = "words"
    words: Sequence[str]


@dataclass(frozen=True)
class Charts:
    kind: ClassVar[str] = "charts"
    charts: Sequence[Chart]


@dataclass(frozen=True)
class Table:
    """numbers: columns that are set to the right. folded: what is written on the fold, if any."""

    kind: ClassVar[str] = "table"
    head: tuple[str, ...]
    rows: Sequence[Sequence[str | Cell]]
    numbers: tuple[int, ...] = ()
    folded: str = ""


class Picture(NamedTuple):
    source: str  # a data URI
    width: int
    height: int
    caption: str


@dataclass(frozen=True)
class Pictures:
    """One after another in time, or `beside` one another."""

    kind: ClassVar[str] = "pictures"
    pictures: Sequence[Picture]
    beside: bool = False


Block = Note | Words | Charts | Table | Pictures


class Section(NamedTuple):
    title: str
    blocks: list[Block]


class Tile(NamedTuple):
    name: str
    value: str
    more: str


class Page(NamedTuple):
    title: str
    lead: str
    tiles: list[Tile]
    sections: list[Section]
    foot: str
