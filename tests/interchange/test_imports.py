"""Published networks in latents become runs."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pipelines import experiments, ks, write_models, write_run
from safetensors.torch import load_file, save_file
from torch import Tensor

from flowbrush import TextToImage
from flowbrush.cli import main
from flowbrush.experiment import ExperimentConfig, load_config
from flowbrush.flow.diffusion import DiffusionConfig
from flowbrush.hub import quiet
from flowbrush.interchange.published import Choices
from flowbrush.interchange.runs import import_run
from flowbrush.randomness import derive, normal
from flowbrush.spaces.tiny import tiny_autoencoder

GOLDEN = Path(__file__).parents[1] / "golden"
CPU = torch.device("cpu")
PROMPTS = ["a red apple", "two cats"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


def sit() -> dict[str, Tensor]:
    tensors = load_file(GOLDEN / "sit_a.safetensors")
    return {k[2:]: v for k, v in tensors.items() if k.startswith("w.")}


def heads() -> int:
    return json.loads((GOLDEN / "sit_a.json").read_text())["config"]["num_heads"]


@pytest.mark.parametrize("family", ["dit", "sit"])
def test_a_published_network_of_labels_becomes_a_run_that_paints(
    family: str, tmp_path: Path
) -> None:
    channels = sit()["x_embedder.proj.weight"].shape[1]
    tiny_autoencoder(tmp_path / "vae", channels=channels, factor=2)
    torch.save(sit(), tmp_path / "weights.pt")
    command = ["import", family, str(tmp_path / "weights.pt"), "--to", str(tmp_path / "run")]
    assert main([*command, "--heads", str(heads()), "--vae", str(tmp_path / "vae")]) == 0
    config = load_config(tmp_path / "run")
    assert config.flow.prediction == {"dit": "noise", "sit": "velocity"}[family]
    assert (
        config.flow.diffusion
        == {
            "dit": DiffusionConfig(variance="learned_range"),
            "sit": None,
        }[family]
    )
    found = config.sampling  # as the authors' sample.py, of SiT in its mode SDE
    assert (found.method, found.last_gap) == {"dit": ("ddpm", None), "sit": ("sde_euler", 0.04)}[
        family
    ]
    assert (found.steps, found.scale, found.guided_channels) == (250, 4.0, 3)
    painter = TextToImage.load(tmp_path / "run", device="cpu")
    pictures = painter.generate(["1", "3"], replace(config.sampling, steps=2))
    assert pictures.shape == (2, 3, config.size, config.size)
    assert pictures.float().std() > 5


def test_a_trainer_s_checkpoint_brings_its_average(tmp_path: Path) -> None:
    from flowbrush import checkpoint

    average = {k: v + (k != "pos_embed") for k, v in sit().items()}
    tiny_autoencoder(tmp_path / "vae", channels=4, factor=2)
    torch.save({"model": sit(), "ema": average, "opt": {}}, tmp_path / "0400000.pt")
    choices = Choices(heads=heads(), vae=str(tmp_path / "vae"))
    import_run("sit", tmp_path / "0400000.pt", tmp_path / "run", choices)
    found = checkpoint.newest(tmp_path / "run" / "checkpoints", print)
    model, ema = (checkpoint.load(found, name)["output.bias"] for name in ("model", "ema_0.9999"))
    assert torch.equal(ema, model + 1)


def test_heads_are_asked_for_where_the_width_is_none_published(tmp_path: Path, capsys: Any) -> None:
    save_file(sit(), tmp_path / "a.safetensors")
    command = ["import", "sit", str(tmp_path / "a.safetensors"), "--to", str(tmp_path / "run")]
    assert main(command) == 2
    assert "say how many --heads it has" in capsys.readouterr().err


def from_elsewhere(models: Path, kind: str, scheduler: dict[str, Any], place: Path) -> Path:
    """A diffusers folder with a scheduler of its own, and nothing of ours in it."""
    write_run(experiments(models)[kind], place / "run")
    folder = place / "folder"
    assert main(["export", str(place / "run"), "--to", "diffusers", str(folder)]) == 0
    (folder / "flowbrush.json").unlink()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", scheduler["_class_name"]]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def assert_times_of_the_script(config: ExperimentConfig, folder: Path, family: str) -> None:
    """train_dreambooth_{sd3,flux}.py: logit-normal and uniform places in the scheduler's list."""
    from diffusers import FlowMatchEulerDiscreteScheduler
    from diffusers.training_utils import compute_density_for_timestep_sampling

    n, scheme = 100_000, {"sd3": "logit_normal", "flux": "none"}[family]
    drawn = torch.Generator().manual_seed(0)
    u = compute_density_for_timestep_sampling(scheme, n, 0.0, 1.0, generator=drawn)
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler")
    sigmas = scheduler.sigmas[(u * scheduler.config.num_train_timesteps).long()]
    ours = config.flow.times.draw(0, range(n), n, positions=16 * 16)
    assert ks(ours.double(), 1 - sigmas) < 0.01
    train = config.train
    assert (train.lr, train.betas, train.weight_decay) == (1e-4, (0.9, 0.999), 1e-4)
    assert (train.clip, train.caption_dropout, train.ema_warmup) == (1.0, 0.0, False)


