"""A run as one page, RUN/report.html, from the run's folder alone; it needs no network to be read.

What is missing is left out with a sentence that says so. The same folder gives the same bytes.
"""

import base64
import io
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image
from safetensors import SafetensorError, safe_open

from flowbrush.autoencoding import AutoencoderExperiment, Experiment, load_experiment
from flowbrush.config_io import to_json
from flowbrush.evaluate.charts import (
    COLOURS,
    SEEN,
    Block,
    Chart,
    Charts,
    Curve,
    Note,
    Page,
    Picture,
    Pictures,
    Section,
    Table,
    Tile,
    Words,
    arrow,
    curves,
    dash,
    how,
    over_pictures,
    plain,
    said,
    short,
    smoothed,
    sweep_maps,
    words,
)
from flowbrush.evaluate.intervals import Measured, cautions, ordered
from flowbrush.evaluate.origins import origins
from flowbrush.evaluate.record import Evaluation, recorded
from flowbrush.evaluate.validation import TIMES
from flowbrush.experiment import CHECKPOINT_FOLDER
from flowbrush.whole_files import written_whole

REPORT_FILE, SWEEP_FILE, PAINTED_FILE = "report.html", "sweep.json", "painted.png"
JOURNAL_FILE, PREVIEW_FOLDER = "journal.jsonl", "previews"  # as training writes them
ATTRIBUTION_FILE, REJECTS_FILE = "ATTRIBUTION.txt", "rejected.jsonl"
MOST_PREVIEWS = 12
MOST_TILES = 6
MOST_TIMES = 4  # evaluations in the drawing of the validation loss by time
MOST_MAPS = 6  # of a sweep
WIDEST = 1_200  # pixels of a picture
MOST_REASONS = 20  # for which pictures were rejected
VALIDATION = "validation loss"
JOURNAL_LINES = (  # name, in words, whether it is noisy
    ("loss", "training loss", True),
    ("gradient_norm", "gradient norm", True),
    ("lr", "learning rate", False),
    ("pictures_per_second", "pictures a second", False),
)
BANDS = "Bands are 95 % intervals."
FRAMED = """Framed: the best of each map, which is partly luck, since it was chosen for its value.
≈: its 95 % interval overlaps that of the best, so that they are not told apart."""

T = TypeVar("T")


# -- what a run's folder holds


