from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch

from flowbrush import TextToImage
from flowbrush.errors import UserError
from flowbrush.experiment import ExperimentConfig
from flowbrush.learn import session
from flowbrush.learn.drawing import grid
from flowbrush.learn.session import begin, shortened, trained


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ExperimentConfig:
    monkeypatch.chdir(tmp_path)
    return tiny.tiny()


def test_what_is_trained_paints_and_costs_nothing_the_second_time(
    config: ExperimentConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(config, quick=True)
    assert run == Path("runs/quick/tiny")
    assert TextToImage.load(run).generate(["a red circle"]).shape == (1, 3, 16, 16)
    capsys.readouterr()
    assert trained(config, quick=True) == run
    assert "already trained" in capsys.readouterr().out


def test_quick_is_a_few_steps_in_a_folder_of_its_own(config: ExperimentConfig) -> None:
    short = shortened(config)
    assert isinstance(short, ExperimentConfig)
    assert short.train.pictures == 3 * config.batch.size
    assert short.sampling.steps == 2
    assert short.backbone == config.backbone


def test_other_choices_under_the_same_name_are_refused(config: ExperimentConfig) -> None:
    trained(config, quick=True)
    with pytest.raises(UserError, match=r"train\.lr was .*; name this one: replace\(config, name="):
        trained(replace(config, train=replace(config.train, lr=5e-4)), quick=True)


def test_training_that_is_stopped_stops_the_notebook_and_says_so(
    config: ExperimentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "train", lambda *_: 130)
    with pytest.raises(KeyboardInterrupt, match="run the cell again"):
        trained(config)


def test_a_notebook_says_what_it_runs_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    begin()
    assert capsys.readouterr().out.startswith("No GPU here, and none is needed: running on ")


def test_a_mistake_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = {}

    class Shell:
        def set_custom_exc(self, kinds: tuple[type, ...], handler: object) -> None:
            told.update(dict.fromkeys(kinds, handler))

    monkeypatch.setattr(session, "_shell", Shell)
    begin()
    capsys.readouterr()
    told[UserError](Shell(), UserError, UserError("source: nothing there"), None, tb_offset=None)
    assert capsys.readouterr().out == "source: nothing there\n"


def test_a_grid_has_its_pictures_in_rows_and_white_where_there_are_none() -> None:
    pictures = torch.zeros(3, 3, 4, 4, dtype=torch.uint8)
    sheet = grid(pictures, columns=2, enlarged=3)
    assert sheet.size == (2 * 6 * 3, 2 * 6 * 3)
    assert sheet.getpixel((5, 5)) == (0, 0, 0)
    assert sheet.getpixel((18 + 9, 18 + 9)) == (255, 255, 255)
