"""Two actors of a Ray on this machine."""

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
from flowbrush.prepare.prepare import PrepareConfig, prepare


def into(folder: Path, **choices: object) -> PrepareConfig:
    return PrepareConfig(to=folder, **{"shard": 20, "batch": 4, "device": "cpu", **choices})


def digest(folder: Path) -> str:
    return PreparedConfig(path=folder).build(16).manifest.digest


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    """One Ray for all tests, stopped after them."""
    ray = pytest.importorskip("ray")
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

    killer = threading.Thread(target=kill_one)
    killer.start()
    done = prepare(config, into(tmp_path / "ray", engine="ray", shard=200))
    killer.join()
    prepare(config, into(tmp_path / "local", shard=200))
    assert killed and done.manifest.complete
    assert digest(tmp_path / "ray") == digest(tmp_path / "local")


def actors() -> list[psutil.Process]:
    """The processes that encode, of the Ray that this process began."""
    below = psutil.Process().children(recursive=True)
    return [process for process in below if "ray::MapWorker" in " ".join(process.cmdline())]


@pytest.mark.usefixtures("ray")
def test_what_the_user_can_mend_is_said_in_one_line(tmp_path: Path) -> None:
    from flowbrush.text import T5Config

    config = replace(tiny(), text=T5Config(model=str(tmp_path / "nowhere")))
    with pytest.raises(UserError, match="nowhere") as caught:
        prepare(config, into(tmp_path / "ray", engine="ray"))
    assert "\n" not in str(caught.value)


def test_a_missing_ray_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'flowbrush\[ray\]'"):
        prepare(tiny(), into(tmp_path, engine="ray"))
