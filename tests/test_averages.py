import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import tiny

from flowbrush import TextToImage, averages, checkpoint
from flowbrush.autoencoding import AutoencoderExperiment
from flowbrush.averages import Profile, exponent, fit, weighted_sum
from flowbrush.errors import UserError
from flowbrush.experiment import ExperimentConfig, TrainConfig
from flowbrush.processes import Processes
from flowbrush.train.loop import train

CPU = torch.device("cpu")
KEPT = [Profile(length, step) for step in range(10, 201, 10) for length in (0.05, 0.1)]


def weights_of(profile: Profile, steps: int) -> np.ndarray:
    """Of each step in the average, as its recursion gives them."""
    weights = np.zeros(steps)
    for step in range(1, profile.step + 1):
        decay = (1 - 1 / step) ** (exponent(profile.length) + 1)
        weights *= decay
        weights[step - 1] += 1 - decay
    return weights


@pytest.mark.parametrize("length", [0.01, 0.05, 0.1, 0.2, 0.28])
def test_the_profile_has_the_relative_length_as_its_standard_deviation(length: float) -> None:
    steps = 20_000
    weights, places = weights_of(Profile(length, steps), steps), np.arange(1, steps + 1) - 0.5
    mean = weights @ places
    assert weights.sum() == pytest.approx(1)
    assert np.sqrt(weights @ (places - mean) ** 2) / steps == pytest.approx(length, rel=1e-3)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 6.94, 16.97, 300.0])
def test_the_exponent_comes_back_from_its_relative_length(gamma: float) -> None:
    length = np.sqrt((gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3)))
    assert exponent(float(length)) == pytest.approx(gamma, rel=1e-9, abs=1e-6)


def test_a_profile_among_those_kept_is_met_by_itself_alone() -> None:
    found = fit(KEPT, Profile(0.1, 150))
    alone = [float(profile == Profile(0.1, 150)) for profile in KEPT]
    np.testing.assert_allclose(found.shares, alone, atol=1e-9)
    assert found.residual < 1e-6


@pytest.mark.parametrize("length", [0.03, 0.07, 0.15])
def test_the_residual_is_what_the_sum_misses_of_the_weights_of_the_steps(length: float) -> None:
    wanted = weights_of(Profile(length, 200), 200)
    found = fit(KEPT, Profile(length, 200))
    summed = sum(
        share * weights_of(kept, 200) for share, kept in zip(found.shares, KEPT, strict=True)
    )
    missed = np.linalg.norm(summed - wanted) / np.linalg.norm(wanted)
    assert found.shares.sum() == pytest.approx(1)
    # A step's weight is the mean of the profile over it, and means miss less than the profile.
    assert found.residual / 3 < missed < 1.01 * found.residual


def test_a_sum_holds_one_state_at_a_time() -> None:
    alive: list[int] = []

    def states():
        for value in (1.0, 2.0, 4.0):
            alive.append(1)
            yield 0.5, {"a": torch.full((3,), value, dtype=torch.float16)}
            alive.pop()
            assert not alive

    total = weighted_sum(states())
    assert total["a"].tolist() == [3.5] * 3
    assert total["a"].dtype == torch.float32


def keeping(*lengths: float, pictures: int = 160, every: int = 16) -> ExperimentConfig:
    config = tiny()
    return replace(
        config,
        train=replace(config.train, pictures=pictures, schedule="constant", power_ema=lengths),
        watch=replace(config.watch, average=every, preview=10**6),
    )


def go(config: ExperimentConfig, run: Path) -> Path:
    assert train(config, run, Processes(CPU), changeable=("train.pictures",)) == 0
    return run


def averaged(run: Path, name: str, said: list[str] | None = None) -> dict[str, torch.Tensor]:
    say = print if said is None else said.append
    return TextToImage.load(run, name, "cpu", say).denoiser.backbone.state_dict()


