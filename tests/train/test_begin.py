"""A run, an import above all, is trained further: in its own folder or in another one."""

import argparse
import shlex
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from flowbrush import checkpoint
from flowbrush.cli import main
from flowbrush.experiment import load_config
from flowbrush.interchange.published import Choices
from flowbrush.interchange.runs import import_run

GOLDEN = Path(__file__).parents[1] / "golden"
SHORT = shlex.split(
    "--batch.size 2 --batch.workers 0 --train.pictures 4 --train.lr 0.01 --train.precision fp32 "
    "--source.path data --sampling.steps 1 --device cpu"
)


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A JiT with two averages that differ from its weights, in a folder with ten classes."""
    monkeypatch.chdir(tmp_path)
    for i in range(10):
        (tmp_path / "data" / f"class{i}").mkdir(parents=True)
        Image.new("RGB", (32, 32), (20 * i, 0, 0)).save(tmp_path / "data" / f"class{i}" / "a.png")
    golden = load_file(GOLDEN / "jit_a.safetensors")
    names = {k[2:] for k in golden if k.startswith("w.")}
    states = [
        {f"net.{k}": golden[f"w.{k}"] + n * (k != "pos_embed") for k in names} for n in (0, 1, 2)
    ]
    whole = dict(zip(("model", "model_ema1", "model_ema2"), states, strict=True))
    torch.save(whole | {"args": argparse.Namespace(img_size=32)}, "checkpoint-last.pth")
    import_run("jit", Path("checkpoint-last.pth"), Path("imported"), Choices(Path("data")))
    return Path("imported")


def state(run: Path | str, name: str) -> dict[str, Tensor]:
    return checkpoint.load(checkpoint.newest(Path(run) / "checkpoints", print), name)


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return sum(float((one[name] - other[name]).square().sum()) for name in one) ** 0.5


@pytest.mark.parametrize("elsewhere", [[], ["--run", "other"]])
def test_an_imported_average_keeps_what_it_is(imported: Path, elsewhere: list[str]) -> None:
    names = ("model", "ema_0.9999", "ema_0.9996")
    model, *averages = (state(imported, name) for name in names)
    assert main(["train", str(imported), *elsewhere, *SHORT]) == 0
    run = elsewhere[1] if elsewhere else imported
    trained, *kept = (state(run, name) for name in names)
    assert 0 < distance(trained, model) < 0.3 * distance(averages[0], model), "it begins with them"
    for average, before, decay in zip(kept, averages, (0.9999, 0.9996), strict=True):
        share = distance(average, before) / distance(trained, before)
        assert share == pytest.approx(2 * (1 - decay), rel=0.2)
    if elsewhere:
        assert distance(state(imported, "model"), model) == 0, "the import stays as it is"


def test_another_average_begins_as_the_published_one(imported: Path) -> None:
    published = state(imported, "ema_0.9999")
    assert main(["train", str(imported), *SHORT, "--train.ema", "0.9995"]) == 0
    moved = distance(state(imported, "ema_0.9995"), published)
    assert moved < 2e-3 * distance(state(imported, "model"), published)


def test_what_only_concerns_training_may_change_before_it(
    imported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = [
        "--train.betas",
        "0.9",
        "0.99",
        "--flow.times.std",
        "1.0",
        "--backbone.dropout",
        "0.1",
    ]
    assert main(["train", str(imported), *SHORT, *changes]) == 0
    assert load_config(imported).train.betas == (0.9, 0.99)
    assert main(["train", str(imported), *SHORT, *changes, "--train.betas", "0.9", "0.9"]) == 2
    assert "train.betas was (0.9, 0.99), is now (0.9, 0.9)" in capsys.readouterr().err


@pytest.mark.parametrize("elsewhere", [[], ["--run", "other"]])
@pytest.mark.parametrize("change", ["--backbone.depth 2", "--flow.noise_scale 2"])
def test_what_the_weights_mean_may_not_change(
    imported: Path, elsewhere: list[str], change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(imported), *elsewhere, *SHORT, *change.split()]) == 2
    assert f"{change.split()[0].strip('-')} was" in capsys.readouterr().err
    assert not Path("other").exists()


def test_a_trained_run_in_another_folder_begins_with_its_averages(
    imported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(imported), *SHORT]) == 0
    average = state(imported, "ema_0.9999")
    again = ["train", str(imported), "--run", "other", "--train.lr", "1e-9"]
    capsys.readouterr()
    assert main(again) == 0
    said = capsys.readouterr().out
    assert "other: begins at 0 images with the averaged weights of imported" in said
    assert distance(state("other", "model"), average) < 1e-3
    assert load_config(Path("other")).train.start == "imported"
    assert main(again) == 0, "the same line resumes it"
    assert "already trained" in capsys.readouterr().out


def test_a_trained_run_is_repeated_from_random_weights_where_asked(imported: Path) -> None:
    assert main(["train", str(imported), *SHORT]) == 0
    again = ["train", str(imported), "--run", "other", "--train.start", "", "--train.lr", "1e-9"]
    assert main(again) == 0
    assert distance(state("other", "model"), state(imported, "ema_0.9999")) > 1
