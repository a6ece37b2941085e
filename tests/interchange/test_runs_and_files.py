import argparse
import json
import os
import pickle
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from flowbrush import TextToImage, checkpoint
from flowbrush.cli import main
from flowbrush.errors import UserError
from flowbrush.experiment import load_config
from flowbrush.interchange.files import read_weights
from flowbrush.interchange.networks import guess_family
from flowbrush.interchange.published import Choices
from flowbrush.interchange.runs import import_run

GOLDEN = Path(__file__).parents[1] / "golden"


def published() -> dict[str, Tensor]:
    """A JiT of 339,136 weights under its published names."""
    tensors = load_file(GOLDEN / "jit_a.safetensors")
    return {f"net.{k[2:]}": v for k, v in tensors.items() if k.startswith("w.")}


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A checkpoint as JiT's own trainer writes it, argparse.Namespace included."""
    averages = [{k: v + n * (k != "net.pos_embed") for k, v in published().items()} for n in (1, 2)]
    file = tmp_path / "checkpoint-last.pth"
    torch.save(
        {
            "model": published(),
            "model_ema1": averages[0],
            "model_ema2": averages[1],
            "optimizer": {"state": {}, "param_groups": []},
            "epoch": 3,
            "args": argparse.Namespace(model="JiT-B/16", img_size=32),
        },
        file,
    )
    return file


