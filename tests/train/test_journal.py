"""What a journal's lines say of time and of work."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from flowbrush.experiment import ExperimentConfig
from flowbrush.plan.flops import Work
from flowbrush.spaces.pixel import PixelSpace
from flowbrush.train import journal as room
from flowbrush.train.journal import Journal


class Clock:
    """Tells the time that it was set to."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


class Shown(NamedTuple):
    """What a journal looks at of a batch."""

    pictures: torch.Tensor


def batches(clock: Clock, *sides: int) -> Iterator[Any]:
    """One of each side of its pictures, for which one waits a second."""
    for side in sides:
        clock.now += 1.0
        yield Shown(torch.empty(2, 3, side, side))


def lines_of(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(room, "time", clock)
    return clock


ONE, NONE, B = torch.tensor(1.0), torch.tensor(0.0), ExperimentConfig().batch.size


def test_waiting_and_work_are_shares_of_the_time_since_the_last_line(
    tmp_path: Path, clock: Clock
) -> None:
    work = Work(flops=10**9, peak=1e12, told="of the peak")
    with Journal(tmp_path, ExperimentConfig(), 0, work=work) as journal:
        for seen, _ in enumerate(journal.timed(batches(clock, 8, 8, 8)), start=1):
            clock.now += 3.0
            journal.add(ONE, ONE, NONE)
            journal.write(seen * B, 1e-3)
    lines = lines_of(tmp_path)
    assert [line.get("waiting") for line in lines] == [None, 0.25, 0.25]
    rate = B / 4.0
    assert lines[1]["tflops"] == pytest.approx(rate * 1e9 / 1e12)
    assert lines[1]["mfu"] == pytest.approx(rate * 1e9 / 1e12, abs=1e-4)


def test_the_speed_is_that_of_training_alone(tmp_path: Path, clock: Clock) -> None:
    """A preview, an evaluation, a checkpoint in between: their time is reported beside it."""
    with Journal(tmp_path, ExperimentConfig(), 0) as journal:
        for seen, _ in enumerate(journal.timed(batches(clock, 8, 8, 8, 8)), start=1):
            clock.now += 3.0
            journal.add(ONE, ONE, NONE)
            if seen in (1, 3):
                journal.write(seen * B, 1e-3)
                bar = journal._bar.last_print_t
                with journal.beside():
                    clock.now += 36.0
                assert journal._bar.last_print_t == bar + 36.0
        journal.write(4 * B, 1e-3)
    _first, second, third = lines_of(tmp_path)
    assert second["pictures_per_second"] == third["pictures_per_second"] == B / 4.0
    assert second["overhead"] == round(36 / (36 + 2 * 4), 4)
    assert third["overhead"] == 0.9


def test_a_first_step_of_a_shape_is_no_part_of_the_speed(tmp_path: Path, clock: Clock) -> None:
    """It compiles."""
    with Journal(tmp_path, ExperimentConfig(), 0) as journal:
        for batch in journal.timed(batches(clock, 8, 8, 16, 8, 16)):
            new = clock.now == 1.0 or (batch.pictures.shape[2] == 16 and clock.now < 80)
            clock.now += 59.0 if new else 3.0
            journal.add(ONE, ONE, NONE)
        journal.write(5 * B, 1e-3)
    (line,) = lines_of(tmp_path)
    assert line["pictures_per_second"] == B / 4.0
    assert line["overhead"] == round(120 / 132, 4)


def test_a_preview_that_is_not_finite_is_said_and_training_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Journal(tmp_path, ExperimentConfig(), 0) as journal:
        with journal.beside():
            PixelSpace().decode(torch.full((1, 3, 2, 2), torch.nan))
        journal.add(ONE, ONE, NONE)
    assert "nan or infinity" in capsys.readouterr().out


def test_without_a_known_peak_there_is_no_share_of_it(tmp_path: Path) -> None:
    for work in (None, Work(flops=10, peak=None, told="not known")):
        with Journal(tmp_path, ExperimentConfig(), 0, work=work) as journal:
            journal.add(torch.tensor(1.0), torch.tensor(1.0), torch.tensor(0.0))
            journal.write(64, 1e-3)
        line = json.loads((tmp_path / "journal.jsonl").read_text().splitlines()[-1])
        assert "mfu" not in line
        assert ("tflops" in line) == (work is not None)
