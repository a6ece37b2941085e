"""Frozen dataclasses to JSON and back. Each object carries its class name as `kind`; a field that
its class does not have, or a value of the wrong type, is refused with its path."""

import dataclasses
import json
import math
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from flowbrush.errors import UserError, nearest
from flowbrush.whole_files import written_whole

C = TypeVar("C")


def to_json(value: Any) -> Any:
    """Plain JSON data for a dataclass, a tuple or a plain value."""
    if dataclasses.is_dataclass(value):
        own = {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"kind": type(value).__name__, **own}
    if isinstance(value, tuple):
        return [to_json(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def as_text(data: Any) -> bytes:
    """Plain JSON data as an indented file. What is no Unicode in a file's name is escaped."""
    return json.dumps(data, indent=2, ensure_ascii=False).encode("utf-8", "backslashreplace")


def from_json(cls: type[C], data: Any, where: str) -> C:
    """An instance of `cls` from plain JSON data.

    Raises UserError, naming the path of the field from `where` on, for what does not fit.
    """
    return _read(cls, data, where)


def check_finite(config: Any, where: str) -> None:
    """Raises UserError, naming the field, where a number of `config` is nan or infinite."""
    for field in _not_finite(config, ""):
        raise UserError(f"{where}: {field}: not a finite number; write one")


def _not_finite(value: Any, path: str) -> Iterator[str]:
    """The paths of the numbers that are not finite."""
    if dataclasses.is_dataclass(value):
        for f in dataclasses.fields(value):
            yield from _not_finite(getattr(value, f.name), f"{path}.{f.name}" if path else f.name)
    elif isinstance(value, tuple):
        for i, item in enumerate(value):
            yield from _not_finite(item, f"{path}[{i}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield path


def save(config: Any, path: Path) -> None:
    """Write `config` so that the file is either the old one or the whole new one.

    Raises UserError as `check_finite` does.
    """
    check_finite(config, str(path))
    with written_whole(path) as aside:
        aside.write_bytes(as_text(to_json(config)) + b"\n")


def load(cls: type[C], path: Path) -> C:
    """The config in a file. Raises UserError where it is not JSON or does not fit `cls`."""
    try:
        data = json.loads(path.read_text("utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: not valid JSON ({error}); restore it from a checkpoint's copy"
        ) from None
    return from_json(cls, data, str(path))


def differences(one: Any, other: Any, path: str = "") -> dict[str, tuple[Any, Any]]:
    """The fields, by dotted path, in which two configs of one class differ."""
    if type(one) is type(other) and dataclasses.is_dataclass(one):
        found: dict[str, tuple[Any, Any]] = {}
        for f in dataclasses.fields(one):
            below = f"{path}.{f.name}" if path else f.name
            found |= differences(getattr(one, f.name), getattr(other, f.name), below)
        return found
    return {} if one == other else {path: (one, other)}


def _read(kind: Any, data: Any, where: str) -> Any:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return _read_union(typing.get_args(kind), data, where)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _read_dataclass(kind, data, where)
    if typing.get_origin(kind) is tuple:
        return _read_tuple(typing.get_args(kind), data, where)
    if typing.get_origin(kind) is typing.Literal:
        if data not in (choices := typing.get_args(kind)):
            wanted = ", ".join(map(repr, choices))
            raise UserError(
                f"{where}: {data!r} is not one of {wanted}{nearest(str(data), map(str, choices))}"
            )
        return data
    if kind is Path and isinstance(data, str):
        return Path(data)
    if kind is float and type(data) in (int, float):
        if not abs(data) <= sys.float_info.max:  # an integer may be longer than any float
            raise UserError(f"{where}: not a finite number; write one")
        return float(data)
    if type(data) is not kind and not (data is None and kind is type(None)):
        raise UserError(f"{where}: {data!r} is not a {getattr(kind, '__name__', kind)}")
    return data


def _read_union(kinds: tuple[Any, ...], data: Any, where: str) -> Any:
    by_name = {k.__name__: k for k in kinds if isinstance(k, type) and dataclasses.is_dataclass(k)}
    if isinstance(data, dict) and by_name:
        name = str(data.get("kind", ""))
        if name not in by_name:
            raise UserError(
                f"{where}.kind: {name!r} is not one of {', '.join(by_name)}{nearest(name, by_name)}"
            )
        return _read(by_name[name], data, where)
    if data is None and type(None) in kinds:
        return None
    plain = [kind for kind in kinds if kind is not type(None) and kind not in by_name.values()]
    return _read(plain[0] if plain else next(iter(by_name.values())), data, where)


def _read_dataclass(cls: type[Any], data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise UserError(f"{where}: {data!r} is not an object with the fields of {cls.__name__}")
    if data.get("kind", cls.__name__) != cls.__name__:
        raise UserError(f"{where}.kind: {data['kind']!r} is not {cls.__name__}")
    hints = typing.get_type_hints(cls)
    known = {f.name: f for f in dataclasses.fields(cls)}
    for name in data:
        if name != "kind" and name not in known:
            raise UserError(
                f"{where}: unknown field '{name}' of {cls.__name__}{nearest(name, known)}"
            )
    no_default = dataclasses.MISSING
    for name, f in known.items():
        if name not in data and f.default is no_default and f.default_factory is no_default:
            raise UserError(f"{where}: the field '{name}' of {cls.__name__} is missing")
    values = {
        name: _read(hints[name], data[name], f"{where}: {name}") for name in known if name in data
    }
    return cls(**values)


def _read_tuple(kinds: tuple[Any, ...], data: Any, where: str) -> Any:
    if not isinstance(data, list):
        raise UserError(f"{where}: {data!r} is not a list")
    if kinds[-1] is ...:
        return tuple(_read(kinds[0], item, f"{where}[{i}]") for i, item in enumerate(data))
    if len(kinds) != len(data):
        raise UserError(f"{where}: {len(data)} values where {len(kinds)} belong")
    return tuple(
        _read(k, item, f"{where}[{i}]") for i, (k, item) in enumerate(zip(kinds, data, strict=True))
    )
