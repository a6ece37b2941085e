"""What MkDocs calls while it builds the site: pages made of notebooks, recipes, choices and source.

Each is written into a page where that has a line `<!-- NAME -->`, or is a page of its own.
"""

import re
from pathlib import Path
from typing import Any

import choices
import formulas
import links
import recipes_page
from commonmark import loosened
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

import notebooks

CODE = re.compile(r"<code>[^<]+</code>")  # within a sentence or a table
OPTION = re.compile(r"--[\w.-]{1,40}")
ROOT = Path(__file__).parents[1]
MADE = {
    "recipes": lambda: recipes_page.page(ROOT),
    "steps": lambda: notebooks.overview(ROOT),
    "choices": choices.page,
}


def on_config(config: MkDocsConfig) -> None:
    steps = [links.NOTEBOOKS + f"{path.stem}.md" for path in notebooks.found(ROOT)]
    for entry in config.nav or []:
        if "Learning path" in entry:
            entry["Learning path"] += steps


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that stand in no file of docs/."""
    written = {file.src_uri: _filled(file.content_string) for file in files.documentation_pages()}
    made: dict[str, str | bytes] = {}
    for path in notebooks.found(ROOT):
        page = notebooks.read(path)
        made[links.NOTEBOOKS + f"{path.stem}.md"] = page.markdown
        for name, picture in page.pictures.items():
            made[f"{links.NOTEBOOKS}{path.stem}/{name}"] = picture
    for origin, uri in links.PAGES.items():
        if uri not in written:
            made[uri] = (ROOT / origin).read_text("utf-8")
    for uri, content in made.items():
        files.append(File.generated(config, uri, content=content))
    texts = {**written, **{uri: text for uri, text in made.items() if isinstance(text, str)}}
    wanted = set().union(*(links.sources(text, uri, ROOT) for uri, text in texts.items()))
    for uri, text in links.source_pages(wanted, ROOT).items():
        hidden = InclusionLevel.NOT_IN_NAV
        files.append(File.generated(config, uri, content=text, inclusion=hidden))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    uri = page.file.src_uri
    if uri.startswith(links.SOURCES):
        return markdown
    return loosened(links.rewritten(_filled(markdown), uri, ROOT))


def on_page_content(html: str, page: Page, **_: Any) -> str:
    return CODE.sub(_unbroken, formulas.as_mathml(html, page.file.src_uri))


def _unbroken(code: re.Match[str]) -> str:
    """Its options whole: a browser would begin a new line after their hyphens."""
    return OPTION.sub(r'<span class="whole">\g<0></span>', code[0])


def _filled(markdown: str) -> str:
    for name, make in MADE.items():
        if (mark := f"<!-- {name} -->") in markdown:
            markdown = markdown.replace(mark, make())
    return markdown


def on_serve(server: Any, **_: Any) -> Any:
    for watched in (ROOT / "notebooks", ROOT / "website", *map(ROOT.joinpath, links.PAGES)):
        server.watch(str(watched))
    return server