def apart(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The norm of the difference, relative."""
    first, second = (torch.cat([s[name].flatten() for name in one]) for s in (one, other))
    return ((first - second).norm() / second.norm()).item()


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_an_average_made_afterwards_is_the_one_kept_from_the_start(tmp_path: Path) -> None:
    run, said = go(keeping(0.05, 0.075, 0.1, pictures=800, every=40), tmp_path), list[str]()
    direct, near = averaged(run, "power_0.075"), averaged(run, "power_0.05")
    found = checkpoint.newest(run / "checkpoints", print)
    two = {name: checkpoint.load(found, name) for name in ("power_0.05", "power_0.1")}
    found, config = checkpoint.save(tmp_path / "two", 800, two, keep=1), keeping(0.05, 0.1)
    made = averages.load(run, found, "power_0.075", config, CPU, said.append)
    assert apart(made, direct) < 1e-4 < 1e-3 < apart(near, direct)
    assert apart(averages.load(run, found, "power_0.050", config, CPU, said.append), near) == 0
    assert said == []
    averages.load(run, found, "power_0.01", config, CPU, said.append)
    assert len(said) == 1
    assert "power_0.01 misses" in said[0]


def test_stopping_and_going_on_writes_the_same_averages_and_snapshots(tmp_path: Path) -> None:
    whole = go(keeping(0.05, 0.1), tmp_path / "whole")
    go(keeping(0.05, 0.1, pictures=72), tmp_path / "parts")
    parts = go(keeping(0.05, 0.1), tmp_path / "parts")
    assert files(parts / "averages") == files(whole / "averages")
    assert {"000000000016/power_0.05.safetensors", "000000000160/power_0.1.safetensors"} <= {
        *files(whole / "averages")
    }
    newest = Path("checkpoints") / "000000000160"
    assert files(parts / newest) == files(whole / newest)


def test_snapshots_after_the_checkpoint_have_no_say_and_are_written_anew(tmp_path: Path) -> None:
    run = go(keeping(0.05, 0.1), tmp_path / "run")
    before = files(run / "averages")
    shutil.rmtree(run / "checkpoints" / "000000000160")
    shorter = go(keeping(0.05, 0.1, pictures=120), tmp_path / "shorter")
    assert apart(averaged(run, "power_0.08"), averaged(shorter, "power_0.08")) == 0
    (run / "averages" / "000000000128" / "manifest.json").unlink()
    go(keeping(0.05, 0.1), run)
    assert files(run / "averages") == before


def test_a_damaged_snapshot_is_told_and_left_out(tmp_path: Path) -> None:
    run, said = go(keeping(0.05, 0.1), tmp_path), list[str]()
    (run / "averages" / "000000000080" / "power_0.1.safetensors").write_bytes(b"spoilt")
    averaged(run, "power_0.075", said)
    assert "000000000080: damaged (power_0.1.safetensors" in said[0]


def test_no_average_is_kept_unless_asked_for(tmp_path: Path) -> None:
    run = go(keeping(), tmp_path)
    assert not (run / "averages").exists()
    newest = checkpoint.newest(run / "checkpoints", print)
    assert not any(name.startswith(averages.POWER) for name in checkpoint.names(newest))
    with pytest.raises(UserError, match=r"keeps no power averages.*--train\.power_ema 0\.05 0\.10"):
        averaged(run, "power_0.075")


def test_of_one_length_no_other_is_made(tmp_path: Path) -> None:
    run = go(keeping(0.05, pictures=40), tmp_path)
    averaged(run, "power_0.05")
    with pytest.raises(
        UserError, match=r"keeps power_0\.05 alone, and power_0\.075 is made of two"
    ):
        averaged(run, "power_0.075")


@pytest.mark.parametrize("name", ["power_", "power_x", "power_0", "power_-0.1", "power_0.29"])
def test_what_is_no_relative_length_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"above 0 and below 0\.2887, as in power_0\.075"):
        averages.load(tmp_path, tmp_path / "0", name, tiny(), CPU, print)


@pytest.mark.parametrize(
    ("lengths", "told"),
    [((0.0, 0.1), "below 0.2887"), ((0.05, 0.3), "below 0.2887"), ((0.1, 0.10), "twice")],
)
def test_lengths_that_cannot_be_kept_are_refused(lengths: tuple[float, ...], told: str) -> None:
    with pytest.raises(UserError, match=f"power_ema: .*{told}"):
        TrainConfig(power_ema=lengths)


def test_an_autoencoder_refuses_them() -> None:
    with pytest.raises(UserError, match=r"train\.power_ema: an autoencoder keeps none"):
        AutoencoderExperiment(train=TrainConfig(power_ema=(0.05, 0.1)))
