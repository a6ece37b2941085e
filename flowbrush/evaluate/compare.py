"""Runs beside one another: a page like a run's report, and lines for a terminal."""

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from flowbrush.errors import UserError
from flowbrush.evaluate.charts import (
    SEEN,
    Block,
    Cell,
    Chart,
    Charts,
    Curve,
    Note,
    Page,
    Pictures,
    Section,
    Table,
    arrow,
    curves,
    how,
    overlap,
    said,
    short,
    smoothed,
    words,
)
from flowbrush.evaluate.intervals import FEW, Measured, ordered
from flowbrush.evaluate.report import VALIDATION, RunFolder, flat, picture, write_page
from flowbrush.evaluate.validation import TIMES

# What numbers depend on beside the network, by dotted names or beginnings of them.
OF_FIGURES = ("experiment", "size", "source", "held_out")
OF_VALIDATION_LOSS = (*OF_FIGURES, "space", "batch.captions", "flow.noise_scale")
OF_TRAINING_LOSS = (*OF_VALIDATION_LOSS, "flow", "loss", "autoencoder")
WIDEST = 44  # columns of a value in a terminal
MARKS = """best: better than every other run, and its 95 % interval overlaps none of theirs. worse:
its interval does not overlap that of the best value. Without a word: not told apart by these
pictures. With many figures, some intervals lie apart by chance."""


def write_comparison(runs: Sequence[Path], to: Path) -> Path:
    """Write the page. Raises UserError for fewer than two runs, or a folder that is none."""
    them = _Runs.open(runs)
    differing = them.differing
    newest = [
        one
        for run, name in them.named
        for file in run.previews[-1:]
        if (one := picture(file, f"{name}, {int(file.stem):,} pictures seen"))
    ]
    facts: list[Sequence[str | Cell]] = [(name, *cells, "") for name, cells in them.facts]
    facts += [(one.name, *map(_unbroken, one.cells), one.by) for one in them.figures]
    choices = [(name, *values) for name, values in differing.items()]
    parts: dict[str, list[Block]] = {
        "Figures": [
            Table(("figure", *them.names, "by"), facts),
            Note(" ".join(MARKS.split()), "faint"),
            Note(them.comparable("figures", OF_FIGURES)),
        ],
        "Previews": [Pictures(newest, beside=True)] if newest else [Note("No previews yet.")],
        "Learning": _learning(them),
        "Figures over pictures seen": _charts(them.over_pictures()),
        "What differs": [Table(("name", *them.names), choices)]
        if choices
        else [Note("Nothing: the configs are the same.")],
    }
    sections = [Section(title, blocks) for title, blocks in parts.items() if blocks]
    lead = f"{len(them.names)} runs; {len(differing)} choices differ."
    foot = "Made by flowbrush compare, from the folders of the runs alone."
    return write_page(Page(" · ".join(them.names), lead, [], sections, foot), to)


def comparison_lines(runs: Sequence[Path]) -> list[str]:
    """The figures and the choices that differ, in columns. Raises UserError as the page does."""
    them = _Runs.open(runs)
    lines = [("", *them.names), *((name, *(c.text for c in cells)) for name, cells in them.facts)]
    figures, names = them.figures, [one.name for one in them.figures]
    for one in figures:
        name = one.name if names.count(one.name) == 1 else f"{one.name}, {one.by}"
        lines.append((name, *(f"{cell.text} {cell.mark}".strip() for cell in one.cells)))
    for name, values in them.differing.items():
        if all(values) and not name.startswith("watch."):
            lines.append((name, *map(_clipped, values)))
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    padded = [
        [cell + " " * (width - _width(cell)) for cell, width in zip(line, widths, strict=True)]
        for line in lines
    ]
    table = ["  ".join(line).rstrip() for line in padded]
    return [*table, them.comparable("figures", OF_FIGURES)]


class _Figure(NamedTuple):
    name: str
    by: str
    cells: list[Cell]


