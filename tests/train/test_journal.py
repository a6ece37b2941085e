"""What a journal's lines say of time and of work."""

import json
from pathlib import Path

import pytest
import torch

from flowbrush.experiment import ExperimentConfig
from flowbrush.plan.flops import Work
from flowbrush.train import journal as room
from flowbrush.train.journal import Journal


class Clock:
    """Tells the time that it was set to."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


def test_waiting_and_work_are_shares_of_the_time_since_the_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, b = Clock(), ExperimentConfig().batch.size
    monkeypatch.setattr(room, "time", clock)

    def batches():  # type: ignore[no-untyped-def]
        for _ in range(2):
            clock.now += 1.0
            yield object()

    work = Work(flops=10**9, peak=1e12, told="of the peak")
    with Journal(tmp_path, ExperimentConfig(), 0, work=work) as journal:
        for seen, _ in enumerate(journal.timed(batches()), start=1):
            clock.now += 3.0
            journal.add(torch.tensor(1.0), torch.tensor(1.0), torch.tensor(0.0))
            journal.write(seen * b, 1e-3)
    lines = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    assert [line["waiting"] for line in lines] == [0.25, 0.25]
    rate = b / 4.0
    assert lines[0]["tflops"] == pytest.approx(rate * 1e9 / 1e12)
    assert lines[0]["mfu"] == pytest.approx(rate * 1e9 / 1e12, abs=1e-4)


def test_without_a_known_peak_there_is_no_share_of_it(tmp_path: Path) -> None:
    for work in (None, Work(flops=10, peak=None, told="not known")):
        with Journal(tmp_path, ExperimentConfig(), 0, work=work) as journal:
            journal.add(torch.tensor(1.0), torch.tensor(1.0), torch.tensor(0.0))
            journal.write(64, 1e-3)
        line = json.loads((tmp_path / "journal.jsonl").read_text().splitlines()[-1])
        assert "mfu" not in line
        assert ("tflops" in line) == (work is not None)
