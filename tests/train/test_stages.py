"""Stages: one run, its pictures larger and larger, and the same bits wherever it was cut off."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_loop import CPU, learned
from tiny import tiny

from flowbrush import checkpoint
from flowbrush.backbones import JiTConfig
from flowbrush.cli import main
from flowbrush.data import FolderConfig
from flowbrush.data.buckets import BucketsConfig
from flowbrush.errors import UserError
from flowbrush.experiment import EvaluateConfig, ExperimentConfig
from flowbrush.prepare.prepare import PrepareConfig, prepare
from flowbrush.text_to_image import TextToImage
from flowbrush.train import loop
from flowbrush.train.loop import train


def staged(**choices) -> ExperimentConfig:
    """Of 8 pixels until 64 pictures, of 24 until 90 (96 in batches of 8), then of 16."""
    return replace(tiny(), stages=((64, 8), (90, 24)), **choices)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never cut off, with the checkpoint of every other step."""
    run = tmp_path_factory.mktemp("staged") / "whole"
    train(often_saved(staged()), run, CPU)
    return run


def often_saved(config: ExperimentConfig) -> ExperimentConfig:
    return replace(config, watch=replace(config.watch, checkpoint=16, keep=99, preview=999))


def cut_off(whole: Path, run: Path, seen: int) -> Path:
    """The run as a kill after so many pictures leaves it."""
    shutil.copytree(whole, run)
    for found in (run / "checkpoints").iterdir():
        if int(found.name) > seen:
            shutil.rmtree(found)
    return run


@contextmanager
def shapes_learned(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, ...]]]:
    """Of the data of each part of a batch, as the loss meets them."""
    found, plain = list[tuple[int, ...]](), loop.flow_loss

    def watched(field, data, *others):
        found.append(tuple(data.shape[2:]))
        return plain(field, data, *others)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "flow_loss", watched)
        yield found


# -- which stage there is


def test_the_stage_is_a_function_of_the_pictures_seen():
    config = staged()
    assert [config.stage(seen) for seen in (0, 63, 64, 89, 90, 10**9)] == [0, 0, 1, 1, 2, 2]
    assert [stage.size for stage in config.each_stage] == [8, 24, 16]
    assert [stage.stages for stage in config.each_stage] == [(), (), ()]


def test_what_was_learned_last_is_of_the_stage_of_the_last_step():
    config = staged()
    found = [config.learned(seen).size for seen in (0, 8, 64, 72, 96, 104, 160)]
    assert found == [8, 8, 8, 24, 24, 16, 16]
    assert tiny().learned(80) == tiny()


# -- training


@pytest.mark.parametrize("seen", [32, 64, 80, 96, 128])
def test_a_run_that_was_cut_off_anywhere_goes_on_to_the_same_bits(whole, tmp_path, seen):
    run = cut_off(whole, tmp_path / "cut", seen)
    assert int(checkpoint.newest(run / "checkpoints", print).name) == seen
    train(often_saved(staged()), run, CPU)
    assert learned(run) == learned(whole)


def test_each_stage_learns_pictures_of_its_size(tmp_path, monkeypatch, capsys):
    with shapes_learned(monkeypatch) as found:
        train(staged(), tmp_path / "run", CPU)
    sizes = [found[i][0] for i in range(0, len(found), 2)]  # two parts a step
    assert sizes == [8] * 8 + [24] * 4 + [16] * 8
    said = capsys.readouterr().out
    assert "0: stage 1 of 3, 8 pixels" in said
    assert "64: stage 2 of 3, 24 pixels" in said
    assert "96: stage 3 of 3, 16 pixels" in said


def test_a_stage_that_never_comes_changes_nothing(tmp_path):
    train(tiny(), tmp_path / "plain", CPU)
    train(replace(tiny(), size=32, stages=((160, 16),)), tmp_path / "staged", CPU)
    assert learned(tmp_path / "staged") == learned(tmp_path / "plain")


def test_previews_and_measuring_have_the_size_of_their_stage(tmp_path, monkeypatch):
    painted, plain = list[tuple[int, int]](), TextToImage.generate

    def watched(self, prompts, *others, **more):
        pictures = plain(self, prompts, *others, **more)
        painted.append((len(pictures), pictures.shape[2]))
        return pictures

    monkeypatch.setattr(TextToImage, "generate", watched)
    evaluate = EvaluateConfig(every=80, validation=8, painted=4)
    config = staged(held_out=0.2, evaluate=evaluate)
    config = replace(config, watch=replace(config.watch, preview=40))
    assert train(config, tmp_path, CPU) == 0
    assert [size for n, size in painted if n == 2] == [8, 24, 16, 16]  # after 40, 80, 120, 160
    assert [size for n, size in painted if n > 2] == [24, 16]


# -- painting


def test_a_run_in_its_first_stage_paints_at_that_size_and_says_so(whole, tmp_path, capsys):
    run, out = cut_off(whole, tmp_path / "run", 64), tmp_path / "painted.png"
    assert TextToImage.load(run).generate(["a circle"]).shape[2:] == (8, 8)
    assert TextToImage.load(whole).generate(["a circle"]).shape[2:] == (16, 16)
    capsys.readouterr()
    assert main(["sample", str(run), "a circle", "--out", str(out)]) == 0
    assert "not yet in its last stage; painted at 8 pixels, not 16" in capsys.readouterr().out
    assert main(["evaluate", str(run), "--limit", "4", "--validation", "8"]) == 0


