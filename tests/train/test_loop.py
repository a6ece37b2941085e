import hashlib
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny import tiny, tiny_dit

from flowbrush import checkpoint
from flowbrush.data import FolderConfig
from flowbrush.errors import UserError
from flowbrush.experiment import ExperimentConfig
from flowbrush.processes import Processes
from flowbrush.train import loop
from flowbrush.train.loop import train

CPU = Processes(torch.device("cpu"))
TINY = str(Path(__file__).parents[1] / "tiny.py")


def learned(run: Path) -> dict[str, str]:
    """A hash of each thing in the newest checkpoint: weights, optimizer, every average."""
    newest = checkpoint.newest(run / "checkpoints", print)
    hashes = {}
    for name in ("model", "optimizer", "ema_0.9", "ema_0.5", "progress"):
        state = checkpoint.load(newest, name)
        hashes[name] = hashlib.sha256(repr(_plain(state)).encode()).hexdigest()
    return hashes


def _plain(value: object) -> object:
    if isinstance(value, torch.Tensor):
        return value.numpy().tobytes()
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in sorted(value.items(), key=lambda kv: str(kv[0]))}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def until(config: ExperimentConfig, pictures: int) -> ExperimentConfig:
    return replace(config, train=replace(config.train, pictures=pictures, schedule="constant"))


def test_a_run_writes_its_config_journal_curve_previews_and_checkpoints(tmp_path: Path) -> None:
    assert train(tiny(), tmp_path / "run", CPU) == 0
    found = {str(p.relative_to(tmp_path / "run")) for p in (tmp_path / "run").rglob("*")}
    assert {"config.json", "journal.jsonl", "loss.png"} <= found
    assert {"previews/000000000080.png", "previews/000000000160.png"} <= found
    assert {"checkpoints/000000000120", "checkpoints/000000000160"} <= found
    assert "checkpoints/000000000080" not in found  # the last two are kept
    lines = (tmp_path / "run" / "journal.jsonl").read_text().splitlines()
    assert [json.loads(line)["pictures"] for line in lines][:2] == [16, 32]
    assert json.loads(lines[-1])["pictures"] == 160


def test_weights_that_are_not_finite_are_not_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowbrush.train.steps.learning_rate", lambda config, seen: math.inf)
    with pytest.raises(UserError, match="weights have become nan or infinity"):
        train(until(tiny(), 8), tmp_path, CPU)
    assert not list((tmp_path / "checkpoints").glob("*"))


def test_a_model_of_labels_learns_its_classes_from_the_source(tmp_path: Path) -> None:
    assert train(tiny_dit(), tmp_path, CPU) == 0
    assert json.loads((tmp_path / "config.json").read_text())["text"]["names"][3] == "3"


def test_stopping_and_going_on_gives_the_same_bits_as_never_stopping(tmp_path: Path) -> None:
    train(until(tiny(), 160), tmp_path / "whole", CPU)
    train(until(tiny(), 72), tmp_path / "parts", CPU)
    train(until(tiny(), 160), tmp_path / "parts", CPU, changeable=("train.pictures",))
    assert learned(tmp_path / "parts") == learned(tmp_path / "whole")


def test_dropout_inside_the_network_resumes_to_the_same_bits(tmp_path: Path) -> None:
    plain = replace(tiny(), backbone=replace(tiny().backbone, depth=4, dropout=0.5))
    config = replace(plain, watch=replace(tiny().watch, preview=24))
    train(until(config, 160), tmp_path / "whole", CPU)
    train(until(config, 72), tmp_path / "parts", CPU)
    train(until(config, 160), tmp_path / "parts", CPU, changeable=("train.pictures",))
    train(
        until(replace(plain, backbone=replace(plain.backbone, dropout=0.0)), 160),
        tmp_path / "none",
        CPU,
    )
    assert learned(tmp_path / "parts") == learned(tmp_path / "whole") != learned(tmp_path / "none")


def test_previews_do_not_change_what_is_learned(tmp_path: Path) -> None:
    dropping = replace(tiny(), backbone=replace(tiny().backbone, depth=4, dropout=0.5))
    often = replace(dropping, watch=replace(tiny().watch, preview=8))
    train(dropping, tmp_path / "seldom", CPU)
    train(often, tmp_path / "often", CPU)
    assert learned(tmp_path / "often") == learned(tmp_path / "seldom")


def test_accumulation_changes_the_weights_by_no_more_than_rounding(tmp_path: Path) -> None:
    for parts in (1, 4):
        config = replace(tiny(), train=replace(tiny().train, accumulate=parts))
        train(config, tmp_path / str(parts), CPU)
    one, four = (
        checkpoint.load(tmp_path / parts / "checkpoints" / "000000000160", "model")
        for parts in ("1", "4")
    )
    for name in one:
        torch.testing.assert_close(one[name], four[name], atol=2e-4, rtol=1e-3)


