"""Where a run's pictures are from, as its newest checkpoint tells it, in a table."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flowbrush.evaluate.charts import Block, Note, Table
from flowbrush.experiment import CHECKPOINT_FOLDER

HEAD = ("source", "examples", "left out", "licences", "due to", "SHA-256 of its list")


def origins(run: Path) -> list[Block]:
    """Empty for a run without a checkpoint that tells."""
    told = sorted((run / CHECKPOINT_FOLDER).glob("[0-9]*/provenance.json"))
    try:
        rows = list(_rows(json.loads(told[-1].read_text("utf-8")), "")) if told else []
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return [Note(f"{told[-1].name} cannot be read.")]
    return [Table(HEAD, rows, numbers=(1,))] if rows else []


def _rows(one: Mapping[str, Any], share: str) -> Iterator[tuple[str, ...]]:
    """Of a mixture one for each part; what a prepared source was made of comes after it."""
    for part in one.get("parts", ()):
        yield from _rows(part, f", share {part['share']:g}")
    if "source" in one:
        kind, *places = (one["source"].get(name) for name in ("kind", "path", "name"))
        place = next((f" {place}" for place in places if place), "")
        licences = _counts(one["licences"])
        if licences:
            licences += f" (of {one['licences_of']:,})"
        counts = f"{one['examples']:,}", _counts(one["left_out"]), licences
        yield f"{kind}{place}{share}", *counts, one["attribution"], one["sha256"][:16]
        if one["made_of"]:
            yield from _rows(one["made_of"], ", prepared")


def _counts(of: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in of.items())
