"""Docstrings for the reference: what is said of a parameter, result or error begins a line."""

import re
from typing import Any

import griffe

SAID = re.compile(r"^(?P<names>\w+(?:, \w+)*): ", re.MULTILINE)
RAISES = re.compile(r"(?:^|(?<=\. ))Raises (?P<error>[A-Z]\w+)", re.MULTILINE)
RETURNS = re.compile(r"(?:^|(?<=\. ))(?=Returns )", re.MULTILINE)


class Docstrings(griffe.Extension):
    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        _tell(func, {parameter.name for parameter in func.parameters})

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        _tell(cls, set(cls.members))
        if "__init__" in cls.members:
            _tell(cls, {parameter.name for parameter in cls["__init__"].parameters})


def _tell(thing: griffe.Object, names: set[str]) -> None:
    if thing.docstring is None:
        return

    def item(found: re.Match[str]) -> str:
        said = found["names"].split(", ")
        return f"\n\n- {', '.join(f'`{n}`' for n in said)}: " if {*said} <= names else found[0]

    text = RETURNS.sub("\n\n", SAID.sub(item, thing.docstring.value))
    thing.docstring.value = RAISES.sub(r"\n\nRaises `\g<error>`", text)
