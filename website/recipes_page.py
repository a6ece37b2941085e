"""The recipes as their docstrings tell of them, by family."""

import inspect
import re
import sys
from itertools import groupby
from pathlib import Path

from flowbrush.recipes import RECIPES

PARTS = re.compile(r"\b(Source|Cost|Result): ")
OPTION = re.compile(r"(?<![`\w])(--[\w.]+(?: (?:[A-Z]+|\d[\d.]*))?)")
SHOWN = re.compile(r" ?\(docs/pictures/[\w-]+\.png\)")


def page(root: Path) -> str:
    index, families = ["| family | recipes |", "|---|---|"], []
    for module, names in groupby(RECIPES, key=lambda name: RECIPES[name].__module__):
        family = list(names)
        heading, about = _family(inspect.getdoc(sys.modules[module]) or module)
        links = ", ".join(f"[{name}](#{name})" for name in family)
        index.append(f"| {heading} | {links} |")
        families += [f"## {heading}", "", about, ""]
        for name in family:
            families += _recipe(name, root)
    return "\n".join([*index, "", *families])


def _family(doc: str) -> tuple[str, str]:
    """A short heading, and the whole text where it says more."""
    heading = re.split(r":| \(|\.$", doc.partition("\n")[0])[0]
    whole = doc.strip() if doc.strip().rstrip(".") != heading else ""
    return heading, OPTION.sub(r"`\1`", whole)


def _recipe(name: str, root: Path) -> list[str]:
    title, _, rest = (inspect.getdoc(RECIPES[name]) or "").partition("\n")
    about, *parts = PARTS.split(rest)
    lines = [f"### {name}", "", f"**{title}** {_joined(about)}", ""]
    lines += ["```bash", f"flowbrush train {name}", "```", ""]
    for what, said in zip(parts[::2], parts[1::2], strict=True):
        lines += [what, f":   {_joined(said)}", ""]
    if (root / "docs" / "pictures" / f"{name}.png").is_file():
        lines += [f"![What {name} paints](pictures/{name}.png)", ""]
    return lines


def _joined(text: str) -> str:
    """In one line, its options as code; the picture that it names stands below it."""
    return OPTION.sub(r"`\1`", SHOWN.sub("", " ".join(text.split())))
