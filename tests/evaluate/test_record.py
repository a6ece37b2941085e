"""What was measured is written down and read back as it was."""

import json
import math
from dataclasses import asdict

from flowbrush.evaluate.intervals import Measured
from flowbrush.evaluate.record import (
    RECORD_FILE,
    Evaluation,
    evaluation,
    record,
    recorded,
    table,
    versions,
)
from flowbrush.flow.sampling import SamplingConfig

KID = Measured("KID", 0.0123, 0.01, 0.015, 1000, "EfficientNet-Lite0", "lower", "none")
FID = Measured("FID", 3.5, math.nan, math.nan, 1000, "Inception 2015", "lower", "upwards")


def one(seen: int = 640) -> Evaluation:
    return evaluation(
        seen, "ema_0.9", SamplingConfig(), [FID, KID], validation=(0.5, 0.25),
        painted=100, seconds={"painting": 3.2},
    )  # fmt: skip


def test_what_was_recorded_is_read_back(tmp_path):
    record(tmp_path, one(640))
    record(tmp_path, one(1280))
    found = recorded(tmp_path)
    assert [e.pictures for e in found] == [640, 1280]
    assert found[0].measured[1] == KID
    assert math.isnan(found[0].measured[0].low)
    assert found[0].validation == (0.5, 0.25)
    assert found[0].sampling["steps"] == SamplingConfig().steps
    assert found[0].versions == versions()


def test_a_figure_is_found_by_its_name():
    assert one().value("KID") == 0.0123
    assert math.isnan(one().value("CMMD"))


def test_a_line_that_a_crash_cut_short_is_left_out(tmp_path):
    record(tmp_path, one())
    text = (tmp_path / RECORD_FILE).read_text()
    (tmp_path / RECORD_FILE).write_text(text + text[: len(text) // 2])
    assert len(recorded(tmp_path)) == 1
    record(tmp_path, one(1280))
    assert [found.pictures for found in recorded(tmp_path)] == [640, 1280]


def test_a_line_that_is_no_evaluation_is_left_out(tmp_path):
    record(tmp_path, one())
    with (tmp_path / RECORD_FILE).open("ab") as file:
        file.write(b'{}\nnull\n{"measured": [{}]}\n\xff\xfe\n')
    assert len(recorded(tmp_path)) == 1


def test_nothing_measured_is_no_line(tmp_path):
    assert recorded(tmp_path) == []


def test_the_table_puts_what_is_biased_last_and_says_so():
    lines = table({"scale": 2.5}, one())
    assert lines[0] == "ema_0.9 after 640 pictures: scale 2.5"
    assert lines[1].split()[:2] == ["KID", "0.0123"]
    assert lines[2].split()[:2] == ["FID", "3.5000,"]
    assert "biased upwards" in lines[3]
    assert lines[4] == "  a thousand pictures: painting 32 s"


def test_versions_name_the_software():
    assert {"flowbrush", "torch"} <= versions().keys()


def test_figures_recorded_before_notes_were_have_none(tmp_path):
    line = json.loads(json.dumps(asdict(KID)))
    del line["note"]
    one = {"pictures": 64, "weights": "ema", "sampling": {}, "measured": [line], "validation": []}
    (tmp_path / "evaluations.jsonl").write_text(json.dumps(one) + "\n")
    assert recorded(tmp_path)[0].measured == (KID,)