# -- what is refused


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        (((64, 0),), "size: 0 pixels"),
        (((0, 8),), "each must end after another"),
        (((64, 8), (64, 24)), r"they end after \[64, 64\] pictures"),
    ],
)
def test_what_is_no_stage_is_refused(stages, said):
    with pytest.raises(UserError, match=said):
        replace(tiny(), stages=stages)


def refusal(config: ExperimentConfig, run: Path) -> str:
    with pytest.raises(UserError) as refused:
        train(config, run, CPU)
    assert not run.exists()
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_size_that_the_patch_does_not_divide_is_refused_at_the_start(tmp_path):
    said = refusal(replace(tiny(), stages=((64, 12),)), tmp_path / "run")
    assert said.startswith("stages: 12 does not fit (backbone: patch 8 does not divide")


def test_weights_that_depend_on_the_size_are_refused_at_the_start(tmp_path, monkeypatch):
    def build(self, shapes):
        return torch.nn.Linear(shapes.height, 1)

    monkeypatch.setattr(JiTConfig, "build", build)
    said = refusal(replace(tiny(), stages=((64, 8),)), tmp_path / "run")
    assert said == "stages: 16 pixels make other weights of JiT; leave it out"


def test_preparing_for_stages_or_buckets_is_refused(tmp_path):
    for config in (staged(), replace(tiny(), buckets=BucketsConfig(step=8))):
        with pytest.raises(UserError, match="encoded in one shape; leave out stages and buckets"):
            prepare(config, PrepareConfig(to=tmp_path / "prepared"))


# -- with buckets


def pictures(root: Path) -> FolderConfig:
    root.mkdir()
    sizes = [(20, 40), (40, 20), (30, 30), (1, 90)]
    for i in range(40):
        picture = np.full((*sizes[i % 4], 3), 6 * i, np.uint8)
        Image.fromarray(picture).save(root / f"{i:02d}.png")
        (root / f"{i:02d}.txt").write_text(f"a picture of {i % 5}")
    return FolderConfig(path=root)


def in_buckets(root: Path) -> ExperimentConfig:
    """8 x 8, and later 16 x 16, 24 x 8 and 8 x 24."""
    config = replace(tiny(), source=pictures(root), buckets=BucketsConfig(step=8, most=3.0))
    return often_saved(replace(config, stages=((64, 8),)))


def test_no_shape_but_those_declared_reaches_the_model(tmp_path, monkeypatch, capsys):
    config = in_buckets(tmp_path / "pictures")
    with shapes_learned(monkeypatch) as found:
        train(config, tmp_path / "run", CPU)
    assert set(found) == {(8, 8), (24, 8), (16, 16), (8, 24)}
    assert set(config.shapes) == {(24, 8), (16, 16), (8, 24)}
    said = capsys.readouterr().out
    assert "3 shapes of pictures: 24 x 8 (10), 16 x 16 (10), 8 x 24 (20); looked at in" in said


def test_in_buckets_a_run_that_was_cut_off_goes_on_to_the_same_bits(tmp_path):
    config = in_buckets(tmp_path / "pictures")
    train(config, tmp_path / "whole", CPU)
    for seen in (48, 64, 112):
        run = cut_off(tmp_path / "whole", tmp_path / f"cut {seen}", seen)
        train(config, run, CPU)
        assert learned(run) == learned(tmp_path / "whole")


def test_a_run_paints_in_each_shape_that_it_declares_and_in_no_other(tmp_path, capsys):
    config = in_buckets(tmp_path / "pictures")
    train(config, tmp_path / "run", CPU)
    painter = TextToImage.load(tmp_path / "run")
    for shape in config.shapes:
        assert painter.generate(["a", "b"], shape=shape).shape == (2, 3, *shape)
    with pytest.raises(UserError, match="shape: 8 x 16; this run has learned 24 x 8, 16 x 16, 8 x"):
        painter.generate(["a"], shape=(8, 16))
    paint = ["sample", str(tmp_path / "run"), "a", "--separate", "--out", str(tmp_path / "a.png")]
    assert main([*paint, "--shape", "24", "8"]) == 0
    assert Image.open(tmp_path / "a-0.png").size == (8, 24)
    assert main([*paint, "--shape", "16", "24"]) == 2
    assert "shape: 16 x 24; this run has learned" in capsys.readouterr().err


def test_a_step_that_the_patch_does_not_divide_is_refused_at_the_start(tmp_path):
    config = replace(tiny(), source=pictures(tmp_path / "p"), buckets=BucketsConfig(step=4))
    assert refusal(config, tmp_path / "run").startswith("buckets.step: 4 does not fit (backbone:")


def test_a_source_of_squares_is_refused(tmp_path):
    said = refusal(replace(tiny(), buckets=BucketsConfig(step=8)), tmp_path / "run")
    assert said == "buckets.step: ShapesWorld has square pictures alone; leave it at 0"
