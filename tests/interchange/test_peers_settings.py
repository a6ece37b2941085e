"""An imported run is trained and sampled as its peer would be."""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pipelines import ks
from safetensors.torch import load_file
from torch import Tensor

from flowbrush.backbones.jit import JiTConfig
from flowbrush.cli import main
from flowbrush.errors import UserError
from flowbrush.experiment import ExperimentConfig, load_config
from flowbrush.flow.denoiser import FlowConfig
from flowbrush.flow.diffusion import DiffusionConfig
from flowbrush.flow.times import TimesConfig
from flowbrush.interchange import jit
from flowbrush.interchange.published import Choices, Imported, read_published
from flowbrush.interchange.runs import FAMILIES
from flowbrush.interchange.settings import Arguments, leaves
from flowbrush.spaces.tiny import tiny_autoencoder

GOLDEN = Path(__file__).parents[1] / "golden"
N = 100_000


def golden(name: str) -> dict[str, Tensor]:
    tensors = load_file(GOLDEN / f"{name}.safetensors")
    return {key[2:]: value for key, value in tensors.items() if key.startswith("w.")}


def imported(family: str, path: Path, **chosen: Any) -> Imported:
    return FAMILIES[family](read_published(path), Choices(**chosen))


def from_jit(folder: Path, **args: Any) -> Imported:
    weights = {f"net.{name}": weight for name, weight in golden("jit_a").items()}
    args = {"args": argparse.Namespace(**args)} if args else {}
    torch.save(
        {"model": weights, "model_ema1": weights, "model_ema2": weights} | args, folder / "a"
    )
    return imported("jit", folder / "a")


def labelled(family: str, folder: Path, **args: Any) -> Imported:
    if not (folder / "vae").exists():
        tiny_autoencoder(folder / "vae", channels=4, factor=2)
    weights = golden("sit_a")
    torch.save({"model": weights, "ema": weights, "args": argparse.Namespace(**args)}, folder / "a")
    heads = json.loads((GOLDEN / "sit_a.json").read_text())["config"]["num_heads"]
    return imported(family, folder / "a", heads=heads, vae=str(folder / "vae"))


ARGS = {
    "noise_scale": ("flow.noise_scale", 2.0),
    "P_mean": ("flow.times.mean", -0.4),
    "P_std": ("flow.times.std", 1.0),
    "t_eps": ("flow.t_eps", 0.02),
    "cfg": ("sampling.scale", 2.2),
    "num_sampling_steps": ("sampling.steps", 25),
    "sampling_method": ("sampling.method", "euler"),
    "proj_dropout": ("backbone.dropout", 0.2),
    "label_drop_prob": ("train.caption_dropout", 0.2),
    "lr": ("train.lr", 3e-4),
    "weight_decay": ("train.weight_decay", 0.01),
}


def test_every_argument_in_a_jit_s_checkpoint_is_read(tmp_path: Path) -> None:
    more = {"interval_min": 0.2, "interval_max": 0.9, "ema_decay1": 0.999, "ema_decay2": 0.99}
    said = {name: value for name, (_, value) in ARGS.items()}
    config, weights, origins, notes = from_jit(
        tmp_path, **said, **more, batch_size=64, world_size=4
    )
    found = leaves(config)
    for name, (field, value) in ARGS.items():
        assert found[field] == value
        assert origins[field] == f"{name} in the checkpoint's args"
    assert config.sampling.interval == (0.2, 0.9)
    assert config.train.ema == (0.999, 0.99)
    assert weights.keys() == {"model", "ema_0.999", "ema_0.99"}
    assert config.batch.size == 256
    assert notes == []


def test_a_base_rate_is_of_the_whole_batch(tmp_path: Path) -> None:
    config = from_jit(tmp_path, lr=None, blr=1e-4, batch_size=128, world_size=4).config
    assert config.train.lr == pytest.approx(2e-4)


@pytest.mark.parametrize(
    ("depth", "scale", "dropout"), [(12, 2.9, 0.0), (24, 2.4, 0.0), (32, 2.2, 0.2)]
)
@pytest.mark.parametrize(("size", "noise_scale"), [(256, 1.0), (512, 2.0)])
def test_a_jit_without_arguments_has_what_is_published_for_its_size(
    depth: int, scale: float, dropout: float, size: int, noise_scale: float
) -> None:
    backbone = JiTConfig(depth=depth)
    config = jit._settings(Arguments(None, "a"), backbone, size, (0.9999, 0.9996))
    assert (config.sampling.scale, config.backbone) == (scale, replace(backbone, dropout=dropout))
    assert config.flow.noise_scale == noise_scale


def test_arguments_that_flowbrush_has_not_are_told(tmp_path: Path) -> None:
    notes = from_jit(tmp_path, attn_dropout=0.1, lr_schedule="cosine").notes
    assert notes == ["not followed, as Flowbrush has none: attn_dropout 0.1, lr_schedule cosine"]


