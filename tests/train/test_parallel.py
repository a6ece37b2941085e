"""One run by two processes. Run by torchrun, this file trains what the tests compare."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from tiny import tiny
from torch import nn

from flowbrush import TextToImage, checkpoint
from flowbrush.blocks import recompute_blocks
from flowbrush.cli import main
from flowbrush.errors import FirstError
from flowbrush.evaluate.record import Evaluation, recorded
from flowbrush.experiment import EvaluateConfig, ExperimentConfig
from flowbrush.processes import Processes, joined_processes
from flowbrush.train.loop import train
from flowbrush.train.parallel import MeanGradients

pytestmark = pytest.mark.xdist_group("parallel")  # the runs are made once
CPU, TESTS = Processes(torch.device("cpu")), Path(__file__).parents[1]
WHOLE, HALF = 400, 200
CHANGES = "train.pictures", "train.sharding", "train.recompute"
WAYS = "none", "full", "hybrid"  # of two processes
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
TRAIN = ["-m", "--", "flowbrush", "train", f"{TESTS / 'tiny.py'}:tiny"]
LOST = "flowbrush: another process of the run has ended"


def until(pictures: int, way: str = "none", parts: int = 1) -> ExperimentConfig:
    """A line of the journal for each step."""
    config = tiny()
    settings = replace(
        config.train,
        pictures=pictures,
        schedule="constant",
        accumulate=parts,
        sharding=way,
        recompute=way == "full",
        power_ema=(0.05, 0.1),
    )
    watch = replace(config.watch, log=8, checkpoint=HALF, preview=HALF, average=HALF)
    evaluate = EvaluateConfig(every=HALF, validation=8, painted=4)
    return replace(config, train=settings, watch=watch, evaluate=evaluate)


def by_two(folder: Path) -> None:
    with joined_processes("cpu") as processes:
        for way in WAYS:
            os.environ["LOCAL_WORLD_SIZE"] = "1" if way == "hybrid" else "2"
            for name, pictures in [
                ("two", WHOLE),
                ("two in parts", WHOLE),
                ("two and two", HALF),
                ("two and two", WHOLE),
                ("two and one", HALF),
                ("one and two", WHOLE),
            ]:
                config = until(pictures, way, parts=2 if name == "two in parts" else 1)
                train(config, folder / f"{name}, {way}", processes, CHANGES)
        odd = replace(until(WHOLE), batch=replace(tiny().batch, size=7))
        train(odd, folder / "odd", processes)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run by one process and by two, undisturbed and in two halves."""
    folder = tmp_path_factory.mktemp("runs")
    train(until(WHOLE), folder / "one", CPU)
    train(until(WHOLE, parts=2), folder / "one in parts", CPU)
    for way in WAYS:
        train(until(HALF), folder / f"one and two, {way}", CPU)
    command = [*TORCHRUN, __file__, str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment())
    (folder / "said").write_text(done.stdout)
    for way in WAYS:
        train(until(WHOLE), folder / f"two and one, {way}", CPU, CHANGES)
    return folder


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{TESTS}:{TESTS.parent}"}


def losses(run: Path) -> torch.Tensor:
    lines = (run / "journal.jsonl").read_text().splitlines()
    return torch.tensor([json.loads(line)["loss"] for line in lines])


def states(run: Path) -> dict[str, torch.Tensor]:
    """Weights, averages and the optimizer's moments of the newest checkpoint."""
    newest = checkpoint.newest(run / "checkpoints", print)
    found = {}
    for name in checkpoint.names(newest) - {"progress", "config", "provenance"}:
        found |= {f"{name} {key}": w for key, w in checkpoint.load(newest, name).items()}
    return found


def assert_equal(one: Path, other: Path, rounding: float) -> None:
    first, second = states(one), states(other)
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], atol=rounding, rtol=rounding)


OTHERS = ["one in parts", *(f"{name}, {way}" for name in ("two", "two in parts") for way in WAYS)]


