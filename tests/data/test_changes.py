"""What is said of a data set that has changed since a checkpoint, and what is then held out."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny import tiny

from flowbrush.data import FolderConfig, MixtureConfig, ShapesWorldConfig
from flowbrush.data.changes import WRITTEN_AGAIN, Change, changed
from flowbrush.data.mixture import ShareConfig
from flowbrush.data.provenance import provenance
from flowbrush.errors import UserError
from flowbrush.experiment import load_config
from flowbrush.processes import Processes
from flowbrush.train.loop import train

NAMES = [f"n{i:02}" for i in range(24)]


def folder(at: Path) -> FolderConfig:
    """Images of one size in bytes, each with a caption of one length."""
    at.mkdir()
    for i, name in enumerate(NAMES):
        Image.new("RGB", (6, 6), (i, 0, 0)).save(at / f"{name}.bmp")
        (at / f"{name}.txt").write_text(f"red {i:02}")
    return FolderConfig(path=at)


def renamed_within_the_order(at: Path) -> None:
    for ending in ("bmp", "txt"):
        (at / f"n05.{ending}").rename(at / f"n05b.{ending}")


def renamed_to_the_end(at: Path) -> None:
    for ending in ("bmp", "txt"):
        (at / f"n05.{ending}").rename(at / f"z.{ending}")


def exchanged(at: Path) -> None:
    (at / "n05.bmp").rename(at / "x")
    (at / "n06.bmp").rename(at / "n05.bmp")
    (at / "x").rename(at / "n06.bmp")


def captioned_anew(at: Path) -> None:
    (at / "n05.txt").write_text("RED 05")


def captioned_at_length(at: Path) -> None:
    (at / "n05.txt").write_text("a red of strength 5")


def painted_anew(at: Path) -> None:
    Image.new("RGB", (6, 6), (0, 9, 0)).save(at / "n05.bmp")


def made_larger(at: Path) -> None:
    Image.new("RGB", (9, 9), (0, 9, 0)).save(at / "n05.bmp")


def grown_at_its_end(at: Path) -> None:
    shutil.copy(at / "n05.bmp", at / "z.bmp")
    (at / "z.txt").write_text("one more")


def grown_at_its_start(at: Path) -> None:
    shutil.copy(at / "n05.bmp", at / "a.bmp")
    (at / "a.txt").write_text("one more")


def shrunk(at: Path) -> None:
    (at / "n05.bmp").unlink()
    (at / "n05.txt").unlink()


CHANGES = [
    (renamed_within_the_order, "files were renamed, their order is as before", False),
    (renamed_to_the_end, "files were renamed or replaced: in another order", True),
    (exchanged, WRITTEN_AGAIN, False),
    (captioned_anew, "captions were edited", False),
    (captioned_at_length, "captions were edited", False),
    (painted_anew, WRITTEN_AGAIN, False),
    (made_larger, "images were replaced or edited", False),
    (grown_at_its_end, "1 examples more, at its end: in another order", False),
    (grown_at_its_start, "1 examples more: in another order", True),
    (shrunk, "1 examples fewer: in another order", True),
]


def between(config: FolderConfig | MixtureConfig, change: Callable[[], object]) -> Change | None:
    before = provenance(config, config.build(4))
    change()
    source = config.build(4)
    return changed(before, provenance(config, source), source)


@pytest.mark.parametrize(("change", "told", "moved"), CHANGES)
def test_a_change_is_told_by_its_kind(tmp_path, change, told, moved):
    config = folder(tmp_path / "data")
    assert between(config, lambda: change(config.path)) == Change(told, moved)


def test_a_folder_that_moved_elsewhere_has_not_changed(tmp_path):
    config = folder(tmp_path / "data")
    before = provenance(config, config.build(4))
    there = replace(config, path=config.path.rename(tmp_path / "elsewhere"))
    source = there.build(4)
    assert changed(before, provenance(there, source), source) is None


def test_a_change_is_told_of_the_part_of_a_mixture_that_it_is_in(tmp_path):
    config = folder(tmp_path / "data")
    parts = (ShareConfig(source=ShapesWorldConfig(scenes=4)), ShareConfig(source=config))
    found = between(MixtureConfig(parts=parts), lambda: renamed_to_the_end(config.path))
    assert found == Change("part 2: files were renamed or replaced: in another order", True)


def test_what_an_older_version_did_not_write_down_is_no_change(tmp_path):
    config = folder(tmp_path / "data")
    source = config.build(4)
    now = provenance(config, source)
    hashes = ("names_sha256", "captions_sha256", "stamps_sha256")
    before = {name: value for name, value in now.items() if name not in hashes}
    assert changed(before, now, source) is None
    captioned_at_length(config.path)
    later = provenance(config, config.build(4))
    assert changed(before, later, source) == Change(
        "files were renamed, replaced or edited since", None
    )


# -- while training


def learned(
    at: Path, pictures: int, share: float = 0.25, run: str | Path = "run", **more: bool
) -> int:
    """data: in `at`, as the run is unless it has a path of its own."""
    config = tiny()
    config = replace(
        config,
        source=FolderConfig(path=at / "data"),
        held_out=share,
        train=replace(config.train, pictures=pictures, schedule="constant"),
    )
    return train(config, at / run, Processes(torch.device("cpu")), ("train.pictures",), **more)


def test_a_run_refuses_to_hold_out_what_it_has_learned(tmp_path, capsys):
    folder(tmp_path / "data")
    learned(tmp_path, 16)
    renamed_to_the_end(tmp_path / "data")
    with pytest.raises(UserError, match="other images would be held out"):
        learned(tmp_path, 24)
    learned(tmp_path, 24, changed_data=True)
    assert "the validation loss is of images of which some were learned" in capsys.readouterr().out
    learned(tmp_path, 32)  # the last checkpoint knows the new list
    assert "source: " not in capsys.readouterr().out


def test_a_run_says_what_changed_and_goes_on_where_nothing_moved(tmp_path, capsys):
    folder(tmp_path / "data")
    learned(tmp_path, 16)
    captioned_anew(tmp_path / "data")
    learned(tmp_path, 24)
    assert "source: captions were edited\n" in capsys.readouterr().out


BYTES = os.fsdecode(b"caf\xe9")


def test_names_that_are_not_utf8_are_learned_from_and_the_run_resumes(tmp_path):
    at, run = tmp_path / BYTES, tmp_path / "run"
    at.mkdir()
    folder(at / "data")
    for ending in ("bmp", "txt"):
        (at / f"data/n03.{ending}").rename(at / f"data/{BYTES}.{ending}")
    (at / f"data/{BYTES}.bmp").write_bytes(b"no image")
    learned(at, 40, 0.0, run)
    assert json.loads((run / "rejected.jsonl").read_text())["picture"].endswith("caf\\xe9.bmp")
    assert learned(at, 48, 0.0, run) == 0
    assert load_config(run).source.path == at / "data"


def test_a_run_whose_own_name_is_not_utf8_is_refused_in_a_line_that_can_be_printed(tmp_path):
    folder(tmp_path / "data")
    with pytest.raises(UserError, match="not UTF-8; choose another folder with --run") as refused:
        learned(tmp_path, 8, run=BYTES)
    assert str(refused.value).encode() and not (tmp_path / BYTES).exists()
