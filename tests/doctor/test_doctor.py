"""What a doctor finds in broken things, and that it leaves whole ones alone."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flowbrush.cli import main
from flowbrush.data.source import Example
from flowbrush.doctor import dataset, machine
from flowbrush.doctor.sample import Latents, Sample, chosen, likeness
from flowbrush.experiment import ExperimentConfig
from flowbrush.recipes import recipe
from flowbrush.shapes import ConditionShapes, Shapes


def folder_config(path: Path) -> ExperimentConfig:
    found = recipe("folder")
    assert isinstance(found, ExperimentConfig)
    return replace(found, source=replace(found.source, path=path), size=32)  # type: ignore[arg-type]


def write(folder: Path, name: str, side: int, caption: str, seed: int) -> None:
    picture = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(picture).save(folder / f"{name}.png")
    (folder / f"{name}.txt").write_text(caption, "utf-8")


class Partly:
    """Every other example has a Japanese caption too."""

    classes, attribution = (), ""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, i: int) -> Example:
        captions = {"en": f"a {i}", "ja": f"{i}個"} if i % 2 else {"en": f"a {i}"}
        return Example(np.full((8, 8, 3), i, np.uint8), captions)


def states(config: ExperimentConfig) -> dict[str, str]:
    """What was said, and how it was judged."""
    source, sample = config.source.build(config.size), Sample()
    for i in range(len(source)):
        sample.add(source, i)
    return {one.what: one.state for one in dataset.findings(config, source, sample)}


def said(found: dict[str, str], words: str) -> str:
    """The state of the one finding with those words."""
    states = [state for what, state in found.items() if words in what]
    assert len(states) == 1, list(found)
    return states[0]


def test_whole_data_are_well(tmp_path: Path) -> None:
    for i in range(20):
        write(tmp_path, f"{i}", 40, f"picture {i}", i)
    assert set(states(folder_config(tmp_path)).values()) == {"ok"}


def test_broken_small_and_repeated_pictures_are_found(tmp_path: Path) -> None:
    for i in range(4):
        write(tmp_path, f"small-{i}", 16, "the same", i)
        write(tmp_path, f"again-{i}", 16, "the same", i)
    (tmp_path / "small-0.png").write_bytes(b"no picture")
    found = states(folder_config(tmp_path))
    assert said(found, "1 of 8 pictures cannot be read") == "wrong"
    assert said(found, "3 of 7 pictures are the same as another one") == "look at"
    assert said(found, "7 of 7 files have fewer than 32 pixels") == "look at"
    assert said(found, "captions repeat another one") == "look at"


def test_an_image_that_pillow_has_no_word_for_is_one_that_cannot_be_read(tmp_path: Path) -> None:
    for i in range(20):
        write(tmp_path, f"{i}", 40, f"picture {i}", i)
    png = (tmp_path / "0.png").read_bytes()
    (tmp_path / "0.png").write_bytes(png[:33] + b"\0\0\0\2tRNS\0\0\0\0\0\0" + png[33:])
    found = states(folder_config(tmp_path))
    assert said(found, "1 of 20 pictures cannot be read") == "look at"
    assert said(found, "0 of 19 files have fewer than 32 pixels") == "ok"


def test_captions_are_told_by_length_and_writing(tmp_path: Path) -> None:
    for i, caption in enumerate(("a fox", "赤い丸と青い星", "лиса", "x" * 2_100)):
        write(tmp_path, str(i), 40, caption, i)
    found = states(folder_config(tmp_path))
    assert said(found, "captions 'caption': 4 to 7 characters") == "ok"
    assert said(found, "Latin 33%, Japanese 33%, Cyrillic 33%") == "ok"
    assert said(found, "1 of 4 pictures cannot be read (3.png: a caption of 2,100 char") == "wrong"


def test_a_damaged_header_is_one_finding(tmp_path: Path) -> None:
    """Pillow raises nearly anything for one: here a ValueError."""
    for i in range(21):
        write(tmp_path, f"{i}", 40, f"picture {i}", i)
    data = bytearray((tmp_path / "3.png").read_bytes())
    data[8:12] = (1).to_bytes(4, "big")  # the header's length
    (tmp_path / "3.png").write_bytes(data)
    assert said(states(folder_config(tmp_path)), "1 of 21 pictures cannot be read") == "look at"


def test_examples_without_a_caption_that_is_asked_for_are_one_finding() -> None:
    source, sample = Partly(), Sample(kinds=("ja",))
    for i in range(len(source)):
        sample.add(source, i)
    assert (len(sample.broken), len(sample.incomplete), len(sample.captions["ja"])) == (0, 5, 5)
    lines = [one.line() for one in dataset.findings(ExperimentConfig(), source, sample)]
    assert any(line.startswith("look at") and "5 of 10 examples lack" in line for line in lines)


def test_kinds_that_are_not_there_and_captions_that_are_no_classes_are_wrong() -> None:
    config = recipe("mnist")
    assert isinstance(config, ExperimentConfig)
    source = config.source.build(config.size)
    sample = Sample(size=1, captions={"en": ["three"]})
    asked = replace(config, batch=replace(config.batch, captions=(("ja", 1.0),)))
    lines = [one.line() for one in dataset.findings(asked, source, sample)]
    assert any(line.startswith("wrong") and "no ja" in line for line in lines)
    lines = [one.line() for one in dataset.findings(config, source, sample)]
    assert any(line.startswith("wrong") and "'three'" in line for line in lines)


def test_latents_are_summed_by_channel_without_what_is_not_finite() -> None:
    latents, numbers = Latents(2), np.random.default_rng(0).normal(3, 2, (100, 10, 10, 2))
    for picture in numbers.astype(np.float16):
        latents.add(picture)
    assert latents.mean == pytest.approx(numbers.mean((0, 1, 2)), abs=1e-2)
    assert latents.std == pytest.approx(numbers.std((0, 1, 2)), abs=1e-2)
    before = latents.mean
    latents.add(np.array([[[np.inf, 0], [np.nan, 0]]], np.float16))
    assert latents.not_finite == 2
    assert np.array_equal(latents.mean, before)


def test_a_picture_is_like_itself_scaled_and_unlike_another() -> None:
    smooth = np.kron(np.random.default_rng(0).integers(0, 256, (8, 9)), np.ones((8, 8)))
    picture = np.repeat(smooth[:, :64, None], 3, axis=2).astype(np.uint8)
    half = np.asarray(Image.fromarray(picture).resize((32, 32), Image.Resampling.BOX))
    assert (likeness(picture) ^ likeness(half)).bit_count() <= 4
    assert (likeness(picture) ^ likeness(picture[::-1].copy())).bit_count() > 10


def test_a_sample_is_the_same_for_a_seed_and_no_larger_than_asked() -> None:
    assert chosen(10, 0, 0) == chosen(10, 20, 0) == range(10)
    assert chosen(10**9, 50, 0) == chosen(10**9, 50, 0) != chosen(10**9, 50, 1)
    assert len(set(chosen(10**9, 50, 0))) == 50


def test_a_disk_that_is_too_small_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = recipe("mnist")
    assert isinstance(config, ExperimentConfig)
    shapes = Shapes(channels=3, height=28, width=28, condition=ConditionShapes(labels=10))
    assert machine.disk(config, shapes, tmp_path / "runs").state == "ok"
    usage = Counter({"free": 1_000})
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda place: _Usage(usage["free"]))
    found = machine.disk(config, shapes, tmp_path / "runs")
    assert found.state == "wrong"
    assert "free some" in found.mend


class _Usage:
    def __init__(self, free: int) -> None:
        self.free = free


def test_the_command_ends_with_2_where_something_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "matmul_rate", lambda device, dtype: 1e12)
    assert main(["doctor"]) == 0
    assert f"torch {torch.__version__}" in capsys.readouterr().out
    assert main(["doctor", "folder", "--source.path", str(tmp_path / "none")]) == 2
    assert "wrong    " in capsys.readouterr().out
    for i in range(3):
        write(tmp_path, str(i), 64, f"picture {i}", i)
    assert main(["doctor", "folder", "--source.path", str(tmp_path)]) == 0
    assert "3 examples" in capsys.readouterr().out