@pytest.mark.parametrize(
    ("args", "line"),
    [
        ({"noise_scale": "two"}, "its args say noise_scale 'two', which is no number"),
        ({"P_std": float("nan")}, "its args say P_std nan, which is no number"),
        ({"sampling_method": "ddim"}, "sampling_method 'ddim', where Flowbrush has heun, euler"),
        ({"img_size": 256}, "its args say img_size 256, its weights 32"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(tmp_path: Path, args: dict, line: str) -> None:
    with pytest.raises(UserError, match=line):
        from_jit(tmp_path, **args)


@pytest.mark.parametrize(
    "args", [{"path_type": "GVP"}, {"prediction": "noise"}, {"loss_weight": "velocity"}]
)
def test_a_sit_of_another_transport_is_refused(tmp_path: Path, args: dict) -> None:
    with pytest.raises(UserError, match=f"its args say {next(iter(args))} .* only"):
        labelled("sit", tmp_path, **args)


def test_a_sit_s_arguments_are_read(tmp_path: Path) -> None:
    plain = {"path_type": "Linear", "prediction": "velocity", "loss_weight": None}
    found = labelled("sit", tmp_path, **plain, global_batch_size=64, cfg_scale=1.5, num_classes=10)
    assert (found.config.batch.size, found.config.sampling.scale) == (64, 1.5)
    assert found.origins["sampling.scale"] == "cfg_scale in the checkpoint's args"


@pytest.mark.parametrize("family", ["jit", "dit", "sit"])
def test_a_peer_s_optimizer_and_averages_go_on(family: str, tmp_path: Path) -> None:
    """JiT: main_jit.py. DiT, SiT: train.py. None clips, warms averages up or decays weights."""
    found = from_jit(tmp_path) if family == "jit" else labelled(family, tmp_path)
    train = found.config.train
    betas = {"jit": (0.9, 0.95), "dit": (0.9, 0.999), "sit": (0.9, 0.999)}
    assert (train.betas, train.eps) == (betas[family], 1e-8)
    assert (train.clip, train.ema_warmup, train.warmup) == (0.0, False, 0)
    assert (train.weight_decay, train.caption_dropout) == (0.0, 0.1)
    assert train.lr == {"jit": 2e-4, "dit": 1e-4, "sit": 1e-4}[family]


def drawn(flow: FlowConfig, positions: int = 4096) -> Tensor:
    times = flow.times.draw(0, range(N), N, positions, flow.diffusion)
    return times.double().sort().values


@pytest.mark.parametrize("betas", ["linear", "scaled_linear"])
def test_the_steps_of_a_diffusion_are_drawn_as_often_each(betas: str, tmp_path: Path) -> None:
    config = DiffusionConfig(betas=betas)
    times = TimesConfig(distribution="diffusion", stratified=False)
    ours = drawn(FlowConfig(times=times, diffusion=config, prediction="noise"))
    steps = torch.randint(0, 1000, (N,), generator=torch.Generator().manual_seed(0))
    root = 2 if betas == "scaled_linear" else 1
    kept = torch.linspace(1e-4 ** (1 / root), 0.02 ** (1 / root), 1000, dtype=torch.float64) ** root
    a = torch.cumprod(1 - kept, dim=0)[steps]
    assert ks(ours, a.sqrt() / (a.sqrt() + (1 - a).sqrt())) < 0.01
    seen = config.seen(torch.zeros(N, 1, 1, 1), ours.float()).t
    assert (seen * 1000 - (seen * 1000).round()).abs().max() < 2e-3, "whole steps"


def test_an_imported_dit_is_trained_at_the_diffusion_s_steps(tmp_path: Path) -> None:
    flow = labelled("dit", tmp_path).config.flow
    assert flow.times == TimesConfig(distribution="diffusion", stratified=False)
    steps = 1000 * (1 - flow.diffusion.seen(torch.zeros(N, 1, 1, 1), drawn(flow).float()).t)
    peer = torch.randint(0, 1000, (N,), generator=torch.Generator().manual_seed(1))
    assert ks(steps.round().double(), peer) < 0.01


def test_the_steps_of_no_diffusion_cannot_be_drawn() -> None:
    with pytest.raises(UserError, match=r"flow\.times\.distribution: 'diffusion' draws the steps"):
        FlowConfig(times=TimesConfig(distribution="diffusion"))


def test_an_import_says_and_keeps_where_its_settings_are_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from_jit(tmp_path, noise_scale=2.0)
    run = tmp_path / "run"
    assert main(["import", "jit", str(tmp_path / "a"), "--to", str(run)]) == 0
    said = capsys.readouterr().out
    assert "from the checkpoint's args: flow.noise_scale 2.0\n" in said
    assert "from JiT's scripts and paper: " in said
    assert "train.clip 0.0" in said
    origins = json.loads((run / "imported.json").read_text())
    assert origins["flow.noise_scale"] == "noise_scale in the checkpoint's args"
    own, config = leaves(ExperimentConfig()), leaves(load_config(run))
    decided = {name for name in config if name.startswith(("train.", "flow.times", "sampling."))}
    other = {name for name in decided if config[name] != own[name]}
    assert other <= origins.keys(), "every setting of an import has an origin"
