"""What was measured of a run, a line of JSON a time, in RUN/evaluations.jsonl."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from flowbrush.config_io import to_json
from flowbrush.evaluate.intervals import Measured, cautions, ordered
from flowbrush.flow.sampling import SamplingConfig

RECORD_FILE = "evaluations.jsonl"
PACKAGES = ("flowbrush", "torch", "transformers", "diffusers", "efficientnet-lite-pytorch")


@dataclass(frozen=True)
class Evaluation:
    """One time of measuring. `pictures` are those seen until then, as in the journal."""

    pictures: int
    weights: str
    sampling: dict[str, Any]
    measured: tuple[Measured, ...]
    painted: int = 0  # pictures
    validation: tuple[float, ...] = ()  # loss at each of validation.TIMES
    seconds: Mapping[str, float] = field(default_factory=dict)  # by what was done
    versions: Mapping[str, str] = field(default_factory=dict)

    def value(self, name: str) -> float:
        """Of the figure of that name; nan where it was not measured."""
        return next((one.value for one in self.measured if one.name == name), math.nan)


def evaluation(
    seen: int, weights: str, sampling: SamplingConfig, measured: Sequence[Measured], **more: Any
) -> Evaluation:
    """An Evaluation with the versions of what measured it."""
    settings = to_json(sampling)
    return Evaluation(seen, weights, settings, tuple(measured), versions=versions(), **more)


def versions() -> dict[str, str]:
    """Of the software that the figures depend on."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def record(run: Path, one: Evaluation) -> None:
    """Add a line; nan, which JSON has not, becomes null. What a crash cut short is left behind."""
    path = run / RECORD_FILE
    whole = not path.exists() or path.read_bytes()[-1:] in (b"", b"\n")
    with path.open("a", encoding="utf-8") as file:
        line = json.dumps(without_nan(asdict(one)), ensure_ascii=False)
        file.write(("" if whole else "\n") + line + "\n")


def recorded(run: Path) -> list[Evaluation]:
    """Every whole line, in order; none where nothing was measured."""
    path = run / RECORD_FILE
    lines = path.read_text("utf-8", "replace").splitlines() if path.exists() else []
    found = []
    for line in lines:
        try:
            found.append(_read(json.loads(line)))
        except (ValueError, KeyError, TypeError):
            continue  # cut short by a crash
    return found


def table(choices: Mapping[str, Any], one: Evaluation) -> list[str]:
    """Lines for the user: how it was painted, every figure, what to beware of, what it cost."""
    varied = ", ".join(f"{name} {value}" for name, value in choices.items())
    lines = [f"{one.weights} after {one.pictures:,} pictures{varied and ': '}{varied}"]
    measured = ordered(one.measured)
    width = max((len(figure.name) for figure in measured), default=0)
    for figure in measured:
        lines.append(f"  {figure.name:{width}}  {figure.line.removeprefix(figure.name).strip()}")
    lines += [f"  {caution}" for caution in cautions(measured)]
    if one.painted and one.seconds:
        each = {what: 1000 * seconds / one.painted for what, seconds in one.seconds.items()}
        spent = ", ".join(f"{what} {seconds:.0f} s" for what, seconds in each.items())
        lines.append(f"  a thousand pictures: {spent}")
    return lines


def _read(line: dict[str, Any]) -> Evaluation:
    known = [f.name for f in fields(Measured)]
    measured = []
    for one in line.pop("measured"):
        values: dict[str, Any] = {
            k: math.nan if one[k] is None else one[k] for k in known if k in one
        }
        measured.append(Measured(**values))
    line["validation"] = tuple(line["validation"])
    return Evaluation(measured=tuple(measured), **line)


def without_nan(value: Any) -> Any:
    """For JSON, which has no nan."""
    if isinstance(value, Mapping):
        return {k: without_nan(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
