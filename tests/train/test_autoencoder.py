"""An autoencoder's training: exact, resumable, and what it writes is what a latent model reads."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from test_loop import learned
from tiny import tiny

from flowbrush import checkpoint
from flowbrush.autoencoding import AutoencoderConfig, AutoencoderExperiment, build_autoencoder
from flowbrush.cli import main
from flowbrush.data import ShapesWorldConfig
from flowbrush.data.batches import BatchConfig
from flowbrush.data.split import split
from flowbrush.errors import UserError
from flowbrush.evaluate.reconstruction import readable
from flowbrush.experiment import TrainConfig, WatchConfig
from flowbrush.processes import Processes
from flowbrush.spaces.latent import LatentConfig
from flowbrush.train.autoencoder import train_autoencoder
from flowbrush.train.autoencoder_folder import write_autoencoder
from flowbrush.train.loop import train

CPU = Processes(torch.device("cpu"))


def encoding() -> AutoencoderExperiment:
    """An autoencoder of 12,000 weights on 200 drawn scenes; a recipe for the command line too."""
    return AutoencoderExperiment(
        name="encoding",
        size=16,
        source=ShapesWorldConfig(scenes=200),
        batch=BatchConfig(size=8, flip=True),
        autoencoder=AutoencoderConfig(channels=3, widths=(8, 8), groups=4),
        train=TrainConfig(
            pictures=160, accumulate=2, lr=2e-3, warmup=32, ema=(0.9, 0.5), precision="fp32"
        ),
        watch=WatchConfig(log=16, checkpoint=40, preview=80),
    )


def until(pictures: int, **others: object) -> AutoencoderExperiment:
    return replace(encoding(), train=replace(encoding().train, pictures=pictures, **others))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "encoding"
    assert train_autoencoder(encoding(), folder, CPU) == 0
    return folder


def test_a_run_writes_what_every_run_writes_and_its_autoencoder(run: Path) -> None:
    found = {str(p.relative_to(run)) for p in run.rglob("*")}
    assert {"config.json", "journal.jsonl", "loss.png", "previews/000000000080.png"} <= found
    assert {"checkpoints/000000000120", "checkpoints/000000000160"} <= found
    assert "autoencoder/diffusion_pytorch_model.safetensors" in found
    assert not [name for name in found if "-aside" in name or "-before" in name]


def test_stopping_and_going_on_gives_the_same_bits_as_never_stopping(
    run: Path, tmp_path: Path
) -> None:
    train_autoencoder(until(72), tmp_path, CPU)
    train_autoencoder(until(160), tmp_path, CPU, changeable=("train.pictures",))
    assert learned(tmp_path) == learned(run)
    weights = "autoencoder/diffusion_pytorch_model.safetensors"
    assert (tmp_path / weights).read_bytes() == (run / weights).read_bytes()


def test_what_is_written_on_the_way_does_not_change_what_is_learned(
    run: Path, tmp_path: Path
) -> None:
    often = replace(encoding(), watch=replace(encoding().watch, checkpoint=24, preview=24))
    train_autoencoder(often, tmp_path, CPU)
    assert learned(tmp_path) == learned(run)


def test_accumulation_changes_the_weights_by_no_more_than_rounding(
    run: Path, tmp_path: Path
) -> None:
    train_autoencoder(until(160, accumulate=1), tmp_path, CPU)
    one, two = (checkpoint.newest(folder / "checkpoints", print) for folder in (tmp_path, run))
    ours, theirs = checkpoint.load(one, "model"), checkpoint.load(two, "model")
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], atol=2e-3, rtol=1e-2)


def test_the_folder_holds_the_first_average(run: Path) -> None:
    newest = checkpoint.newest(run / "checkpoints", print)
    written = AutoencoderKL.from_pretrained(run / "autoencoder").state_dict()
    average = checkpoint.load(newest, "ema_0.9")
    assert written.keys() == average.keys()
    assert all(torch.equal(written[name], average[name]) for name in written)


def test_its_latents_have_mean_0_and_variance_1_without_being_told(run: Path) -> None:
    space = LatentConfig(model=str(run / "autoencoder")).build(CPU.device)
    source = split(encoding().source.build(16), encoding().held_out).learned
    pictures = torch.cat(list(readable(source, 200)))
    x = space.normalize(space.compress(pictures), range(len(pictures)))
    assert float(x.mean()) == pytest.approx(0, abs=0.02)
    assert float(x.std()) == pytest.approx(1, abs=0.02)


def perceptual() -> AutoencoderExperiment:
    return replace(until(48), loss=replace(encoding().loss, perceptual=0.1))


def test_the_perceptual_network_is_in_no_checkpoint_and_changes_what_is_learned(
    tmp_path: Path,
) -> None:
    train_autoencoder(until(48), tmp_path / "without", CPU)
    train_autoencoder(perceptual(), tmp_path / "with", CPU)
    without, with_it = (
        checkpoint.newest(tmp_path / name / "checkpoints", print) for name in ("without", "with")
    )
    assert sorted(p.name for p in with_it.iterdir()) == sorted(p.name for p in without.iterdir())
    for part in ("model", "optimizer", "ema_0.9", "ema_0.5"):
        ours, theirs = checkpoint.load(with_it, part), checkpoint.load(without, part)
        assert ours.keys() == theirs.keys()
    ours, theirs = (checkpoint.load(place, "model") for place in (with_it, without))
    assert not any(torch.equal(ours[name], theirs[name]) for name in ours)


def test_with_the_perceptual_term_going_on_gives_the_same_bits_too(tmp_path: Path) -> None:
    train_autoencoder(perceptual(), tmp_path / "whole", CPU)
    halfway = replace(perceptual(), train=replace(perceptual().train, pictures=24))
    train_autoencoder(halfway, tmp_path / "parts", CPU)
    train_autoencoder(perceptual(), tmp_path / "parts", CPU, changeable=("train.pictures",))
    assert learned(tmp_path / "parts") == learned(tmp_path / "whole")


def test_only_with_a_weight_is_the_perceptual_network_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    assert train_autoencoder(until(16), tmp_path / "without", CPU) == 0
    with pytest.raises(UserError, match=r"^loss\.perceptual: .*'flowbrush\[features\]'$"):
        train_autoencoder(perceptual(), tmp_path / "with", CPU)
    assert not (tmp_path / "with").exists()


def test_a_latent_model_trains_on_it_and_paints(run: Path, tmp_path: Path) -> None:
    latent = LatentConfig(model=str(run / "autoencoder"))
    backbone = replace(tiny().backbone, patch=2)
    config = replace(tiny(), space=latent, backbone=backbone)
    assert train(config, tmp_path, CPU) == 0
    assert (tmp_path / "previews" / "000000000160.png").exists()


def test_longer_training_loses_less_of_pictures_held_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = []
    seldom = replace(encoding().watch, checkpoint=2_000, preview=2_000)
    for pictures in (8, 800):
        config = replace(until(pictures), watch=seldom)
        train_autoencoder(config, tmp_path / str(pictures), CPU)
        said = capsys.readouterr().out
        assert "dB PSNR on held-out pictures" in said
        found.append(float(said.split(" pictures; ")[1].split(" dB")[0]))
    assert found[1] > found[0] + 3


def test_without_pictures_held_out_it_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_autoencoder(replace(until(16), held_out=0.0), tmp_path, CPU)
    assert "dB PSNR on training pictures" in capsys.readouterr().out


def test_bf16_and_the_weights_themselves_are_written_too(tmp_path: Path) -> None:
    assert train_autoencoder(until(16, precision="bf16", ema=()), tmp_path, CPU) == 0
    state = checkpoint.load(checkpoint.newest(tmp_path / "checkpoints", print), "model")
    written = AutoencoderKL.from_pretrained(tmp_path / "autoencoder").state_dict()
    assert all(torch.equal(written[name], state[name]) for name in written)


def test_a_folder_that_cannot_be_written_leaves_the_one_before(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = build_autoencoder(encoding(), CPU.device).state_dict()
    source = encoding().source.build(16)
    write_autoencoder(encoding(), weights, source, tmp_path / "autoencoder")
    before = (tmp_path / "autoencoder" / "config.json").read_bytes()

    def full(self: object, folder: Path) -> None:
        folder.mkdir()
        (folder / "config.json").write_text("half")
        raise OSError("No space left on device")

    monkeypatch.setattr(AutoencoderKL, "save_pretrained", full)
    with pytest.raises(UserError, match="autoencoder: cannot be written"):
        write_autoencoder(encoding(), weights, source, tmp_path / "autoencoder")
    assert (tmp_path / "autoencoder" / "config.json").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["autoencoder"]


def test_two_kinds_of_model_do_not_go_into_the_same_folder(run: Path) -> None:
    with pytest.raises(UserError, match="another kind of model"):
        train(tiny(), run, CPU)


def test_the_command_line_trains_it_goes_on_with_it_and_has_nothing_to_paint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(tmp_path / "run")
    chosen = ["--autoencoder.channels", "2", "--train.pictures", "16"]
    assert main(["train", f"{__file__}:encoding", "--run", folder, *chosen]) == 0
    assert json.loads((tmp_path / "run/config.json").read_text())["autoencoder"]["channels"] == 2
    assert main(["train", folder, "--train.pictures", "24"]) == 0
    assert (tmp_path / "run/checkpoints/000000000024").is_dir()
    capsys.readouterr()
    for verb in (["sample", folder, "a fox"], ["evaluate", folder]):
        assert main(verb) == 2
        said = capsys.readouterr().err
        assert "an autoencoder's, which has no prompts" in said
        assert said.count("\n") == 1