def test_a_run_killed_with_sigkill_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    assert _command(tmp_path / "whole").wait() == 0
    child = _command(tmp_path / "killed")
    while child.poll() is None and not (tmp_path / "killed" / "checkpoints").exists():
        time.sleep(0.02)
    time.sleep(random.uniform(0.0, 0.5))
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL, "the run was over before it could be killed"
    assert _command(tmp_path / "killed").wait() == 0
    assert learned(tmp_path / "killed") == learned(tmp_path / "whole")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_a_checkpoint_and_says_how_to_go_on(tmp_path: Path, number: int) -> None:
    child = _command(tmp_path / "run")
    while child.poll() is None and not (tmp_path / "run" / "journal.jsonl").exists():
        time.sleep(0.05)
    child.send_signal(number)
    said = child.communicate()[0].decode()
    assert child.returncode == 128 + number
    assert f"go on with: flowbrush train {tmp_path / 'run'}" in said
    seen = checkpoint.load(checkpoint.newest(tmp_path / "run" / "checkpoints", print), "progress")
    assert 0 < seen["pictures"] < 3_000


def _command(run: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "flowbrush", "train", f"{TINY}:longer", "--run", str(run)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def spoil(monkeypatch: pytest.MonkeyPatch, *calls: int) -> None:
    """The losses of those calls, from 0 on, are not finite; there are two in a step."""
    sound, made = loop.flow_loss, count()

    def spoilt(*args: object) -> torch.Tensor:
        return sound(*args) * (float("nan") if next(made) in calls else 1.0)

    monkeypatch.setattr(loop, "flow_loss", spoilt)


def test_a_step_that_is_not_finite_is_skipped_and_counted_and_leaves_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train(until(tiny(), 16), tmp_path / "before", CPU)
    spoil(monkeypatch, 5)
    train(until(tiny(), 24), tmp_path / "spoilt", CPU)
    assert learned(tmp_path / "spoilt")["model"] == learned(tmp_path / "before")["model"]
    assert learned(tmp_path / "spoilt")["optimizer"] == learned(tmp_path / "before")["optimizer"]
    assert "too long: 1\n" in capsys.readouterr().out
    train(until(tiny(), 48), tmp_path / "spoilt", CPU, changeable=("train.pictures",))
    assert learned(tmp_path / "spoilt")["model"] != learned(tmp_path / "before")["model"]
    assert "too long: 1\n" in capsys.readouterr().out, "the run remembers it"


def test_many_bad_steps_in_a_row_stop_the_run_at_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(until(tiny(), 80), tmp_path, CPU)
    spoil(monkeypatch, *range(6, 200))
    with pytest.raises(UserError, match=r"1[01] steps in a row were skipped"):
        train(until(tiny(), 400), tmp_path, CPU, changeable=("train.pictures",))
    newest = checkpoint.newest(tmp_path / "checkpoints", print)
    assert all(weight.isfinite().all() for weight in checkpoint.load(newest, "model").values())


def test_too_many_broken_pictures_stop_a_run_that_saves_first_and_goes_on_further(
    tmp_path: Path,
) -> None:
    """A resumed run gets past what it stopped at, and it never meets it first."""
    for i in range(60):
        file = tmp_path / f"data/{i}.png"
        file.parent.mkdir(exist_ok=True)
        if i % 3:
            Image.new("RGB", (16, 16), (i, 0, 0)).save(file)
        else:
            file.write_bytes(b"<html>")
        file.with_suffix(".txt").write_text(f"colour {i}")
    config = replace(tiny(), source=FolderConfig(path=tmp_path / "data"))
    learned = []
    for _ in range(2):
        with pytest.raises(UserError, match=r"broken, more than a tenth; .* saved"):
            train(config, tmp_path / "run", CPU)
        newest = checkpoint.newest(tmp_path / "run/checkpoints", print)
        learned.append(checkpoint.load(newest, "progress")["pictures"])
    assert 0 < learned[0] < learned[1]


def test_what_has_no_deterministic_algorithm_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = loop.flow_loss

    def in_any_order(*args: object) -> torch.Tensor:
        losses = sound(*args)
        losses.detach().clone().put_(torch.tensor([0]), torch.ones(1), accumulate=False)
        return losses

    monkeypatch.setattr(loop, "flow_loss", in_any_order)
    config = until(tiny(), 8)
    assert train(config, tmp_path / "any", CPU) == 0
    try:
        with pytest.raises(UserError, match=r"train\.deterministic: put_ .* leave the option out"):
            settings = replace(config.train, deterministic=True)
            train(replace(config, train=settings), tmp_path / "one", CPU)
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_finished_run_is_left_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    train(tiny(), tmp_path, CPU)
    before = learned(tmp_path)
    assert train(tiny(), tmp_path, CPU) == 0
    assert "already trained on 160 pictures" in capsys.readouterr().out
    assert learned(tmp_path) == before


def test_another_config_does_not_go_into_the_same_folder(tmp_path: Path) -> None:
    train(tiny(), tmp_path, CPU)
    other = replace(tiny(), train=replace(tiny().train, lr=0.5))
    with pytest.raises(UserError, match=r"train\.lr was 0\.001, is now 0\.5"):
        train(other, tmp_path, CPU)


def test_compile_with_bf16_on_a_cpu_is_refused(tmp_path: Path) -> None:
    compiled = replace(tiny().train, compile=True, precision="bf16")
    with pytest.raises(UserError, match=r"--train\.precision fp32"):
        train(replace(tiny(), train=compiled), tmp_path, CPU)


def test_bf16_gives_finite_gradients_for_every_weight(tmp_path: Path) -> None:
    config = replace(tiny(), train=replace(tiny().train, precision="bf16"))
    assert train(config, tmp_path, CPU) == 0
    state = checkpoint.load(checkpoint.newest(tmp_path / "checkpoints", print), "optimizer")
    assert all(bool(moment.isfinite().all()) for moment in state.values())
