"""Every choice of an experiment, as a table of options: from the fields and their comments."""

import dataclasses
import inspect
import io
import tokenize
import types
import typing
from collections.abc import Iterator
from typing import Any

from flowbrush.experiment import ExperimentConfig

UNIONS = ("text", "space", "backbone", "source")  # whose parts' own parts are not followed


def page() -> str:
    lines = []
    for option, kinds in parts(ExperimentConfig, ""):
        if len(kinds) > 1:
            names = ", ".join(f"`{kind.__name__}`" for kind in kinds)
            lines += [f"## --{option}", "", f"One of {names}: chosen by the recipe.", ""]
        for kind in kinds:
            heading = f"## --{option}" if option else "## The experiment itself"
            heading = f"### {kind.__name__}" if len(kinds) > 1 else heading
            says = " ".join((inspect.getdoc(kind) or "").split())
            lines += [heading, "", says, "", *table(kind, option)]
    return "\n".join(lines)


def parts(kind: type, option: str) -> Iterator[tuple[str, tuple[type, ...]]]:
    """This config, and the configs in its fields: each place with the classes it may hold."""
    yield option, (kind,)
    for name, inner in _configs(kind):
        place = f"{option}.{name}".lstrip(".")
        if len(inner) > 1:
            yield place, inner
        else:
            yield from parts(inner[0], place)


def table(kind: Any, option: str) -> list[str]:
    """Its own fields, but for the configs in them."""
    said, nested = comments(kind), dict(_configs(kind))
    rows = []
    for f in dataclasses.fields(kind):
        place = f"{option}.{f.name}".lstrip(".")
        if f.name not in nested:
            rows.append(f"| `--{place}` | {_default(f)} | {said.get(f.name, '')} |")
        elif kind is not ExperimentConfig and option in UNIONS:
            inner = " or ".join(f"`{part.__name__}`" for part in nested[f.name])
            rows.append(f"| `--{place}.` ... | | each of {inner} |")
    return ["| option | if left out | |", "|---|---|---|", *rows, ""] if rows else []


def comments(kind: type) -> dict[str, str]:
    """What stands behind each field, or on the lines above it."""
    found, above = dict[str, str](), list[str]()
    source = inspect.getsource(kind)
    names = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for line in source.splitlines():
        name, bare = line.strip().partition(":")[0], line.strip()
        if bare.startswith("#"):
            above.append(bare.removeprefix("#").strip())
        elif name in names and line.startswith("    ") and not line.startswith("     "):
            found[name] = _behind(line) or " ".join(above)
            above = []
        elif bare.startswith("def "):
            break
        else:
            above = []
    return {name: said.replace("|", "\\|") for name, said in found.items()}


def _behind(line: str) -> str:
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(line.strip()).readline))
    except tokenize.TokenError:
        return ""
    return next(
        (t.string.removeprefix("#").strip() for t in tokens if t.type == tokenize.COMMENT), ""
    )


def _configs(kind: type) -> Iterator[tuple[str, tuple[type, ...]]]:
    """The fields that hold configs, with the classes that each may be of."""
    hints = typing.get_type_hints(kind)
    for f in dataclasses.fields(kind):  # type: ignore[arg-type]
        hint = hints[f.name]
        union = isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
        inner = tuple(k for k in (typing.get_args(hint) if union else (hint,)))
        inner = tuple(k for k in inner if k is not type(None))
        if all(dataclasses.is_dataclass(k) for k in inner):
            yield f.name, inner


def _default(f: Any) -> str:
    if f.default is dataclasses.MISSING:
        return ""
    value = f.default
    if value in ("", (), None):
        return "none" if value is None else "empty"
    if isinstance(value, tuple):
        value = " ".join(map(str, value))
    elif isinstance(value, int) and not isinstance(value, bool):
        value = f"{value:,}"
    return f"`{value}`"