EULER = "FlowMatchEulerDiscreteScheduler"
DYNAMIC = {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15}


@pytest.mark.parametrize(
    ("kind", "scheduler", "asked"),
    [
        ("flux", {"shift": 1.0}, {"max_sequence_length": 256}),
        ("flux-dev", DYNAMIC, {"max_sequence_length": 512, "guidance_scale": 3.5}),
        (
            "flux-dev",
            DYNAMIC | {"time_shift_type": "linear"},
            {"max_sequence_length": 512, "guidance_scale": 3.5},
        ),
        ("sd3", {"shift": 3.0}, {}),
        ("sd3", DYNAMIC, {}),
    ],
)
def test_we_paint_what_diffusers_paints_from_a_published_folder_by_default(
    kind: str, scheduler: dict, asked: dict, models: Path, tmp_path: Path
) -> None:
    import diffusers

    folder = from_elsewhere(models, kind, {"_class_name": EULER, **scheduler}, tmp_path)
    family = kind.split("-")[0]
    import_run(family, folder, tmp_path / "new", Choices(size=32))
    assert_times_of_the_script(load_config(tmp_path / "new"), folder, family)
    shutil.copy(tmp_path / "new" / "config.json", tmp_path / "config.json")
    fp32 = (
        (tmp_path / "config.json").read_text().replace('"precision": "auto"', '"precision": "fp32"')
    )
    (tmp_path / "new" / "config.json").write_text(fp32)
    painter = TextToImage.load(tmp_path / "new", device="cpu")
    sampling = replace(painter.config.sampling, steps=5)
    noise = normal([derive(seed, "picture", 0) for seed in (0, 1)], painter.space.shape(32), CPU)
    with quiet():
        pipeline = diffusers.DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    from flowbrush.interchange.to_diffusers import packed

    latents = noise if kind == "sd3" else packed(noise)
    theirs = pipeline(
        PROMPTS, num_inference_steps=5, latents=latents, height=32, width=32, output_type="pt",
        **asked,
    ).images  # fmt: skip
    ours = painter.generate(PROMPTS, sampling).float()
    assert ours.std() > 20
    assert ((theirs * 255).round() - ours).abs().mean() < 0.1


def test_a_pixart_of_a_discrete_diffusion_says_its_noise(models: Path, tmp_path: Path) -> None:
    import diffusers

    scheduler = {"_class_name": "DPMSolverMultistepScheduler", "beta_schedule": "linear"}
    folder = from_elsewhere(models, "pixart", scheduler, tmp_path)
    import_run("pixart", folder, tmp_path / "new")
    config = load_config(tmp_path / "new")
    assert config.flow.diffusion == DiffusionConfig()
    assert (config.sampling.method, config.sampling.steps) == ("dpmsolver++", 20)
    assert config.flow.times.distribution == "diffusion"
    train = config.train  # as PixArt-alpha's configs
    assert (train.lr, train.eps, train.weight_decay, train.clip) == (2e-5, 1e-10, 0.03, 0.01)
    with quiet():
        theirs = diffusers.PixArtTransformer2DModel.from_pretrained(folder / "transformer")
    painter = TextToImage.load(tmp_path / "new", device="cpu", frozen=False)
    step, condition = 400, painter.encoder(["two cats"])
    kept = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), dim=0)[step]
    t = (kept.sqrt() / (kept.sqrt() + (1 - kept).sqrt())).float()[None]
    noisy = normal([0], painter.space.shape(32), CPU)  # as the diffusion has it
    with torch.no_grad():
        ours = painter.denoiser.eval().predict(noisy * torch.hypot(t, 1 - t), t, condition)
        published = theirs(
            noisy, condition.text, torch.tensor([step]),
            {"resolution": None, "aspect_ratio": None}, return_dict=False,
        )[0]  # fmt: skip
    assert torch.allclose(ours, published, atol=2e-3 * float(published.abs().max()))
