"""The notebooks of the learning path run from top to bottom, and are what they say they are."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import nbformat
import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("[0-9]_*.py"))
NAMES = [path.stem for path in NOTEBOOKS]
MOST_BYTES = 1_500_000  # of a notebook with its outputs: a code-hosting site still shows it


def run_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("notebooks_run", FOLDER / "run.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_it_runs_from_top_to_bottom(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    run = run_module()
    notebook = run.read(path, quick=True)
    run.execute(notebook, tmp_path)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_what_is_committed_was_made_of_the_text(path: Path) -> None:
    text = run_module().read(path)
    shown = nbformat.read(path.with_suffix(".ipynb"), as_version=4)
    assert [c.source for c in shown.cells] == [c.source for c in text.cells]
    assert any(c.get("outputs") for c in shown.cells)
    assert " at 0x" not in str(shown), "an object was shown instead of a result"
    assert path.with_suffix(".ipynb").stat().st_size < MOST_BYTES


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["1", "9"], "there is no step 9; take some of 1, 2, 3, 4, 5"),
        (["1", "--runs", "nowhere"], "--runs nowhere: no such folder; make it, or leave it out"),
    ],
)
def test_a_mistake_is_told_before_anything_runs(
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["run.py", *words])
    with pytest.raises(SystemExit, match="2"):
        run_module().main()
    assert capsys.readouterr().err.endswith(f"error: {said}\n")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_its_links_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text("utf-8"))
    assert links, "a notebook leads on to the package"
    missing = [link for link in links if "://" not in link and not (FOLDER / link).exists()]
    assert missing == []
