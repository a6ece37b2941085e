"""Runs leave as folders that diffusers' pipelines load, and come back."""

import ast
import json
import re
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pipelines import experiments, write_models, write_run
from safetensors.torch import load_file, save_file
from torch import Tensor

from flowbrush import TextToImage
from flowbrush.backbones import FluxConfig
from flowbrush.cli import main
from flowbrush.errors import UserError
from flowbrush.experiment import ExperimentConfig, load_config
from flowbrush.flow.sampling import SamplingConfig
from flowbrush.hub import quiet
from flowbrush.interchange import to_diffusers
from flowbrush.interchange.jit_folder import SETTINGS
from flowbrush.interchange.runs import import_run
from flowbrush.interchange.sampler_settings import DPM_SOLVER, EULER, differences, in_folder
from flowbrush.randomness import derive, normal

CPU = torch.device("cpu")
PROMPTS = ["a red apple", "two cats"]
KINDS = ["flux", "flux-dev", "sd3", "sd3 without t5", "pixart", "pixart of a diffusion"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


@pytest.fixture(scope="module", params=KINDS)
def exported(request: Any, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with the folder that it left as."""
    place = tmp_path_factory.mktemp("exported")
    write_run(experiments(models)[request.param], place / "run")
    command = ["export", str(place / "run"), "--to", "diffusers", str(place / "folder")]
    assert main(command) == 0
    return place


def settings_on_card(folder: Path) -> dict[str, Any]:
    """What the model card's lines ask the pipeline for."""
    code = (folder / "README.md").read_text("utf-8").split("```python\n")[1].split("```")[0]
    calls = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    call = next(node for node in calls if getattr(node.func, "id", "") == "pipeline")
    return {word.arg or "": ast.literal_eval(word.value) for word in call.keywords}


def painted_by_diffusers(folder: Path, noise: Tensor) -> Tensor:
    import diffusers

    said = (folder / "README.md").read_text("utf-8")
    missing = {part: None for part in ("text_encoder_3", "tokenizer_3") if f"{part}=None" in said}
    with quiet():
        pipeline = diffusers.DiffusionPipeline.from_pretrained(folder, **missing)
    pipeline.set_progress_bar_config(disable=True)
    settings = settings_on_card(folder)
    if "negative_prompt" in settings:
        settings["negative_prompt"] = [""] * len(PROMPTS)
    latents = to_diffusers.packed(noise) if "Flux" in type(pipeline).__name__ else noise
    pictures = pipeline(PROMPTS, latents=latents, output_type="pt", **settings).images
    return (pictures * 255).round()


def noise_of(painter: TextToImage) -> Tensor:
    shape = painter.space.shape(painter.config.size)
    return normal([derive(seed, "picture", 0) for seed in range(len(PROMPTS))], shape, CPU)


def test_diffusers_paints_our_picture_from_the_same_noise(exported: Path) -> None:
    painter = TextToImage.load(exported / "run", device="cpu")
    ours = painter.generate(PROMPTS).float()
    theirs = painted_by_diffusers(exported / "folder", noise_of(painter))
    assert ours.std() > 20
    assert (ours - theirs).abs().mean() < 0.1  # of 255


def imported(exported: Path, run: Path) -> int:
    family = json.loads((exported / "folder" / "model_index.json").read_text())["_class_name"]
    name = {"Flux": "flux", "Stab": "sd3", "PixA": "pixart"}[family[:4]]
    return main(["import", name, str(exported / "folder"), "--to", str(run)])


def test_the_folder_comes_back_as_a_run_that_paints_the_same(
    exported: Path, tmp_path: Path
) -> None:
    assert imported(exported, tmp_path / "run") == 0
    first, again = load_config(exported / "run"), load_config(tmp_path / "run")
    assert replace(again, space=first.space, text=first.text) == first
    paints = [TextToImage.load(place / "run", device="cpu") for place in (exported, tmp_path)]
    before, after = (painter.generate(PROMPTS).float() for painter in paints)
    assert (before - after).abs().mean() < 0.1


def test_a_folder_from_elsewhere_gets_the_published_settings(
    exported: Path, tmp_path: Path
) -> None:
    shutil.copytree(exported / "folder", tmp_path / "folder")
    (tmp_path / "folder" / "flowbrush.json").unlink()
    assert imported(tmp_path, tmp_path / "run") == 0
    first, again = load_config(exported / "run"), load_config(tmp_path / "run")
    assert again.backbone == replace(first.backbone, **_unsaid(again.backbone))
    assert again.sampling.shift == first.sampling.shift
    assert replace(again.flow, times=first.flow.times) == first.flow
    assert again.train.ema == (0.9999,)


def _unsaid(backbone: Any) -> dict[str, Any]:
    """What diffusers' settings do not hold: FLUX.1-dev's guidance is the caller's there."""
    return {"guidance": backbone.guidance} if isinstance(backbone, FluxConfig) else {}


def refused(config: ExperimentConfig, place: Path, **changes: Any) -> str:
    write_run(replace(config, **changes), place / "run")
    painter = TextToImage.load(place / "run", device="cpu", frozen=False)
    from flowbrush.experiment import build_shapes
    from flowbrush.interchange.export import Leaving, export_run

    shapes = build_shapes(painter.config, painter.space, painter.encoder)
    leaving = Leaving(painter.config, shapes, painter.denoiser.backbone, painter.encoder)
    with pytest.raises(UserError) as error:
        export_run(leaving, place / "folder")
    assert [path.name for path in place.iterdir()] == ["run"]
    return str(error.value)


def test_what_diffusers_cannot_say_is_refused_with_the_reason(
    models: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from flowbrush.flow.denoiser import FlowConfig
    from flowbrush.spaces import PixelConfig

    kinds = experiments(models)
    flux, sd3, pixart = (kinds[name] for name in ("flux", "sd3", "pixart"))
    masked_t5 = replace(flux.text, t5=replace(flux.text.t5, padding="masked"))
    per_channel = replace(flux.space, scale=(1.0, 2.0, 1.0, 1.0))
    little = replace(flux.sampling, scale=0.5)
    stochastic = replace(flux.sampling, method="sde_heun")
    three = replace(flux.sampling, guided_channels=3)
    refusals = [
        (flux, {"sampling": little}, "sampling.scale: 0.5; diffusers guides with more than 1"),
        (sd3, {"sampling": stochastic}, "sampling.method: 'sde_heun' stays here"),
        (pixart, {"sampling": three}, "sampling.guided_channels: set"),
        (flux, {"backbone": replace(flux.backbone, mask_text=True)}, "mask_text"),
        (flux, {"flow": FlowConfig(prediction="data")}, "flow.prediction: 'data'"),
        (flux, {"flow": FlowConfig(noise_scale=2.0)}, "flow.noise_scale: 2.0"),
        (flux, {"text": masked_t5}, "text.t5.padding: 'masked'"),
        (flux, {"space": PixelConfig()}, "space: pixels"),
        (flux, {"space": per_channel}, "for each channel"),
        (sd3, {"text": flux.text}, "two CLIPs and a T5"),
        (sd3, {"backbone": replace(sd3.backbone, time_scale=1000.0)}, "time_scale"),
        (pixart, {"backbone": replace(pixart.backbone, time_scale=1000.0)}, "time_scale"),
        (pixart, {"space": replace(pixart.space, mean=(0.3,))}, "space.mean: 0.3"),
        (pixart, {"text": replace(pixart.text, lowercase=False)}, "lowercase"),
    ]
    for config, changes, reason in refusals:
        told = refused(config, tmp_path_factory.mktemp("refused"), **changes)
        assert reason in told
        assert "\n" not in told


@pytest.mark.parametrize("table", [EULER, DPM_SOLVER, SETTINGS], ids=["euler", "dpm", "jit"])
def test_every_setting_of_sampling_is_accounted_for(table: dict[str, Any]) -> None:
    assert table.keys() == {field.name for field in fields(SamplingConfig)}


@pytest.mark.parametrize("method", ["heun", "midpoint", "rk4", "dopri5"])
def test_what_the_folder_has_in_place_of_a_setting_is_the_nearest_at_the_same_cost(
    method: Any,
) -> None:
    run = SamplingConfig(method=method, steps=25, scale=3.3, interval=(0.05, 0.95), last_gap=0.01)
    folder = in_folder(run, EULER)
    steps = {"heun": 50, "midpoint": 50, "rk4": 100, "dopri5": 50}[method]
    assert differences(run, folder) == {
        "method": (method, "euler"),
        "steps": (25, steps),
        "interval": ((0.05, 0.95), (0.0, 1.0)),
    }


def test_an_interval_without_guidance_is_no_difference() -> None:
    run = SamplingConfig(method="euler", scale=1.0, interval=(0.1, 0.9), interval_open_low=True)
    assert differences(run, in_folder(run, EULER)) == {}


@pytest.mark.parametrize(
    ("kind", "sampling"),
    [
        ("flux", {"method": "heun", "interval": (0.05, 0.95)}),
        ("sd3", {"method": "midpoint", "last_gap": None}),
        ("pixart", {"interval": (0.3, 0.7), "interval_open_low": True}),
        ("pixart of a diffusion", {"method": "euler"}),
    ],
)
def test_what_a_folder_does_otherwise_is_said_with_what_it_makes(
    kind: str, sampling: dict[str, Any], models: Path, tmp_path: Path, capsys: Any
) -> None:
    config = experiments(models)[kind]
    config = replace(config, sampling=replace(config.sampling, **sampling))
    write_run(config, tmp_path / "run")
    folder = tmp_path / "folder"
    assert main(["export", str(tmp_path / "run"), "--to", "diffusers", str(folder)]) == 0
    table = DPM_SOLVER if "diffusion" in kind else EULER
    other = differences(config.sampling, in_folder(config.sampling, table))
    assert other
    card, screen = (folder / "README.md").read_text("utf-8"), capsys.readouterr().out
    for text in (card, screen):
        for name, (before, now) in other.items():
            assert f"sampling.{name}: {before} in the run, {now} in the folder" in text
        figure = re.search(r"so one small image differs by (\S+) standard deviations", text)
        assert figure
        assert float(figure[1]) > to_diffusers.TOLERANCE
    assert "as its run does" not in card


def test_a_folder_that_paints_otherwise_is_not_finished(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = to_diffusers.to_theirs

    def spoilt(*given: Any) -> dict[str, Tensor]:
        weights = plain(*given)
        return weights | {"proj_out.bias": weights["proj_out.bias"] + 0.1}

    monkeypatch.setattr(to_diffusers, "to_theirs", spoilt)
    told = refused(experiments(models)["pixart"], tmp_path)
    assert "what diffusers samples from the folder differs by" in told


def test_a_folder_that_is_there_is_not_written_over(exported: Path, capsys: Any) -> None:
    command = ["export", str(exported / "run"), "--to", "diffusers", str(exported / "folder")]
    assert main(command) == 2
    assert "there already" in capsys.readouterr().err


def test_a_transformer_s_folder_without_its_config_is_named(exported: Path, tmp_path: Path) -> None:
    weights = next((exported / "folder" / "transformer").glob("*.safetensors"))
    (tmp_path / "transformer").mkdir()
    save_file(load_file(weights), tmp_path / "transformer" / weights.name)
    with pytest.raises(UserError, match=r"transformer: no config\.json in it"):
        import_run("flux", tmp_path, tmp_path / "run")
