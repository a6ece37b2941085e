import json
import threading
from pathlib import Path

import pytest
import torch

from flowbrush import checkpoint
from flowbrush.errors import UserError
from flowbrush.processes import Processes
from flowbrush.train.saving import Saving

CPU = Processes(torch.device("cpu"))


def saved(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("[0-9]*"))


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Nothing is written until it is set."""
    may, write = threading.Event(), checkpoint.write
    monkeypatch.setattr(checkpoint, "write", lambda *given: write(*given) if may.wait(60) else None)
    return may


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path: Path, held) -> None:
    weight = torch.zeros(3)
    with Saving(tmp_path, 2, CPU) as saving:
        saving.begin(8, {"model": {"weight": weight}, "progress": {"pictures": 8}})
        weight += 1
        if saving.is_written():
            saving.end()
        assert saved(tmp_path) == []
        held.set()
    assert saved(tmp_path) == ["000000000008"]
    found = checkpoint.newest(tmp_path, print)
    assert checkpoint.load(found, "model")["weight"].tolist() == [0, 0, 0]


def test_a_written_checkpoint_is_one_after_the_next_step(tmp_path: Path) -> None:
    with Saving(tmp_path, 2, CPU) as saving:
        saving.begin(8, {"progress": {"pictures": 8}})
        while not saved(tmp_path):
            if saving.is_written():
                saving.end()
        assert json.loads((tmp_path / "000000000008" / "progress.json").read_text())


def test_a_second_checkpoint_waits_for_the_first(tmp_path: Path) -> None:
    with Saving(tmp_path, None, CPU) as saving:
        for pictures in (8, 16, 24):
            saving.begin(pictures, {"progress": {"pictures": pictures}})
    assert saved(tmp_path) == ["000000000008", "000000000016", "000000000024"]


@pytest.mark.parametrize("method", ["step", "end", "begin"])
def test_a_full_disk_is_told_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    def full(path: Path, *_: object) -> None:
        raise OSError(28, "No space left on device")

    saving = Saving(tmp_path, 2, CPU)
    monkeypatch.setattr(checkpoint, "sync", full)
    saving.begin(8, {"progress": {"pictures": 8}})
    with pytest.raises(UserError, match="no space left on the disk"):
        while method == "step":
            if saving.is_written():
                saving.end()
        saving.end() if method == "end" else saving.begin(16, {})
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_gives_up_still_has_the_checkpoint_that_was_being_written(
    tmp_path: Path,
) -> None:
    with pytest.raises(UserError, match="enough"), Saving(tmp_path, 2, CPU) as saving:
        saving.begin(8, {"progress": {"pictures": 8}})
        raise UserError("enough")
    assert saved(tmp_path) == ["000000000008"]