@dataclass(frozen=True)
class RunFolder:
    path: Path
    config: Experiment

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """Raises UserError where `path` is no run."""
        return cls(path, load_experiment(path))

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @cached_property
    def journal(self) -> list[dict[str, Any]]:
        return [line for line in json_lines(self.path / JOURNAL_FILE) if "pictures" in line]

    @cached_property
    def evaluations(self) -> list[Evaluation]:
        return sorted(recorded(self.path), key=lambda one: one.pictures)

    @property
    def own_evaluations(self) -> list[Evaluation]:
        """Those painted in the run's own way, so that a sweep's corner does not speak for the run;
        all, where there is none."""
        own = to_json(getattr(self.config, "sampling", None))
        return [one for one in self.evaluations if one.sampling == own] or self.evaluations

    @property
    def newest(self) -> Evaluation | None:
        """Of the most pictures seen, and then written last."""
        return next(reversed(self.own_evaluations), None)

    @property
    def seen(self) -> int:
        checkpoints = [int(path.name) for path in self._checkpoints]
        return max([0, *checkpoints, *(int(line["pictures"]) for line in self.journal)])

    @cached_property
    def parameters(self) -> int | None:
        """Of what is trained; None where no checkpoint tells."""
        for folder in reversed(self._checkpoints):
            try:
                with safe_open(folder / "model.safetensors", "pt") as file:
                    return sum(math.prod(file.get_slice(k).get_shape()) for k in file.keys())  # noqa: SIM118
            except (OSError, SafetensorError):
                continue
        return None

    @property
    def previews(self) -> list[Path]:
        return _numbered(self.path / PREVIEW_FOLDER, ".png")

    @property
    def _checkpoints(self) -> list[Path]:
        return _numbered(self.path / CHECKPOINT_FOLDER, "")

    def series(self, name: str) -> list[tuple[float, float]]:
        """(pictures seen, value) of the journal, where it has a finite one."""
        pairs = [(line["pictures"], line.get(name)) for line in self.journal]
        found = [(float(x), float(y)) for x, y in pairs if isinstance(y, int | float)]
        return [pair for pair in found if math.isfinite(pair[1])]


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects in a file, without the lines that a crash cut short."""
    for text in _text(path).splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict):
            yield line


def picture(path: Path, caption: str) -> Picture | None:
    """The file as it is; made smaller where it is wide; None where it is no picture."""
    try:
        with Image.open(path) as image:
            image.load()
            width, height = image.size
            data, form = path.read_bytes(), "png"
            if width > WIDEST:
                width, height = WIDEST, max(1, round(height * WIDEST / width))
                file = io.BytesIO()
                small = image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
                small.save(file, "JPEG", quality=88)
                data, form = file.getvalue(), "jpeg"
    except (OSError, SyntaxError, ValueError):
        return None
    return Picture(
        f"data:image/{form};base64,{base64.b64encode(data).decode()}", width, height, caption
    )


def _numbered(folder: Path, ending: str) -> list[Path]:
    found = [path for path in folder.glob(f"*{ending}") if path.name.removesuffix(ending).isdigit()]
    return sorted(found, key=lambda path: int(path.stem))


def _text(path: Path) -> str:
    return path.read_text("utf-8", "replace") if path.is_file() else ""


def flat(config: Any, above: str = "") -> dict[str, Any]:
    """The values of a config by dotted name; that of a part itself is the name of its class."""
    data = config if isinstance(config, dict) else to_json(config)
    found: dict[str, Any] = {above or "experiment": data["kind"]} if "kind" in data else {}
    for name, value in data.items():
        path = f"{above}.{name}" if above else name
        if isinstance(value, dict):
            found |= flat(value, path)
        elif name != "kind":
            found[path] = value
    return found


# -- the page


def write_report(run: Path) -> Path:
    """Write RUN/report.html. Raises UserError where `run` is no run or its config does not fit."""
    it = RunFolder.open(run)
    parts: dict[str, list[Block]] = {
        "Previews": _previews(it),
        "Figures": _figures(it),
        "Learning": _learning(it),
        "Validation": _validation(it),
        "Sweep": _sweep(it),
        "Prompts and pictures": _painted(it),
        "Data": _data(it),
        "Environment": _environment(it),
        "Config": [Table(("name", "value"), rows(flat(it.config)), folded="every choice")],
    }
    newest = ordered(it.newest.measured)[:MOST_TILES] if it.newest else []
    tiles = [Tile(arrow(one), said(one).value, _under(one)) for one in newest]
    sections = [Section(name, blocks) for name, blocks in parts.items() if blocks]
    foot = "Made by flowbrush evaluate report, from the folder of the run alone."
    return write_page(Page(it.name, lead(it), tiles, sections, foot), run / REPORT_FILE)


def write_page(page: Page, path: Path) -> Path:
    """Write the page so that the file is the old one or the whole new one. Makes its folder."""
    house = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    text = house.get_template("report.html.jinja").render(page=page, dash=dash, colours=COLOURS)
    with written_whole(path) as aside:
        aside.write_text(text, "utf-8")
    return path


def lead(run: RunFolder) -> str:
    """One line about a run."""
    what = "An autoencoder" if isinstance(run.config, AutoencoderExperiment) else "A model"
    count = "" if run.parameters is None else f" with {short(run.parameters)} parameters"
    of = f"{run.seen:,} of {run.config.train.pictures:,} pictures seen"
    best = [one.line for one in ordered(run.newest.measured)[:1]] if run.newest else []
    size = f"at {run.config.size} pixels"
    return "; ".join([f"{what} of the recipe {run.config.name}{count}, {size}: {of}", *best]) + "."


def _under(one: Measured) -> str:
    ends = f"95 %: {said(one).ends}; " if said(one).ends else ""
    return f"{ends}{one.pictures:,} pictures"


def rows(values: dict[str, Any]) -> list[tuple[str, str]]:
    return [(name, words(value)) for name, value in values.items()]


def _previews(run: RunFolder) -> list[Block]:
    files = evenly(run.previews, MOST_PREVIEWS)
    shown = [picture(file, f"{int(file.stem):,} pictures seen") for file in files]
    whole = [one for one in shown if one]
    return [Pictures(whole)] if whole else [Note("No previews yet; watch.preview says when.")]


def evenly(all_of_them: Sequence[T], most: int) -> list[T]:
    """At most so many, with the first and the last."""
    last, count = len(all_of_them) - 1, min(most, len(all_of_them))
    return [all_of_them[round(last - i * last / max(1, count - 1))] for i in range(count)][::-1]


def _learning(run: RunFolder) -> list[Block]:
    charts = []
    for name, title, noisy in JOURNAL_LINES:
        if raw := run.series(name):
            line = Curve(title, smoothed(raw) if noisy else raw, behind=raw)
            now = plain(float(f"{raw[-1][1]:.4g}"))
            charts.append(curves(f"{title}, now {now}", [line], SEEN, title, may_be_log=noisy))
    return _drawn(charts) or [Note(f"Nothing in the journal yet: flowbrush train {run.path}")]


def _drawn(charts: Sequence[Chart], below: str = "") -> list[Block]:
    return [Charts(charts), *([Note(below, "faint")] if below else [])] if charts else []


def _validation(run: RunFolder) -> list[Block]:
    by_time = {one.pictures: one for one in run.evaluations if len(one.validation) == len(TIMES)}
    if not by_time:
        return []
    lines = [
        Curve(f"at {short(one.pictures)} pictures", list(zip(TIMES, one.validation, strict=True)))
        for one in evenly(list(by_time.values()), MOST_TIMES)
    ]
    what = f"{VALIDATION} at each time"
    chart = curves(what, lines, "t, from noise (0) to data (1)", VALIDATION)
    return _drawn([*over_pictures(run.evaluations, [VALIDATION]), chart])


def _figures(run: RunFolder) -> list[Block]:
    if isinstance(run.config, AutoencoderExperiment):
        return [Note("An autoencoder's run is not evaluated; its previews show what it keeps.")]
    if run.newest is None:
        return [Note(f"No evaluations yet: flowbrush evaluate {run.path}")]
    head = ("figure", "value", "95 % interval", "pictures", "by")
    table = [_row(one) for one in ordered(run.newest.measured)]
    every = [
        (f"{at.pictures:,}", how(at), *_row(one)) for at in run.evaluations for one in at.measured
    ]
    titles = {one.name.partition(", ")[0]: 0 for at in run.evaluations for one in at.measured}
    charts = over_pictures(run.evaluations, [title for title in titles if title != VALIDATION])
    fold = f"all {len(run.evaluations)} evaluations"
    return [
        Note(f"Measured at {run.newest.pictures:,} pictures seen; {how(run.newest)}."),
        Table(head, table, numbers=(1, 2, 3)),
        *(Note(caution, "faint") for caution in cautions(run.newest.measured)),
        *_drawn(charts, BANDS),
        Table((SEEN, "painted by", *head), every, numbers=(0, 3, 4, 5), folded=fold),
    ]


def _row(one: Measured) -> tuple[str, ...]:
    return arrow(one), *said(one), f"{one.pictures:,}", one.by


def _sweep(run: RunFolder) -> list[Block]:
    if not (run.path / SWEEP_FILE).is_file():
        return []
    try:
        data = json.loads(_text(run.path / SWEEP_FILE))
        axes = {name: [words(value) for value in values] for name, values in data["axes"].items()}
        places = [{name: words(row["choices"][name]) for name in axes} for row in data["rows"]]
        found = [{one.name: one for one in map(_measured, row["measured"])} for row in data["rows"]]
    except (ValueError, TypeError, KeyError, AttributeError):
        return [Note(f"{SWEEP_FILE} cannot be read; sweep once more.")]
    names = list(dict.fromkeys(one.name for row in found for one in ordered(row.values())))
    names.sort(key=lambda name: name != data.get("metric"))
    table = [
        (*place.values(), *(_cell(row.get(name)) for name in names))
        for place, row in zip(places, found, strict=True)
    ]
    numbers = tuple(range(len(axes), len(axes) + len(names)))
    maps = [
        m
        for name in names
        for m in sweep_maps(name, list(axes), places, [row.get(name) for row in found])
    ]
    return [
        *_drawn(maps[:MOST_MAPS], FRAMED),
        Table((*axes, *names), table, numbers, folded=f"all {len(table)} ways of painting"),
    ]


def _measured(one: dict[str, Any]) -> Measured:
    values = ((f.name, one[f.name]) for f in fields(Measured) if f.name in one)
    known: dict[str, Any] = {k: math.nan if value is None else value for k, value in values}
    return Measured(**known)


def _cell(one: Measured | None) -> str:
    return " ".join(said(one)) if one else "–"


def _painted(run: RunFolder) -> list[Block]:
    sheet = picture(run.path / PAINTED_FILE, "painted by the last flowbrush evaluate")
    prompts = run.config.watch.prompts
    blocks: list[Block] = [Note("The prompts of the previews:"), Words(prompts)] if prompts else []
    return [*blocks, *([Pictures([sheet])] if sheet else [])]


def _data(run: RunFolder) -> list[Block]:
    due = _text(run.path / ATTRIBUTION_FILE).strip()
    rejected = json_lines(run.path / REJECTS_FILE)
    reasons = Counter(str(line.get("reason", "unknown")) for line in rejected)
    common = [(reason, f"{count:,}") for reason, count in reasons.most_common(MOST_REASONS)]
    head = f"the most common of {len(reasons):,} reasons", "pictures"
    blocks: list[Block] = [
        Note(due, "quote") if due else Note("The source names nobody to attribute pictures to."),
        Table(("name", "value"), rows(flat(run.config.source, "source"))),
        *origins(run.path),
    ]
    if not reasons:
        return [*blocks, Note("No picture is known to have been rejected.")]
    total = Note(f"{reasons.total():,} pictures could not be read; {REJECTS_FILE} lists them.")
    return [*blocks, total, Table(head, common, numbers=(1,))]


def _environment(run: RunFolder) -> list[Block]:
    versions: dict[str, dict[str, None]] = {}
    for one in run.evaluations:
        for package, version in one.versions.items():
            versions.setdefault(package, {})[version] = None
    lines = [(package, ", then ".join(found)) for package, found in versions.items()]
    seconds = run.newest.seconds if run.newest else {}
    lines += [(f"newest evaluation, {what}", f"{took:,.1f} s") for what, took in seconds.items()]
    if speeds := [speed for _, speed in run.series("pictures_per_second")]:
        lines.append(("training, median", f"{median(speeds):,.4g} pictures a second"))
    if not lines:
        return [Note("Nothing is recorded of the machine and its software before an evaluation.")]
    return [Table(("of", "recorded"), lines)]