@dataclass(frozen=True)
class _Runs:
    runs: list[RunFolder]
    names: list[str]

    @classmethod
    def open(cls, paths: Sequence[Path]) -> "_Runs":
        if len({path.resolve() for path in paths}) < 2:
            raise UserError("compare: name two or more runs, each once")
        runs = [RunFolder.open(path) for path in paths]
        names = [run.name for run in runs]
        return cls(runs, names if len(set(names)) == len(names) else [str(p) for p in paths])

    @property
    def named(self) -> list[tuple[RunFolder, str]]:
        return list(zip(self.runs, self.names, strict=True))

    @property
    def differing(self) -> dict[str, list[str]]:
        """The values by dotted name, where they are not the same in all runs; "" = no such choice.

        Among them the versions that the newest figures were measured by.
        """
        each = [flat(run.config) for run in self.runs]
        for run, values in zip(self.runs, each, strict=True):
            known = run.newest.versions if run.newest else {}
            values.update({f"measured by {package}": v for package, v in known.items()})
        found = {}
        for name in dict.fromkeys(name for values in each for name in values):
            said = [words(values[name]) if name in values else "" for values in each]
            if len(set(said)) > 1:
                found[name] = said
        return found

    @property
    def facts(self) -> list[tuple[str, list[Cell]]]:
        """What is known of each without measuring."""
        lines = {
            SEEN: [f"{run.seen:,} of {run.config.train.pictures:,}" for run in self.runs],
            "parameters": [
                "–" if run.parameters is None else short(run.parameters) for run in self.runs
            ],
            "painted by": [how(run.newest) if run.newest else "–" for run in self.runs],
        }
        return [(name, [Cell(text, "") for text in texts]) for name, texts in lines.items()]

    @property
    def figures(self) -> list[_Figure]:
        """The newest of each; marked where they are comparable and the intervals lie apart."""
        found = []
        for (name, by), each in self._by_figure().items():
            newest = [max(one.items(), default=None) for one in each]
            names = OF_VALIDATION_LOSS if name.startswith(VALIDATION) else OF_FIGURES
            there = [] if self.apart(names) else [one[1] for one in newest if one]
            cells = [
                Cell(_text(one[1], one[0], run), _mark(one[1], there)) if one else Cell("–", "")
                for one, run in zip(newest, self.runs, strict=True)
            ]
            found.append(_Figure(name, by, cells))
        return found

    def over_pictures(self) -> list[Chart]:
        """A drawing for each figure that some run has two of."""
        charts = []
        for (name, by), each in self._by_figure().items():
            lines = []
            for run_name, points in zip(
                self.names, map(sorted, map(dict.items, each)), strict=True
            ):
                values = [(float(at), one.value) for at, one in points]
                label = run_name if points else f"{run_name} (not measured)"
                lines.append(Curve(label, values, [(one.low, one.high) for _, one in points]))
            if max(map(len, each)) > 1:
                better = next(one.better for points in each for one in points.values())
                y = name.partition("\N{NO-BREAK SPACE}")[0]
                log = better == "lower"
                charts.append(curves(f"{name}, {by}", lines, SEEN, y, may_be_log=log))
        return charts

    def _by_figure(self) -> dict[tuple[str, str], list[dict[int, Measured]]]:
        """By (name, how it was measured), for each run, by the pictures seen; the newest first.

        A biased figure of few pictures is only like one of as many.
        """
        ways: dict[tuple[str, str], list[dict[int, Measured]]] = {}
        for i, run in enumerate(self.runs):
            for at in reversed(run.own_evaluations):
                for one in ordered(at.measured):
                    biased = one.bias != "none" and one.pictures < FEW
                    by = f"{one.by}, {one.pictures:,} pictures" if biased else one.by
                    if math.isfinite(one.value):
                        each = ways.setdefault((arrow(one), by), [{} for _ in self.runs])
                        each[i].setdefault(at.pictures, one)
        return ways

    def apart(self, names: tuple[str, ...]) -> list[str]:
        """The differing choices of these names, or else those below them."""
        differing = self.differing
        below = tuple(f"{name}." for name in differing)
        own = [n for n in differing if n in names or n.startswith(tuple(f"{m}." for m in names))]
        return [name for name in own if not name.startswith(below)]

    def comparable(self, what: str, names: tuple[str, ...]) -> str:
        """A sentence about it."""
        apart = ", ".join(self.apart(names))
        return f"The {what} are {f'not comparable: {apart} differ' if apart else 'comparable'}."


def _learning(them: _Runs) -> list[Block]:
    losses = [
        Curve(name, smoothed(raw), behind=raw)
        for run, name in them.named
        for raw in [run.series("loss")]
    ]
    by_time = [
        Curve(name, list(zip(TIMES, known[-1].validation, strict=True)))
        if known
        else Curve(f"{name} (not measured)", [])
        for run, name in them.named
        for known in [[e for e in run.own_evaluations if len(e.validation) == len(TIMES)]]
    ]
    blocks: list[Block] = []
    charts = [curves("training loss", losses, SEEN, "training loss")]
    blocks.append(Note(them.comparable("training losses", OF_TRAINING_LOSS)))
    if any(line.points for line in by_time):
        axis = "t, from noise (0) to data (1)"
        charts.append(curves(f"newest {VALIDATION} at each time", by_time, axis, VALIDATION))
        blocks.append(Note(them.comparable("validation losses", OF_VALIDATION_LOSS)))
    return [*blocks, Charts(charts)]


def _charts(charts: list[Chart]) -> list[Block]:
    return [Charts(charts), Note("Bands are 95 % intervals.", "faint")] if charts else []


def _text(one: Measured, at: int, run: RunFolder) -> str:
    """`0.0123 (0.0101 to 0.0145)`, and at how many pictures, where the run has seen more."""
    value, ends = said(one)
    late = f"at {short(at)}" if at < run.seen else ""
    return " ".join(filter(None, (value, f"({ends})" if ends else "", late, one.note)))


def _unbroken(cell: Cell) -> Cell:
    return cell._replace(text=cell.text.replace(" ", "\N{NO-BREAK SPACE}"))


def _mark(one: Measured, among: list[Measured]) -> str:
    sign = -1 if one.better == "lower" else 1
    best = max(among or [one], key=lambda other: sign * other.value)
    if one is not best:
        return "" if overlap(one, best) else "worse"
    others = [other for other in among if other is not best]
    return "best" if others and not any(overlap(one, other) for other in others) else ""


def _clipped(text: str) -> str:
    while _width(text) > WIDEST:
        text = text[:-2] + "…"
    return text


def _width(text: str) -> int:
    """In a terminal's columns: Japanese letters take two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)
