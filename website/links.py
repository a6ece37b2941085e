"""Links as they are right in the repository, made right on the site.

A page there may come from elsewhere than docs/, and a link may lead to any file: to a notebook, to
the results, or to source, of which a page is made.
"""

import ast
import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path

NOTEBOOKS = "learning-path/"  # their pages
SOURCES = "source/"
# Pages that are files elsewhere in the repository.
PAGES = {
    "README.md": "index.md",
    "benchmarks/RESULTS.md": "project/results.md",
    "CHANGELOG.md": "project/changes.md",
    "CONTRIBUTING.md": "project/contributing.md",
}
LINK = re.compile(r"\]\(([^()\s]+)\)")
CODE = re.compile(r"^(`{3,}|~{3,}).*?^\1|`[^`\n]+`", re.MULTILINE | re.DOTALL)
WORDS = {".py": "python", ".sh": "bash", ".sbatch": "bash", ".yaml": "yaml", ".toml": "toml"}


def rewritten(markdown: str, uri: str, root: Path) -> str:
    """The page at `uri` with its links as the site has them; dead ones as they are."""

    def led(link: re.Match[str]) -> str:
        target, mark, anchor = link[1].partition("#")
        found = _page(_in_repository(target, uri), root) if _is_relative(link[1]) else None
        if found is None:
            return link[0]
        return f"]({posixpath.relpath(found, posixpath.dirname(uri) or '.')}{mark}{anchor})"

    return _outside_code(markdown, lambda text: LINK.sub(led, _without_missing(text, uri, root)))


def sources(markdown: str, uri: str, root: Path) -> set[str]:
    """The repository's files and folders that a page links to and that need a page."""
    found = [link[1] for link in LINK.finditer(CODE.sub("", markdown)) if _is_relative(link[1])]
    places = {_in_repository(link.partition("#")[0], uri) for link in found}
    return {place for place in places if (_page(place, root) or "").startswith(SOURCES)}


def source_pages(wanted: set[str], root: Path) -> dict[str, str]:
    """A page for each file, and for each folder with those of its files; by their URIs."""
    pages = {}
    for place in sorted(wanted):
        for inside in [place, *_files(root / place, root)]:
            uri = str(_page(inside, root))
            pages[uri] = _source_page(inside, uri, root)
    return pages


def _source_page(place: str, uri: str, root: Path) -> str:
    head = f"---\nsearch:\n  exclude: true\ntitle: {place}\nhide: [toc]\n---\n\n# `{place}`\n\n"
    path = root / place
    if path.is_dir():
        rows = [_row(file, uri, root) for file in _files(path, root)]
        return head + "\n".join(["| file | what is in it |", "|---|---|", *rows])
    text = path.read_text("utf-8")
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f'{head}{fence} {{ .{WORDS.get(path.suffix, "text")} linenums="1" }}\n{text}{fence}\n'


def _row(file: str, uri: str, root: Path) -> str:
    says = ast.get_docstring(ast.parse((root / file).read_text("utf-8"))) or ""
    led = posixpath.relpath(str(_page(file, root)), posixpath.dirname(uri))
    first = " ".join(says.partition("\n\n")[0].split())
    return f"| [`{posixpath.basename(file)}`]({led}) | {first} |"


def _files(path: Path, root: Path) -> Iterator[str]:
    """The Python files of a folder."""
    if path.is_dir():
        yield from (file.relative_to(root).as_posix() for file in sorted(path.glob("*.py")))


def _is_relative(link: str) -> bool:
    return "://" not in link and not link.startswith(("#", "mailto:"))


def _in_repository(target: str, uri: str) -> str:
    """The file that a link on the page at `uri` means, by its path in the repository."""
    origin = next((file for file, page in PAGES.items() if page == uri and page != "index.md"), "")
    if uri.startswith(NOTEBOOKS):
        origin = "notebooks/" + uri.removeprefix(NOTEBOOKS)
    return posixpath.normpath(posixpath.join(posixpath.dirname(origin or f"docs/{uri}"), target))


def _page(place: str, root: Path) -> str | None:
    """The URI of what the site has for a file; None where it has nothing."""
    name = posixpath.basename(place)
    if place in PAGES:
        return PAGES[place]
    if place.startswith("docs/"):
        return place.removeprefix("docs/")
    if place.startswith("notebooks/") and name.endswith((".md", ".png")):  # of a page made of one
        return NOTEBOOKS + place.removeprefix("notebooks/")
    if not (root / place).exists() or place.startswith(".."):
        return None
    if name.endswith(".ipynb"):
        return f"{NOTEBOOKS}{name.removesuffix('.ipynb')}.md"
    return f"{SOURCES}{place}/index.md" if (root / place).is_dir() else f"{SOURCES}{place}.md"


def _without_missing(text: str, uri: str, root: Path) -> str:
    """A link to a notebook that is not there yet becomes its words."""

    def words(link: re.Match[str]) -> str:
        return link[0] if (root / _in_repository(link[2], uri)).exists() else link[1]

    return re.sub(r"\[([^\]]+)\]\(([^()\s#]+\.ipynb)(?:#[^()\s]*)?\)", words, text)


def _outside_code(markdown: str, change: Callable[[str], str]) -> str:
    parts, at = [], 0
    for code in CODE.finditer(markdown):
        parts += [change(markdown[at : code.start()]), code[0]]
        at = code.end()
    return "".join([*parts, change(markdown[at:])])
