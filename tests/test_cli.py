"""What a user types, and what they are told when it is wrong: one line, exit status 2, nothing
half-written."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from flowbrush.cli import VERBS, main
from flowbrush.cli.options import prompts_first
from flowbrush.recipes import RECIPES

TINY = str(Path(__file__).parent / "tiny.py")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A trained run."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    assert main(["train", f"{TINY}:tiny", "--run", str(folder)]) == 0
    return str(folder)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that the arguments are refused with, behind what a source says of itself."""
    before = sorted(Path().rglob("*"))
    assert main(arguments) == 2
    said = capsys.readouterr().err
    *notices, line = said.splitlines()
    assert line.startswith("flowbrush: ")
    assert all(": " in notice and "flowbrush" not in notice for notice in notices), said
    assert sorted(Path().rglob("*")) == before, "something was left behind"
    return line


def test_a_run_is_trained_sampled_and_measured(
    run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sample", run, "a large red circle", "赤い丸", "--out", "new/a.png"]) == 0
    assert Image.open("new/a.png").size[0] > 2 * 128
    assert main(["evaluate", run, "--limit", "20", "--validation", "8"]) == 0
    said = capsys.readouterr().out
    assert "followed, English" in said
    assert "validation loss" in said
    assert Image.open(f"{run}/painted.png").size[0] > 8 * 128


def test_latents_are_measured_as_options_to_train_with(
    capsys: pytest.CaptureFixture[str],
) -> None:
    small = ["--pictures", "16", "--source.scenes", "40"]
    tiny_coyo = ["train", "coyo", "--tiny", "--run", "tiny", "--train.pictures", "8"]
    assert main([*tiny_coyo, "--batch.size", "8", "--train.accumulate", "1"]) == 0
    assert main(["evaluate", "latents", "tiny", *small]) == 0
    said = capsys.readouterr().out
    assert "dB PSNR" in said
    for how, numbers in (("by channel", 4), ("one number", 1)):
        line = next(line for line in said.splitlines() if line.startswith(how))
        _, means, scales = (part.split() for part in line.split("--space."))
        assert len(means) == len(scales) == 1 + numbers
    assert "in pixels" in refused(capsys, "evaluate", "latents", "emoji")
    for verb in (["evaluate", "latents"], ["evaluate", "reference"], ["prepare"]):
        assert "name one that paints" in refused(capsys, *verb, "emoji-autoencoder")


def test_a_tiny_recipe_is_prepared_and_trained_from_its_shards(
    capsys: pytest.CaptureFixture[str],
) -> None:
    small = ["--tiny", "--source.scenes", "40", "--batch.size", "8"]
    assert main(["prepare", "coyo", *small, "--to", "shards"]) == 0
    assert "train with: flowbrush train coyo --tiny --prepared shards" in capsys.readouterr().out
    train = ["train", "coyo", "--tiny", "--prepared", "shards", "--run", "run"]
    assert main([*train, "--train.pictures", "16"]) == 0


def test_several_pictures_of_a_prompt_are_written_one_by_one(run: str) -> None:
    assert main(["sample", run, "a fox", "--count", "3", "--separate"]) == 0
    assert {p.name for p in Path().glob("*.png")} == {"painted.png"} | {
        f"painted-{i}.png" for i in range(3)
    }
    assert Image.open("painted-0.png").size == (16, 16)


def test_a_prompt_may_begin_with_a_dash(run: str) -> None:
    prompt = "-40 degrees, a frozen lake"
    assert main(["sample", run, prompt, "--out", "a.png"]) == 0
    assert main(["sample", run, "--out", "b.png", "--", prompt]) == 0
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()
    assert prompts_first(["-5", "--seed", "1"]) == (["-5"], ["--seed", "1"])
    assert prompts_first(["a fox", "-out", "b.png"]) == (["a fox"], ["-out", "b.png"])
    assert prompts_first(["a", "--seed", "1", "--", "--x", "-h"]) == (
        ["a", "--x", "-h"],
        ["--seed", "1"],
    )


def test_what_is_printed_fits_any_terminal(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose letters are ASCII alone, or that has the names of files not in UTF-8."""
    for encoding, shown in (("ascii", b"\\u732b.png\n"), ("utf-8", "猫.png\n".encode())):
        raw = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
        assert main(["sample", run, "猫", "--out", "猫.png"]) == 0
        sys.stdout.flush()
        assert raw.getvalue() == shown
        assert main(["--help"]) == 0


@pytest.mark.parametrize("words", [["sample", "RUN", "caf\udce9"], ["train", "emoji\udce9"]])
def test_an_argument_that_is_not_utf_8_is_named(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, *words)
    assert "\\udce9': not UTF-8; type it in a UTF-8 terminal" in said


def test_the_seed_chooses_the_picture(run: str) -> None:
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        main(["sample", run, "a fox", "--seed", seed, "--out", f"{name}.png"])
    a, b, c = (Path(f"{name}.png").read_bytes() for name in "abc")
    assert a == b != c


def test_a_run_is_extended_from_its_folder(run: str, tmp_path: Path) -> None:
    assert main(["train", f"{TINY}:tiny", "--run", "short", "--train.schedule", "constant"]) == 0
    assert main(["train", "short", "--train.pictures", "200"]) == 0
    assert Path("short/checkpoints/000000000200").is_dir()


def test_every_recipe_is_listed_with_its_docstring(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    listed = capsys.readouterr().out
    for name, recipe in RECIPES.items():
        assert f"{name}\n" in listed
        assert recipe.__doc__ is not None
        assert recipe.__doc__.splitlines()[0] in listed


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_in_the_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert f"flowbrush {verb}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["train", "--help"], "recipes: emoji,"),
        (["train", "emoji", "--help"], "--train.lr"),
        (["sample", "--help"], "--scale"),
        (["evaluate", "--help"], "--sweep.scale"),
        (["import", "--help"], "--classes"),
    ],
)
def test_every_verb_lists_its_options(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        assert main(arguments) == 0
    except SystemExit as end:
        assert not end.code
    assert told in capsys.readouterr().out


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys, flowbrush.cli as c; c.main(['--help']); print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.endswith("False\n")


def test_the_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "flowbrush", "paint"], capture_output=True)
    assert done.returncode == 2
    assert done.stderr.startswith(b"flowbrush: 'paint' is not a verb")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["trian"], "did you mean 'train'?"),
        (["train"], "a recipe's name or a run's folder is missing"),
        (["train", "emojy"], "did you mean 'emoji'?"),
        (["train", "mine.py:night3"], "mine.py: no such file"),
        (["train", f"{TINY}:tiiny"], "did you mean 'tiny'?"),
        (["train", "emoji", "--train.lrr", "3"], "Perhaps you meant: --train.lr"),
        (["train", "emoji", "--train.lr", "fast"], "Error parsing --train.lr"),
        (["train", "emoji", "--train.lr", "-1"], "must be above 0"),
        (["train", "emoji", "--train.lr", "nan"], "--train.lr: nan is not a finite number"),
        (["train", "emoji", "--train.lr", "inf"], "--train.lr: inf is not a finite number"),
        (["train", "emoji", "--train.clip", "nan"], "--train.clip: nan is not a finite number"),
        (["train", "emoji", "--train.betas", "0.9", "nan"], "--train.betas: nan is not a finite"),
        (["train", "emoji", "--train.ema", "0.9", "1e999"], "--train.ema: 1e999 is not a finite"),
        (["train", "emoji", "--sampling.last-gap", "inf"], "--sampling.last-gap: inf is not"),
        (["plan", "emoji", "--price", "-inf"], "--price: -inf is not a finite number"),
        (["train", f"{TINY}:endless", "--run", "run"], ":endless: train.lr: not a finite number"),
        (["train", "emoji", "--backbone.depth", "2.5"], "Error parsing --backbone.depth"),
        (["train", "emoji", "--backbone.patch", "5"], "patch 5 does not divide"),
        (["train", "emoji", "--backbone.heads", "7"], "must be a multiple of 4"),
        (["train", "emoji", "--flow.prediction", "dat"], "Expected one of"),
        (["train", "emoji", "--source.languages", "xx"], "'xx' is not one of"),
        (["train", "emoji", "--device", "tpu9"], "--device tpu9: not usable here"),
        (["train", "emoji", "--train.accumulate", "3"], "do not divide a batch of 64"),
        (["train", "folder", "--source.path", "nowhere"], "nowhere: no such folder"),
        (["train", "mnist", "--source.path", "."], "no train-images-idx3-ubyte"),
        (["sample", "nowhere", "a fox"], "nowhere: not a run's folder"),
        (["evaluate", "nowhere"], "nowhere: not a run's folder"),
    ],
)
def test_a_mistake_is_told_in_one_line(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told in refused(capsys, *arguments)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "no prompt"),
        (["x" * 10_000], "10,000 characters, the most is 2,000"),
        (["a", "--steps", "0"], "steps 0 must be 1 or more"),
        (["a", "--method", "rk5"], "invalid choice 'rk5'"),
        (["a", "--interval", "0.9", "0.1"], "two times"),
        (["a", "--weights", "ema_0.7"], "no state 'ema_0.7'"),
        (["a", "--out", "a.txt"], "end it in .png"),
        (["a", "--count", "0"], "--count 0"),
        (["a", "--scale", "nan"], "--scale: nan is not a finite number"),
    ],
)
def test_a_mistake_in_sampling_is_told_in_one_line(
    run: str, arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told in refused(capsys, "sample", run, *arguments)


def test_another_config_for_a_run_is_refused(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "train", f"{TINY}:tiny", "--run", run, "--train.lr", "0.5")
    assert "begun with another config (train.lr was 0.001, is now 0.5)" in said


def test_a_config_with_an_unknown_field_is_refused(
    run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("run").mkdir()
    text = (Path(run) / "config.json").read_text()
    Path("run/config.json").write_text(text.replace('"lr"', '"learning_rate"'))
    assert "unknown field 'learning_rate' of TrainConfig" in refused(capsys, "sample", "run", "a")


def test_a_run_without_a_checkpoint_is_refused(
    run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("run").mkdir()
    Path("run/config.json").write_text((Path(run) / "config.json").read_text())
    assert "no whole checkpoint" in refused(capsys, "sample", "run", "a fox")


def pictures(count: int) -> None:
    """`images/` and `captions/` with that many pictures."""
    for name in ("mine/images", "mine/captions"):
        Path(name).mkdir(parents=True)
    for i in range(count):
        Image.new("RGB", (20, 16), (5 * i, 0, 0)).save(f"mine/images/{i}.png")
        Path(f"mine/captions/{i}.txt").write_text(f"shade {i} 赤", "utf-8")


FOLDER = ["train", "folder", "--source.path", "mine", "--run", "run", "--size", "16"]
SMALL = [
    "--backbone.depth", "1", "--backbone.width", "16", "--backbone.heads", "2",
    "--backbone.context-start", "0", "--batch.size", "8", "--train.pictures", "240",
]  # fmt: skip


def test_a_folder_of_ones_own_pictures_trains(capsys: pytest.CaptureFixture[str]) -> None:
    pictures(12)
    Path("mine/images/3.png").write_bytes(b"no picture")
    assert main([*FOLDER, *SMALL]) == 0
    assert (
        "1 broken pictures were skipped; run/rejected.jsonl lists them" in capsys.readouterr().out
    )
    assert main(["sample", "run", "shade 5 赤"]) == 0


def spoil_picture() -> None:
    for i in range(3):
        path = Path(f"mine/images/{i}.png")
        path.write_bytes(path.read_bytes()[:40])


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda: Path("mine/captions/4.txt").unlink(), "mine/captions/4.txt: missing"),
        (lambda: Path("mine/images/4.png").unlink(), "4.txt: a caption without its image"),
        (lambda: Path("mine/captions/4.txt").write_text(" \n"), "4.txt: empty"),
        (lambda: Path("mine/captions/4.txt").write_bytes(b"\xff\xfe"), "4.txt: not UTF-8"),
        (lambda: [p.unlink() for p in Path("mine/images").iterdir()], "no images in it"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(
    spoil, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures(12)
    spoil()
    assert told in refused(capsys, *FOLDER, *SMALL)


def test_too_many_broken_pictures_stop_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    pictures(12)
    spoil_picture()
    assert main([*FOLDER, *SMALL]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "pictures are broken, more than a tenth" in said


def test_a_full_disk_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import errno

    from flowbrush import checkpoint

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    assert main(["train", f"{TINY}:tiny", "--run", "run"]) == 2
    assert "no space left on the disk" in capsys.readouterr().err.splitlines()[-1]
    assert list(Path("run/checkpoints").iterdir()) == []


def test_an_unwritable_place_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").write_text("")
    said = refused(capsys, "train", f"{TINY}:tiny", "--run", "file/run")
    assert "choose another folder with --run" in said


def test_progress_goes_to_the_error_stream(run: str) -> None:
    """So that what a command prints can be piped."""
    out = io.StringIO()
    import contextlib

    with contextlib.redirect_stdout(out):
        main(["train", run])
    assert out.getvalue() == f"{run}: already trained on 160 pictures\n"


# -- evaluate


def test_a_sweep_is_a_table_of_every_way(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--limit", "4", "--validation", "0", "--kinds", "en"]
    axes = ["--sweep.weights", "ema_0.9", "model", "--sweep.scale", "1", "2"]
    assert main(["evaluate", run, *few, *axes]) == 0
    said = capsys.readouterr().out
    for weights in ("ema_0.9", "model"):
        for scale in ("1.0", "2.0"):
            assert f"weights {weights}, scale {scale}" in said
    assert len(json.loads(Path(run, "sweep.json").read_text())["rows"]) == 4


def test_one_process_and_two_and_any_batch_give_the_same_pictures_and_figures(run: str) -> None:
    """Two are started by torchrun, as on a cluster."""
    limit = ["--limit", "40", "--validation", "8", "--device", "cpu"]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    found = []
    for start, batch in (([sys.executable], "64"), (command, "7"), ([sys.executable], "7")):
        folder = Path("copy")
        shutil.copytree(run, folder)
        shutil.rmtree(folder / "evaluations", ignore_errors=True)
        (folder / "evaluations.jsonl").unlink(missing_ok=True)
        words = ["-m", "flowbrush", "evaluate", str(folder), *limit, "--batch", batch]
        subprocess.run([*start, *words], check=True, capture_output=True)
        parts = sorted(folder.glob("evaluations/*/part-*"))
        (line,) = (folder / "evaluations.jsonl").read_text().splitlines()
        figures = {k: v for k, v in json.loads(line).items() if k != "seconds"}
        found.append(([part.read_bytes() for part in parts], figures))
        shutil.rmtree(folder)
    assert len(found[0][0]) == 2
    assert found[0] == found[1] == found[2]


def test_statistics_of_real_pictures_are_made_once(
    run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--limit", "12", "--source.scenes", "40"]
    assert main(["evaluate", "reference", f"{TINY}:tiny", "--to", "a/r.npz", *small]) == 0
    assert "12 pictures, EfficientNet-Lite0" in capsys.readouterr().out
    measured = ["--limit", "12", "--validation", "0", "--features", "efficientnet"]
    assert main(["evaluate", run, *measured, "--reference", "a/r.npz"]) == 0
    said = capsys.readouterr().out
    assert "KID" in said
    assert "probe is right first" in said
    assert "end it in .npz" in refused(capsys, "evaluate", "reference", "emoji", "--to", "r.txt")


def test_what_cannot_be_measured_is_refused(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no such file" in refused(
        capsys, "evaluate", run, "--features", "efficientnet", "--reference", "none.npz",
        "--limit", "4",
    )  # fmt: skip
    alone = ["--reference", "none.npz", "--limit", "4", "--validation", "0"]
    assert "--reference none.npz: by which features?" in refused(capsys, "evaluate", run, *alone)
    assert "--kinds fr" in refused(capsys, "evaluate", run, "--kinds", "fr")
    assert "batch must be" in refused(capsys, "evaluate", run, "--batch", "0")
    assert "steps 0" in refused(capsys, "evaluate", run, "--sweep.steps", "0")
    assert "--sweep.scale: nan" in refused(capsys, "evaluate", run, "--sweep.scale", "1", "nan")
    assert "no state 'ema_0.1'" in refused(capsys, "evaluate", run, "--weights", "ema_0.1")
    assert "nor a recipe" in refused(capsys, "evaluate", "reference", "nothing")
