"""The documentation site is built without a warning, asks for nothing from elsewhere, and shows
notebooks as they are."""

import base64
import html
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from docs.pages import ROOT

PICTURE = base64.b64encode(b"\x89PNG, as far as the page is concerned").decode()


@pytest.fixture
def made_by(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of website/ by its name."""
    monkeypatch.syspath_prepend(ROOT / "website")

    def module(name: str) -> ModuleType:
        return importlib.import_module(name)

    return module


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--quiet",
        "--site-dir",
        str(to),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return to


def test_the_site_fetches_nothing(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        fetched = r"<(?:script|link|img|iframe)[^>]+(?:src|href)=\"?(?:https?:)?//"
        assert not re.search(fetched, page.read_text("utf-8")), page
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(?:https?:)?//|@import", style.read_text("utf-8")), style


def test_every_recipe_and_every_choice_is_on_the_site(site: Path) -> None:
    recipes, choices = (
        (site / page).read_text("utf-8") for page in ("recipes.html", "reference/choices.html")
    )
    for name in ("emoji", "jit-b16-text", "sit-xl2"):
        assert f'id="{name}"' in recipes
    for option in ("--train.caption_dropout", "--flow.times.mean", "--backbone.context_start"):
        assert option in choices
    flow = re.sub(r"<[^>]+>", "", (site / "reference/flow.html").read_text("utf-8"))
    assert "The straight path from noise (t = 0) to data (t = 1)" in flow
    assert 'Float[Tensor, " b"]' in html.unescape(flow)


def notebook(*cells: dict[str, Any]) -> str:
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


def code(source: str, outputs: list[dict[str, Any]], **metadata: Any) -> dict[str, Any]:
    return {"cell_type": "code", "source": source, "outputs": outputs, "metadata": metadata}


def test_a_notebook_becomes_a_page(made_by: Any, tmp_path: Path) -> None:
    shown = [
        {"output_type": "stream", "name": "stdout", "text": ["one\n", "```\n"]},
        {"output_type": "display_data", "data": {"image/png": PICTURE, "text/plain": "<Figure>"}},
        {"output_type": "execute_result", "data": {"text/plain": "\x1b[1m2\x1b[0m"}},
    ]
    path = tmp_path / "notebooks" / "1_first.ipynb"
    path.parent.mkdir()
    path.write_text(
        notebook(
            {"cell_type": "markdown", "source": ["# First\n", "\n", "About 5 minutes."]},
            code("print('one')", shown, tags=["cover"]),
            {
                "cell_type": "markdown",
                "source": "<details><summary>Answer</summary>\n\nb\n\n</details>",
            },
            code("another", shown[1:2]),
        )
    )
    notebooks = made_by("notebooks")
    page = notebooks.read(path)
    picture = b"\x89PNG, as far as the page is concerned"
    assert page.pictures == {"figure-1.png": picture, "figure-2.png": picture}
    assert "``` { .python }\nprint('one')\n```" in page.markdown
    assert "```` { .text .output .no-copy }\none\n```\n````" in page.markdown
    assert "\n2\n```" in page.markdown
    assert "<Figure>" not in page.markdown
    assert '<details markdown="1">' in page.markdown
    overview = notebooks.overview(tmp_path)
    assert "[First](learning-path/1_first.md)" in overview
    assert "About 5 minutes." in overview
    assert "learning-path/1_first/figure-1.png" in overview
    assert notebooks.overview(tmp_path / "elsewhere") == ""


def test_links_lead_from_a_notebook_to_pages(made_by: Any, tmp_path: Path) -> None:
    for file in (
        "notebooks/1_a.ipynb",
        "flowbrush/flow/path.py",
        "docs/cluster.md",
        "benchmarks/RESULTS.md",
    ):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text('"""Path."""\n')
    links = made_by("links")
    text = (
        "[a](1_a.ipynb#x) [b](2_b.ipynb#y) [p](../flowbrush/flow/path.py) [f](../flowbrush/flow/) "
        "[c](../docs/cluster.md) [r](../benchmarks/RESULTS.md) [w](https://a.b) `[k](k.py)`"
    )
    assert links.rewritten(text, "learning-path/1_a.md", tmp_path) == (
        "[a](1_a.md#x) b [p](../source/flowbrush/flow/path.py.md) "
        "[f](../source/flowbrush/flow/index.md) [c](../cluster.md) [r](../project/results.md) "
        "[w](https://a.b) `[k](k.py)`"
    )
    wanted = links.sources(text, "learning-path/1_a.md", tmp_path)
    assert wanted == {"flowbrush/flow/path.py", "flowbrush/flow"}
    pages = links.source_pages(wanted, tmp_path)
    assert "[`path.py`](path.py.md) | Path. |" in pages["source/flowbrush/flow/index.md"]
    assert '"""Path."""' in pages["source/flowbrush/flow/path.py.md"]


def test_formulas_become_mathml_and_what_has_none_is_told(made_by: Any) -> None:
    formulas = made_by("formulas")
    page = r'<p><span class="arithmatex">\(x_t &lt; 1\)</span></p>'
    assert formulas.as_mathml(page, "a.md").startswith("<p><math")
    block = r'<div class="arithmatex">\[\mathbb{E}\left\| v \right\|^2\]</div>'
    assert 'display="block"' in formulas.as_mathml(block, "a.md")
    with pytest.raises(Exception, match=r"a\.md.*\\nosuch"):
        formulas.as_mathml(r'<span class="arithmatex">\(\nosuch x\)</span>', "a.md")
    assert formulas.as_mathml("<code>$$ x $$</code>", "a.md") == "<code>$$ x $$</code>"
    with pytest.raises(Exception, match=r"a\.md: a formula was not seen"):
        formulas.as_mathml("<p>$$a</p><ul><li>b$$</li></ul>", "a.md")


@pytest.mark.parametrize(
    ("written", "made"),
    [
        ("You learn:\n- a\n  - b\n- c", "You learn:\n\n- a\n    - b\n- c\n"),
        ("Text\n| a |\n|---|", "Text\n\n| a |\n|---|\n"),
        ("```\na\n- b\n```", "```\na\n- b\n```\n"),
        ("Text\n$$\nx\n$$\nmore $$y$$", "Text\n\n$$\nx\n$$\n\nmore $$y$$\n"),
        ("- a\n  goes on\n\n  and on\n\nout", "- a\n    goes on\n\n    and on\n\nout\n"),
    ],
)
def test_lists_and_tables_are_read_as_on_code_hosting_sites(
    made_by: Any, written: str, made: str
) -> None:
    assert made_by("commonmark").loosened(written) == made
