"""Paint, measure, write down: once, or for every way of painting in a sweep."""

import itertools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from flowbrush.contact_sheet import save
from flowbrush.evaluate.asked import Asked, sheet
from flowbrush.evaluate.measure import Comparison, by_features, by_source
from flowbrush.evaluate.painting import Job, paint
from flowbrush.evaluate.record import Evaluation, evaluation, record, without_nan
from flowbrush.evaluate.validation import ValidationLoss
from flowbrush.flow.sampling import Method, SamplingConfig
from flowbrush.processes import Processes
from flowbrush.text_to_image import TextToImage

SWEEP_FILE, SHEET_FILE = "sweep.json", "painted.png"


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """Ways of painting, every one with every other. Empty = the run's own alone."""

    weights: tuple[str, ...] = ()  # ema_0.998, power_0.05, model, ...
    scale: tuple[float, ...] = ()
    interval: tuple[tuple[float, float], ...] = ()
    steps: tuple[int, ...] = ()
    method: tuple[Method, ...] = ()

    @property
    def axes(self) -> dict[str, tuple[Any, ...]]:
        """What is varied."""
        return {name: values for name, values in vars(self).items() if values}

    def ways(self, weights: str, sampling: SamplingConfig) -> list["Way"]:
        """All of them, those of one kind of weights together; `weights` and `sampling` say what is
        not varied. Raises UserError for a way that there is not."""
        ways = []
        for values in itertools.product(*self.axes.values()):
            choices = dict(zip(self.axes, values, strict=True))
            how = {name: value for name, value in choices.items() if name != "weights"}
            ways.append(Way(choices, choices.get("weights", weights), replace(sampling, **how)))
        return ways


@dataclass(frozen=True)
class Way:
    """One point of a sweep."""

    choices: dict[str, Any]  # by the name of the axis
    weights: str
    sampling: SamplingConfig


@dataclass(frozen=True)
class Measuring:
    """What is measured of what is painted, and how it is computed."""

    what: Asked
    comparisons: Sequence[Comparison]
    batch: int  # pictures painted together
    seed: int
    validation: Callable[[TextToImage], ValidationLoss | None]


def evaluate_once(
    painter: TextToImage,
    run: Path,
    sampling: SamplingConfig,
    measuring: Measuring,
    loss: ValidationLoss | None,
    processes: Processes,
    done: Callable[[int], object],
) -> Evaluation | None:
    """Paint with the other processes; the main one measures and adds a line to the record.

    None in the others. loss: of the weights, however they paint. done: told of the pictures as they
    come. Raises UserError as the parts do.
    """
    what, began = measuring.what, time.perf_counter()
    job = Job(what.captions, sampling, painter.weights, painter.seen, measuring.seed)
    painted = paint(painter, job, run, processes, measuring.batch, done)
    seconds = {"painting": time.perf_counter() - began}
    if not processes.is_main:
        return None
    began = time.perf_counter()
    measured = by_source(what, painted)
    seconds["checking"] = time.perf_counter() - began
    for by in measuring.comparisons:
        began = time.perf_counter()
        measured += by_features(what, painted, by, run)
        seconds[by.features.name] = time.perf_counter() - began
    found = evaluation(
        painter.seen,
        painter.weights,
        sampling,
        [*measured, *([loss.measured] if loss else [])],
        validation=tuple(loss.by_time) if loss else (),
        painted=len(painted),
        seconds=seconds,
    )
    record(run, found)
    save(sheet(what, painted), run / SHEET_FILE)
    return found


def sweep(
    load: Callable[[str], TextToImage],
    run: Path,
    axes: dict[str, tuple[Any, ...]],
    ways: Sequence[Way],
    measuring: Measuring,
    processes: Processes,
    done: Callable[[int], object],
) -> list[tuple[Way, Evaluation]]:
    """What was measured of each way; RUN/sweep.json has them as they come, where anything is
    varied. Empty in the other processes.

    load: the run with the weights of that name. Raises UserError as the parts do.
    """
    found = []
    for weights, group in itertools.groupby(ways, key=lambda way: way.weights):
        painter = load(weights)
        loss = measuring.validation(painter) if processes.is_main else None
        for way in group:
            one = evaluate_once(painter, run, way.sampling, measuring, loss, processes, done)
            if one:
                found.append((way, one))
                if axes:
                    _keep(run, axes, found)
    return found


def _keep(
    run: Path, axes: dict[str, tuple[Any, ...]], found: Sequence[tuple[Way, Evaluation]]
) -> None:
    rows = [
        {"choices": way.choices, "measured": [asdict(m) for m in one.measured]}
        for way, one in found
    ]
    text = json.dumps(without_nan({"axes": axes, "rows": rows}), indent=1)
    (run / SWEEP_FILE).write_text(text, "utf-8")