def test_a_published_checkpoint_becomes_a_run_that_paints(whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main(["import", "jit", str(whole), "--to", str(run)]) == 0
    config = load_config(run)
    assert (config.size, config.flow.prediction, config.train.ema) == (32, "data", (0.9999, 0.9996))
    quick = replace(config.sampling, steps=2)
    assert TextToImage.load(run).generate(["3", "7"], quick).shape == (2, 3, 32, 32)
    found = checkpoint.newest(run / "checkpoints", print)
    model, first, second = (
        checkpoint.load(found, name)["output.bias"]
        for name in ("model", "ema_0.9999", "ema_0.9996")
    )
    assert torch.equal(first, model + 1)
    assert torch.equal(second, model + 2)


def test_an_imported_run_is_trained_further(whole: Path, tmp_path: Path) -> None:
    run, data = tmp_path / "run", tmp_path / "data"
    for i in range(10):
        (data / f"class{i}").mkdir(parents=True)
        Image.new("RGB", (32, 32), (20 * i, 0, 0)).save(data / f"class{i}" / "a.png")
    import_run("jit", whole, run, Choices(classes=data))
    config = load_config(run)
    small = replace(
        config,
        batch=replace(config.batch, size=4, workers=0),
        train=replace(config.train, pictures=8),
        source=replace(config.source, path=data),
    )
    from flowbrush import config_io
    from flowbrush.processes import Processes
    from flowbrush.train.loop import train

    config_io.save(small, run / "config.json")
    assert train(small, run, Processes(torch.device("cpu"))) == 0
    assert checkpoint.newest(run / "checkpoints", print).name == "000000000008"


def test_bare_weights_are_the_averages_too(tmp_path: Path) -> None:
    save_file(published(), tmp_path / "jit.safetensors")
    import_run("jit", tmp_path / "jit.safetensors", tmp_path / "run")
    found = checkpoint.newest(tmp_path / "run" / "checkpoints", print)
    model, average = (checkpoint.load(found, name) for name in ("model", "ema_0.9999"))
    assert all(torch.equal(model[name], average[name]) for name in model)


def refusal(file: Path, run: Path, family: str = "jit", classes: Path | None = None) -> str:
    with pytest.raises(UserError) as error:
        import_run(family, file, run, Choices(classes=classes))
    assert not run.exists()
    return str(error.value)


def test_weights_of_another_family_are_guessed(tmp_path: Path) -> None:
    sit = load_file(GOLDEN / "sit_a.safetensors")
    save_file({k[2:]: v for k, v in sit.items() if k.startswith("w.")}, tmp_path / "a.safetensors")
    told = refusal(tmp_path / "a.safetensors", tmp_path / "run")
    assert "not the weights of a JiT, which have 'x_embedder.proj1.weight'; it looks like" in told


@pytest.mark.parametrize(
    ("name", "family"), [("flux_a", "flux"), ("sd3_a", "sd3"), ("pixart_a", "pixart")]
)
def test_every_family_is_known_by_a_key(name: str, family: str) -> None:
    keys = load_file(GOLDEN / f"{name}.safetensors").keys()
    assert guess_family(k[2:] for k in keys if k.startswith("w.")) == family


def test_a_wrong_shape_is_named(tmp_path: Path) -> None:
    spoilt = published() | {"net.final_layer.linear.bias": torch.zeros(7)}
    save_file(spoilt, tmp_path / "a.safetensors")
    told = refusal(tmp_path / "a.safetensors", tmp_path / "run")
    assert "output.bias is (7,), where (48,) belongs" in told


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    fewer = {k: v for k, v in published().items() if k != "net.final_layer.linear.bias"}
    save_file(fewer, tmp_path / "a.safetensors")
    assert "missing final_layer.linear.bias" in refusal(
        tmp_path / "a.safetensors", tmp_path / "run"
    )


def test_an_unknown_family_is_refused(tmp_path: Path) -> None:
    assert "did you mean 'jit'?" in refusal(tmp_path / "a", tmp_path / "run", family="jitt")


def test_a_run_that_is_there_is_not_written_over(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(UserError, match="there already"):
        import_run("jit", whole, tmp_path / "run")


def test_classes_of_another_number_are_refused(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "data" / "only").mkdir(parents=True)
    told = refusal(whole, tmp_path / "run", classes=tmp_path / "data")
    assert "1 class folders, the weights have 10 classes" in told


def test_a_pickle_that_wants_to_run_code_is_refused(tmp_path: Path) -> None:
    class Malice:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    torch.save({"model": Malice()}, tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes(pickle.dumps(Malice()))
    for name in ("a.pth", "b.pth"):
        with pytest.raises(UserError, match=name):
            read_weights(tmp_path / name)
    with pytest.raises(UserError, match="wants to run code"):
        read_weights(tmp_path / "a.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
def test_a_truncated_file_is_refused(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    save_file(published(), file) if name.endswith("s") else torch.save(published(), file)
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(UserError, match=f"{name}: cut short or no weight file"):
        read_weights(file)


def test_shards_are_read_together_and_a_missing_one_is_named(tmp_path: Path) -> None:
    one, two = {"a": torch.ones(1)}, {"b": torch.zeros(2)}
    save_file(one, tmp_path / "one.safetensors")
    save_file(two, tmp_path / "two.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}))
    assert read_weights(index).keys() == {"a", "b"}
    (tmp_path / "two.safetensors").unlink()
    with pytest.raises(UserError, match=r"two\.safetensors: missing"):
        read_weights(index)


def test_a_run_of_weights_that_are_not_finite_is_neither_sampled_nor_started_from(
    whole: Path, tmp_path: Path
) -> None:
    from flowbrush.train.start import start_from

    run = tmp_path / "run"
    import_run("jit", whole, run)
    found = checkpoint.newest(run / "checkpoints", print)
    states = {name: checkpoint.load(found, name) for name in checkpoint.names(found)}
    network = TextToImage.load(run).denoiser.backbone
    states["ema_0.9999"]["output.bias"][1] = float("nan")
    checkpoint.save(run / "checkpoints", 0, states, keep=1)
    start = partial(start_from, run, load_config(run), network)
    for load in (partial(TextToImage.load, run), start):
        with pytest.raises(UserError, match=r"ema_0\.9999: output\.bias holds NaN or infinity"):
            load()
    assert TextToImage.load(run, "model").weights == "model"
