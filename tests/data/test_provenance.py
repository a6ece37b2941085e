"""What a checkpoint says of where its pictures are from."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from test_tar_shards import png, sample
from test_tar_shards import write as write_tar
from tiny import tiny

from flowbrush import checkpoint
from flowbrush.data import (
    FolderConfig,
    MixtureConfig,
    ParquetConfig,
    ShapesWorldConfig,
    SourceConfig,
    TarShardsConfig,
    licences,
)
from flowbrush.data.mixture import ShareConfig
from flowbrush.data.provenance import MOST_CAUSES, commonest, provenance
from flowbrush.evaluate.origins import origins
from flowbrush.evaluate.report import write_report
from flowbrush.prepare.prepare import PrepareConfig, prepare
from flowbrush.processes import Processes
from flowbrush.train.loop import train


def told(config: SourceConfig) -> dict:
    found = provenance(config, config.build(4))
    assert json.loads(json.dumps(found)) == found, "plain values"
    return found


def folder(at: Path, caption: str = "a cat") -> FolderConfig:
    at.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 6)).save(at / "cat.png")
    (at / "cat.txt").write_text(caption)
    return FolderConfig(path=at)


def shards(at: Path, *fields: dict, **choices) -> TarShardsConfig:
    """A shard with a sample for each of the fields of a .json."""
    made = [part for i, one in enumerate(fields) for part in sample(str(i), **one)]
    write_tar(at / "a.tar", made)
    return TarShardsConfig(path=str(at / "a.tar"), cache=at / "cache", **choices)


def table(at: Path, rows: int = 4, group: int = 3, **columns: list) -> ParquetConfig:
    at.mkdir(parents=True, exist_ok=True)
    made = {"image": [png()] * rows, "text": ["x"] * rows, "n": list(range(rows)), **columns}
    pq.write_table(pa.table(made), at / "a.parquet", row_group_size=group)
    return ParquetConfig(path=at)


def test_a_source_is_told_as_it_is_configured(tmp_path):
    found = told(folder(tmp_path / "mine"))
    assert found["source"]["kind"] == "FolderConfig"
    assert found["source"]["path"] == str(tmp_path / "mine")
    assert (found["examples"], found["left_out"], found["licences"]) == (1, {}, {})


def test_a_drawn_world_is_known_by_its_config():
    one, same, other = (told(ShapesWorldConfig(scenes=n))["sha256"] for n in (5, 5, 6))
    assert one == same != other


@pytest.mark.parametrize("make", [folder, shards, table])
def test_the_hash_is_of_the_files_wherever_they_lie(tmp_path, make):
    def sha256(name: str, more: bool = False) -> str:
        if make is shards:
            return told(shards(tmp_path / name, *[{"n": 1}] * (2 + more)))["sha256"]
        if make is table:
            return told(table(tmp_path / name, 2 + more))["sha256"]
        return told(folder(tmp_path / name, "a cat" + "s" * more))["sha256"]

    assert sha256("one") == sha256("two") != sha256("three", more=True)


def test_the_hash_of_shards_is_of_what_is_in_them_too(tmp_path):
    one = shards(tmp_path / "one", {"n": 1}, {"n": 2})
    other = shards(tmp_path / "other", {"n": 1}, {"n": 3})
    assert (tmp_path / "one/a.tar").stat().st_size == (tmp_path / "other/a.tar").stat().st_size
    assert told(one)["sha256"] != told(other)["sha256"]


def test_what_filters_leave_out_is_told_by_cause(tmp_path):
    tars = shards(tmp_path, {"n": 1}, {"n": 2}, {"n": 3}, filters=("n >= 3",))
    write_tar(tmp_path / "a.tar", [*sample("a", n=1), *sample("b", n=3), ("c.png", png())])
    assert told(tars)["left_out"] == {"n >= 3": 1, "without a caption": 1}
    rows = replace(table(tmp_path / "rows"), filters=("n >= 1", "n < 3"))
    assert told(rows)["left_out"] == {"n >= 1": 1, "n < 3": 1}


@pytest.mark.parametrize("name", ["license", "licence", "LICENSE"])
def test_licences_are_counted_of_what_is_wanted(tmp_path, name):
    fields = [{name: "CC0", "n": 1}, {name: " CC  BY ", "n": 2}, {"n": 2}, {name: None, "n": 2}]
    tars = told(shards(tmp_path, *fields, filters=("n > 1",)))
    assert tars["licences"] == {"none told": 2, "CC BY": 1}
    columns = {name: ["CC0", " CC  BY ", None, ""]}
    rows = told(replace(table(tmp_path / "rows", **columns), filters=("n > 0",)))
    assert rows["licences"] == {"none told": 2, "CC BY": 1}
    assert tars["licences_of"] == rows["licences_of"] == 3


def test_of_a_long_table_the_first_licences_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(licences, "MOST_LOOKED_AT", 4)
    found = told(table(tmp_path, 20, group=3, license=["CC0"] * 20))
    assert (found["licences"], found["licences_of"], found["examples"]) == ({"CC0": 6}, 6, 20)


def test_licences_of_any_number_take_bounded_room(tmp_path):
    many = [{"license": f"mine alone, number {i}"} for i in range(300)]
    found = told(shards(tmp_path, *many))["licences"]
    assert len(found) <= MOST_CAUSES + 1 and sum(found.values()) == 300
    assert found["others"] == 300 - MOST_CAUSES + 1
    assert len(licences.licence("x" * 10_000)) == licences.LONGEST


def test_the_commonest_causes_come_first():
    assert list(commonest(["a", "b", "b"])) == ["b", "a"]


def test_each_part_of_a_mixture_is_told(tmp_path):
    parts = (ShapesWorldConfig(scenes=3), folder(tmp_path))
    mixture = MixtureConfig(parts=tuple(ShareConfig(share=2.0, source=part) for part in parts))
    found = told(mixture)
    assert found["examples"] == 4
    assert [part | {"share": 2.0} for part in map(told, parts)] == found["parts"]


def test_every_checkpoint_tells_and_the_report_shows_it(tmp_path):
    tars = shards(tmp_path / "data", *[{"license": "CC0"}] * 6, {"license": "CC BY"})
    with (tmp_path / "data" / "a.tar").open("r+b") as file:  # one is broken
        at = file.read().index(b"\x89PNG")
        file.seek(at)
        file.write(b"torn")
    parts = (ShareConfig(source=tars), ShareConfig(source=ShapesWorldConfig(scenes=90)))
    config = replace(tiny(), source=MixtureConfig(parts=parts))
    config = replace(config, train=replace(config.train, pictures=80))
    run = tmp_path / "run"
    assert train(config, run, Processes(torch.device("cpu"))) == 0
    for saved in (run / "checkpoints").iterdir():
        found = checkpoint.load(saved, "provenance")
        assert found["parts"][0]["licences"] == {"CC0": 6, "CC BY": 1}
        assert found["rejected"] == {"not a picture of a known kind": 1}
    page = write_report(run).read_text()
    assert "6 CC0, 1 CC BY (of 7)" in page and found["parts"][0]["sha256"][:16] in page


def test_what_was_prepared_tells_what_it_was_made_of(tmp_path):
    config = replace(tiny(), source=folder(tmp_path / "mine"))
    made = prepare(config, PrepareConfig(to=tmp_path / "ready", device="cpu")).manifest
    from flowbrush.data import PreparedConfig

    source = PreparedConfig(path=tmp_path / "ready")
    found = provenance(source, source.build(config.size))
    assert found["made_of"] == provenance(config.source, config.source.build(config.size))
    assert found["sha256"] == made.digest


def test_a_broken_account_costs_no_more_than_its_table(tmp_path):
    assert origins(tmp_path) == []
    broken = tmp_path / "checkpoints" / "000000000008" / "provenance.json"
    broken.parent.mkdir(parents=True)
    broken.write_text('{"source": 1')
    assert "cannot be read" in str(origins(tmp_path))
