"""Painted pictures are the same whoever painted them, and work that was stopped goes on."""

from dataclasses import replace

import pytest
import torch
from drawn import Draughtsman

from flowbrush.evaluate.asked import asked
from flowbrush.evaluate.painting import PART, Job, Painted, paint
from flowbrush.flow.sampling import SamplingConfig
from flowbrush.processes import Processes

CPU = torch.device("cpu")
ONE = Processes(CPU)


@pytest.fixture
def job() -> Job:
    from drawn import SOURCE

    return Job(asked(SOURCE, 0).captions, SamplingConfig(), "ema_0.9", 640)


def nothing(_: int) -> None:
    pass


def whole(painted: Painted) -> torch.Tensor:
    return torch.cat([*painted])


def test_every_caption_has_its_picture_and_its_seed(job, tmp_path):
    counted = []
    painted = paint(Draughtsman(wrong=7), job, tmp_path, ONE, 64, counted.append)
    expected = Draughtsman(wrong=7).generate(job.captions)
    assert torch.equal(whole(painted), expected)
    assert sum(counted) == len(painted) == len(job.captions)


def test_two_processes_paint_what_one_does(job, tmp_path, monkeypatch):
    monkeypatch.setattr(Processes, "wait", lambda _: None)
    one = paint(Draughtsman(wrong=7), job, tmp_path / "one", ONE, 64, nothing)
    painters = [Draughtsman(wrong=7), Draughtsman(wrong=7)]
    for rank, painter in enumerate(painters):
        two = paint(painter, job, tmp_path / "two", Processes(CPU, rank, 2), 64, nothing)
    assert torch.equal(whole(one), whole(two))
    assert [sum(painter.batches) for painter in painters] == [PART, len(job.captions) - PART]


def test_what_is_painted_is_not_painted_again(job, tmp_path):
    paint(Draughtsman(), job, tmp_path, ONE, 64, nothing)
    painter = Draughtsman()
    paint(painter, job, tmp_path, ONE, 64, nothing)
    assert painter.batches == []


@pytest.mark.parametrize("damage", ["missing", "cut short"])
def test_a_part_that_is_missing_or_broken_is_painted_again(job, tmp_path, damage):
    before = whole(paint(Draughtsman(), job, tmp_path, ONE, 64, nothing))
    part = next(job.folder(tmp_path).glob("part-00001*"))
    if damage == "missing":
        part.unlink()
    else:
        part.write_bytes(part.read_bytes()[:-100])
    painter = Draughtsman()
    assert torch.equal(whole(paint(painter, job, tmp_path, ONE, 64, nothing)), before)
    assert painter.batches == [len(job.captions) - PART]


def test_nothing_half_written_is_left(job, tmp_path):
    paint(Draughtsman(), job, tmp_path, ONE, 64, nothing)
    names = {path.name for path in job.folder(tmp_path).iterdir()}
    assert names == {"job.json", "part-00000.safetensors", "part-00001.safetensors"}


def test_every_choice_has_a_folder_of_its_own(job, tmp_path):
    others = [
        replace(job, captions=(*job.captions[:-1], "something else")),
        replace(job, sampling=SamplingConfig(scale=3.0)),
        replace(job, weights="model"),
        replace(job, seen=1280),
        replace(job, seed=1),
    ]
    folders = {one.folder(tmp_path) for one in (job, *others)}
    assert len(folders) == 6
    assert job.folder(tmp_path) == replace(job).folder(tmp_path)
