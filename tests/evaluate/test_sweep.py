"""Every way of painting is measured, each once, and the table of them is kept."""

import json
from pathlib import Path

import pytest
import torch
from drawn import SOURCE, Draughtsman

from flowbrush.errors import UserError
from flowbrush.evaluate.asked import asked
from flowbrush.evaluate.record import recorded
from flowbrush.evaluate.sweep import SHEET_FILE, SWEEP_FILE, Measuring, SweepConfig, sweep
from flowbrush.flow.sampling import SamplingConfig
from flowbrush.processes import Processes

CPU = torch.device("cpu")
MEASURING = Measuring(asked(SOURCE, 20, ("en",)), (), 64, 0, lambda _: None)


def swept(config: SweepConfig, run: Path, rank: int = 0):
    loaded = []

    def load(weights: str) -> Draughtsman:
        loaded.append(weights)
        painter = Draughtsman(wrong=2 if weights == "model" else 0)
        painter.weights = weights
        return painter

    ways = config.ways("ema", SamplingConfig())
    processes = Processes(CPU, rank, 1)
    found = sweep(load, run, config.axes, ways, MEASURING, processes, lambda _: None)
    return found, loaded


def test_without_axes_there_is_one_way_the_runs_own(tmp_path):
    found, loaded = swept(SweepConfig(), tmp_path)
    assert loaded == ["ema"]
    assert [way.choices for way, _ in found] == [{}]
    assert found[0][1].value("followed, English") == 1.0
    assert (tmp_path / SHEET_FILE).exists()
    assert not (tmp_path / SWEEP_FILE).exists(), "nothing was varied"


def test_every_choice_is_measured_with_every_other(tmp_path):
    config = SweepConfig(weights=("ema", "model"), scale=(1.0, 2.0), steps=(4, 8))
    found, loaded = swept(config, tmp_path)
    assert loaded == ["ema", "model"], "the weights of a kind are loaded once"
    assert len(found) == 8
    assert {(w.sampling.scale, w.sampling.steps) for w, _ in found} == {
        (scale, steps) for scale in (1.0, 2.0) for steps in (4, 8)
    }
    for way, one in found:
        assert one.value("followed, English") == (0.5 if way.weights == "model" else 1.0)
    assert len(recorded(tmp_path)) == 8


def test_the_table_of_a_sweep_is_kept(tmp_path):
    swept(SweepConfig(scale=(1.0, 2.0)), tmp_path)
    kept = json.loads((tmp_path / SWEEP_FILE).read_text())
    assert kept["axes"] == {"scale": [1.0, 2.0]}
    assert [row["choices"] for row in kept["rows"]] == [{"scale": 1.0}, {"scale": 2.0}]
    assert kept["rows"][0]["measured"][0]["name"] == "single object, English"


def test_another_process_paints_and_does_not_measure(tmp_path):
    found, _ = swept(SweepConfig(), tmp_path, rank=1)
    assert found == []
    assert recorded(tmp_path) == []


def test_a_way_that_there_is_not_is_refused_before_anything_is_painted():
    with pytest.raises(UserError, match="steps 0"):
        SweepConfig(steps=(8, 0)).ways("ema", SamplingConfig())
