"""Run the notebooks from top to bottom and write what they show into their .ipynb files.

    python notebooks/run.py                 all, at their normal settings
    python notebooks/run.py 1 4             these
    python notebooks/run.py 4 --runs /tmp/a     with the runs that are in /tmp/a/runs already

A notebook is the .py file (jupytext's percent format); its .ipynb is made of it here, never by
hand.
"""

import argparse
import base64
import io
import sys
import tempfile
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from PIL import Image

NOTEBOOKS = sorted(Path(__file__).parent.glob("[0-9]_*.py"))
NORMAL, QUICK = "quick = False", "quick = True"


def read(path: Path, quick: bool = False) -> NotebookNode:
    """A notebook without outputs. quick: with its switch turned."""
    notebook = jupytext.read(path)
    switches = [cell for cell in notebook.cells if NORMAL in cell.source]
    assert len(switches) == 1, f"{path}: one cell must say '{NORMAL}'"
    if quick:
        switches[0].source = switches[0].source.replace(NORMAL, QUICK)
    for i, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{i}"  # else a random one, and a change in every line of history
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


def execute(notebook: NotebookNode, folder: Path) -> None:
    """Run all cells, in `folder`; what they show is then in the notebook.

    Raises nbclient's CellExecutionError where a cell fails.
    """
    client = NotebookClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        coalesce_streams=True,
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [_small(output) for output in cell.outputs if not _is_progress(output)]


def _is_progress(output: NotebookNode) -> bool:
    return bool(output.get("name") == "stderr")


def _small(output: NotebookNode) -> NotebookNode:
    """Its picture in 256 colours, where it has one; no text that only names the picture."""
    data = output.get("data", {})
    if "image/png" in data:
        image = Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).convert("RGB")
        written = io.BytesIO()
        image.quantize(256, dither=Image.Dither.NONE).save(written, "png", optimize=True)
        data["image/png"] = base64.b64encode(written.getvalue()).decode()
        for other in ("image/jpeg", "text/plain"):
            data.pop(other, None)
    return output


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("steps", nargs="*", help="1 to 5; none = all")
    parser.add_argument("--runs", type=Path, help="folder whose runs/ are kept and gone on with")
    chosen = parser.parse_args()
    there = {path.name[0] for path in NOTEBOOKS}
    if unknown := sorted({*chosen.steps} - there):
        parser.error(f"there is no step {unknown[0]}; take some of {', '.join(sorted(there))}")
    if chosen.runs and not chosen.runs.is_dir():
        parser.error(f"--runs {chosen.runs}: no such folder; make it, or leave it out")
    for path in NOTEBOOKS:
        if chosen.steps and path.name[0] not in chosen.steps:
            continue
        notebook, began = read(path), time.perf_counter()
        with tempfile.TemporaryDirectory() as fresh:
            try:
                execute(notebook, chosen.runs or Path(fresh))
            except CellExecutionError as error:  # it says which cell, and what that said
                sys.exit(f"{path.name}: {error}")
        nbformat.write(notebook, path.with_suffix(".ipynb"))
        print(f"{path.name}: {(time.perf_counter() - began) / 60:.1f} minutes", flush=True)


if __name__ == "__main__":
    main()