@pytest.mark.parametrize("other", OTHERS)
def test_fifty_steps_have_the_same_losses_and_weights_however_they_are_shared(
    runs: Path, other: str
) -> None:
    assert len(losses(runs / "one")) == 50
    torch.testing.assert_close(losses(runs / "one"), losses(runs / other), atol=0, rtol=1e-5)
    assert_equal(runs / "one", runs / other, rounding=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_two_processes_go_on_to_the_same_bits(runs: Path, way: str) -> None:
    assert_equal(runs / f"two, {way}", runs / f"two and two, {way}", rounding=0)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("other", ["two and one", "one and two"])
def test_another_number_of_processes_goes_on_with_the_same_run(
    runs: Path, other: str, way: str
) -> None:
    other = f"{other}, {way}"
    torch.testing.assert_close(losses(runs / "one"), losses(runs / other), atol=0, rtol=1e-5)
    assert_equal(runs / "one", runs / other, rounding=1e-5)


@pytest.mark.parametrize("way", ["none", "hybrid"])  # hybrid: each machine, of one process, has all
def test_the_folder_of_two_processes_is_that_of_one(runs: Path, way: str) -> None:
    assert files(runs / f"two, {way}") == files(runs / "one")


def files(run: Path) -> set[str]:
    return {str(path.relative_to(run)) for path in run.rglob("*")}


def test_each_process_writes_its_rows_and_one_paints_from_all(runs: Path) -> None:
    run = runs / "two, full"
    parts = {f"{name}.part-{i}-of-2.safetensors" for name in ("model", "optimizer") for i in (1, 2)}
    assert parts <= {path.name for path in (run / "checkpoints" / "000000000400").iterdir()}
    painters = [TextToImage.load(folder, device="cpu") for folder in (run, runs / "one")]
    pictures = [painter.generate(["a large red circle"]).int() for painter in painters]
    assert (pictures[0] - pictures[1]).abs().max() <= 1
    previews = [folder / "previews" / "000000000200.png" for folder in (run, runs / "one")]
    shown = [np.asarray(Image.open(path)).astype(int) for path in previews]
    assert abs(shown[0] - shown[1]).max() <= 1


def test_what_is_measured_while_a_run_in_shards_goes_on_is_that_of_one_process(runs: Path) -> None:
    for one, other in zip(*map(evaluations, (runs / "one", runs / "two, full")), strict=True):
        assert one.pictures == other.pictures
        torch.testing.assert_close(one.validation, other.validation, atol=0, rtol=1e-4)


def evaluations(run: Path) -> list[Evaluation]:
    found = recorded(run)
    assert [one.pictures for one in found] == [HALF, WHOLE]
    return found


def test_a_signal_to_one_process_stops_all_after_the_same_step_and_saves(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with started(run) as child:
        wait_for(child, lambda: (run / "journal.jsonl").exists())
        process(child, rank=1).send_signal(signal.SIGTERM)
        said, report = child.communicate(timeout=300)
    assert child.returncode != 0 and re.search(r"exitcode +: 143", report)
    assert_stopped(run, said)
    assert "flowbrush:" not in report  # no error


def test_a_lost_process_ends_the_others_and_torchrun_goes_on_until_it_is_told_to_stop(
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    with started(run, restarts=1) as child:
        wait_for(child, lambda: done(run) > 0)
        process(child, rank=1).kill()
        before = done(run)
        wait_for(child, lambda: done(run) > before + 400)  # more than was being written
        child.send_signal(signal.SIGINT)
        said, report = child.communicate(timeout=300)
    assert child.returncode != 0
    assert report.count(LOST) == 1
    assert_stopped(run, said)


def assert_stopped(run: Path, said: str) -> None:
    assert 0 < done(run) < 100_000
    assert said.count(f"stopped after {done(run):,} pictures") == 1
    assert f"go on with: flowbrush train {run}" in said


def test_a_mistake_is_said_once(runs: Path, monkeypatch, capsys) -> None:
    said = (runs / "said").read_text()
    assert said.count("batch.size: 2 processes do not divide 7") == 1
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert main(["train", "no such recipe"]) == 2
    assert capsys.readouterr().err == ""


def test_a_single_process_shares_nothing() -> None:
    network = nn.Linear(2, 1)
    gradients = MeanGradients(network, CPU)
    with gradients.shared(last=True):
        network(torch.ones(1, 2)).sum().backward()
    assert network.weight.grad is not None and network.weight.grad.tolist() == [[1.0, 1.0]]


def test_computing_blocks_again_keeps_less_and_changes_no_bit() -> None:
    torch.manual_seed(0)
    pairs = [nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 8)) for _ in range(3)]
    network, given = nn.ModuleList(pairs), torch.randn(64, 8)
    kept, gradients = [0, 0], list[list[torch.Tensor]]()
    for again in (0, 1):
        if again:
            recompute_blocks(network)

        def keep(tensor: torch.Tensor, again: int = again) -> torch.Tensor:
            kept[again] += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            x = given
            for block in network:
                x = x + block(x)
        x.square().sum().backward()
        gradients.append([weight.grad.clone() for weight in network.parameters()])
        network.zero_grad()
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))
    assert 0 < kept[1] < kept[0] / 4


@contextmanager
def started(run: Path, restarts: int = 0) -> Iterator[subprocess.Popen[str]]:
    options = ["--run", str(run), "--train.pictures", "100000", "--watch.checkpoint", "400"]
    command = [*TORCHRUN, f"--max-restarts={restarts}", *TRAIN, *options]
    pipe = subprocess.PIPE
    child = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment())
    try:
        yield child
    finally:
        child.terminate()  # and with it the processes that it started
        child.communicate()


def done(run: Path) -> int:
    """Pictures of the newest finished checkpoint."""
    found = (run / "checkpoints").glob("[0-9]*")
    return max((int(path.name) for path in found), default=0)


def wait_for(child: subprocess.Popen[str], ready: Callable[[], bool]) -> None:
    while not ready():
        assert child.poll() is None, child.communicate()
        time.sleep(0.02)


def process(torchrun: subprocess.Popen[str], rank: int) -> psutil.Process:
    children = psutil.Process(torchrun.pid).children()
    return next(one for one in children if one.environ().get("RANK") == str(rank))


if __name__ == "__main__":
    try:
        by_two(Path(sys.argv[1]))
    except FirstError as error:
        print(error)
