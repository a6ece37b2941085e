"""Two actors of a Ray on this machine."""

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from tiny import tiny

from flowbrush.data import PreparedConfig, ShapesWorldConfig
from flowbrush.errors import UserError
from flowbrush.experiment import ExperimentConfig
from flowbrush.prepare.prepare import PrepareConfig, prepare
from flowbrush.text import T5Config

pytestmark = pytest.mark.xdist_group("ray")  # one Ray at a time


def into(folder: Path, **choices: object) -> PrepareConfig:
    return PrepareConfig(to=folder, **{"shard": 20, "batch": 4, "device": "cpu", **choices})


def digest(folder: Path) -> str:
    return PreparedConfig(path=folder).build(16).manifest.digest


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    """One Ray of two cores for all tests, stopped after them."""
    ray = pytest.importorskip("ray")
    local = {"_node_ip_address": "127.0.0.1", "include_dashboard": False}
    ray.init(num_cpus=2, logging_level="error", **local)
    yield
    ray.shutdown()


@pytest.mark.usefixtures("ray")
def test_actors_make_the_same_shards(tmp_path: Path) -> None:
    config = replace(tiny(), source=ShapesWorldConfig(scenes=50))
    prepare(config, into(tmp_path / "local"))
    done = prepare(config, into(tmp_path / "ray", engine="ray"))
    assert (done.pictures, done.manifest.complete) == (50, True)
    assert digest(tmp_path / "ray") == digest(tmp_path / "local")


@pytest.mark.usefixtures("ray")
def test_a_killed_actor_costs_its_shard_and_no_more(tmp_path: Path) -> None:
    config = replace(tiny(), source=ShapesWorldConfig(scenes=1600))
    killed = []

    def kill_one() -> None:
        while not list((tmp_path / "ray").glob("shard-*.json")):
            time.sleep(0.01)
        actors()[0].kill()
        killed.append(True)

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    done = prepare(config, into(tmp_path / "ray", engine="ray", shard=200))
    killer.join()
    prepare(config, into(tmp_path / "local", shard=200))
    assert killed and done.manifest.complete
    assert digest(tmp_path / "ray") == digest(tmp_path / "local")


def actors() -> list[psutil.Process]:
    """The processes that encode, of the Ray that this process began."""
    below = psutil.Process().children(recursive=True)
    return [process for process in below if "ray::Encoder" in " ".join(process.cmdline())]


@pytest.mark.usefixtures("ray")
def test_after_a_mistake_fewer_actors_than_asked_for_encode_everything(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="/nowhere is no folder"):
        prepare(nowhere(), into(tmp_path / "mistaken", engine="ray"))
    asked = into(tmp_path / "ray", engine="ray", workers=4, shard=40)
    assert prepare(tiny(), asked).pictures == 200


def nowhere() -> ExperimentConfig:
    """A recipe: its text model is missing."""
    return replace(tiny(), text=T5Config(model="/nowhere"))


def test_what_the_user_can_mend_is_said_in_one_line(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    command = [sys.executable, "-m", "flowbrush", "prepare", f"{__file__}:nowhere", "--shard", "20"]
    done = subprocess.run(
        [*command, "--to", str(tmp_path), "--engine", "ray"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert done.returncode == 2, done.stderr
    said = "flowbrush: text: /nowhere is no folder; give one, or a hub's name"
    assert said in re.split("[\r\n]+", done.stderr)


def test_a_missing_ray_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'flowbrush\[ray\]'"):
        prepare(tiny(), into(tmp_path, engine="ray"))
