"""The learning path's notebooks as pages."""

import base64
import json
import re
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class NotebookPage:
    """A notebook with what its cells showed.

    pictures: by their names, beside the page. cover: the name of the one that stands for it, which
    is the last of the cell with the tag "cover", or of all.
    """

    name: str
    markdown: str = ""
    pictures: dict[str, bytes] = field(default_factory=dict)
    cover: str = ""

    def show(self, output: dict[str, Any]) -> None:
        """Append what a cell showed."""
        data = output.get("data", {})
        if "image/png" in data:
            name = f"figure-{len(self.pictures) + 1}.png"
            self.pictures[name] = base64.b64decode(_text(data["image/png"]))
            self._append(f"![What the cell above shows]({self.name}/{name})")
        elif "text/markdown" in data:
            self._append(_text(data["text/markdown"]))
        elif text := _text(output.get("text", data.get("text/plain", ""))).rstrip():
            self._append(_fenced(ESCAPES.sub("", text), "{ .text .output .no-copy }"))

    def _append(self, text: str) -> None:
        self.markdown += f"{text.strip(chr(10))}\n\n"

    def add(self, cell: dict[str, Any]) -> None:
        source = _text(cell["source"])
        if cell["cell_type"] == "markdown":
            self._append(source.replace("<details>", '<details markdown="1">'))
        elif source.strip():
            self._append(_fenced(source, "{ .python }"))
            for output in cell.get("outputs", []):
                self.show(output)
            if self.pictures and "cover" in cell["metadata"].get("tags", []):
                self.cover = list(self.pictures)[-1]


def found(root: Path) -> list[Path]:
    """The notebooks that were run."""
    return sorted((root / "notebooks").glob("[0-9]_*.ipynb"))


@lru_cache
def read(path: Path) -> NotebookPage:
    page = NotebookPage(path.stem)
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        page.add(cell)
    if page.pictures and not page.cover:
        page.cover = list(page.pictures)[-1]
    return page


def overview(root: Path) -> str:
    """Each of them with its cover and its own first words."""
    return "\n".join(_step(read(path)) for path in found(root))


def _step(page: NotebookPage) -> str:
    head, _, rest = page.markdown.partition("\n")
    title, link = head.removeprefix("# "), f"learning-path/{page.name}.md"
    first = rest.partition("\n```")[0].partition("\n## ")[0].strip()
    first = re.sub(r"\]\((?=[\w.-]+\.ipynb)", "](../notebooks/", first)  # as from docs/
    lines = [f"## [{title}]({link})", ""]
    if page.cover:
        lines += [f"[![{title}](learning-path/{page.name}/{page.cover}){{ .step }}]({link})", ""]
    return "\n".join([*lines, re.sub(r"^#+ ", "#### ", first, flags=re.MULTILINE), ""])


def _text(lines: str | list[str]) -> str:
    return lines if isinstance(lines, str) else "".join(lines)


def _fenced(text: str, words: str) -> str:
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence} {words}\n{text}\n{fence}"
