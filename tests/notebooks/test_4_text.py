"""Notebook 4 also runs with CLIP and CIFAR-10, where their files lie beside it."""

from pathlib import Path

import pytest
from test_notebooks import NOTEBOOKS, run_module
from tiny_cifar import write_cifar

from flowbrush.text.tiny import tiny_clip


def test_it_runs_with_clip_and_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    write_cifar(tmp_path / "cifar-10")
    clip = tmp_path / "openai" / "clip-vit-large-patch14"
    tiny_clip(clip, clip)
    run = run_module()
    notebook = run.read(next(path for path in NOTEBOOKS if path.stem == "4_text"), quick=True)
    run.execute(notebook, tmp_path)
    said = "".join(o.get("text", "") for c in notebook.cells for o in c.get("outputs", []))
    assert "Pictures: the photos of CIFAR-10, which is in cifar-10." in said
    assert "Text: CLIP" in said and "ja: the right group" not in said
    assert (tmp_path / "runs" / "quick" / "learn-4-text-cifar-clip").is_dir()
