"""What stands around the network, built without weights: text models, autoencoder, their sizes."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from flowbrush.data.mixture import configs_of, sources_of
from flowbrush.data.prepared import Prepared, PreparedConfig
from flowbrush.data.source import Source
from flowbrush.errors import UserError
from flowbrush.experiment import ExperimentConfig
from flowbrush.hub import located, reading
from flowbrush.plan.flops import META, counted
from flowbrush.plan.known import AUTOENCODERS, TEXT_MODELS
from flowbrush.shapes import ConditionShapes, Shapes
from flowbrush.spaces import LatentConfig
from flowbrush.spaces.autoencoders import FIELD, HELD, KINDS, import_diffusers
from flowbrush.spaces.latent import DTYPES, LatentSpace
from flowbrush.text import (
    CLIPConfig,
    FluxTextConfig,
    LabelsConfig,
    LLMConfig,
    MiniLMConfig,
    SD3TextConfig,
    SentenceConfig,
    T5Config,
    TextConfig,
)
from flowbrush.text.joined import T5_TOKENS
from flowbrush.text.pretrained import import_transformers
from flowbrush.text.sentence import WIDTH
from flowbrush.text.t5 import CLASSES as T5_CLASSES

ASSUMED_CLASSES = 1_000


@dataclass(frozen=True)
class Frozen:
    """A model beside the network, that learns nothing."""

    name: str
    weights: int | None = None  # None = not counted
    size: int = 0  # bytes on the device
    flops: int | None = None  # of a picture or its caption, while training; None = not counted


@dataclass(frozen=True)
class Surroundings:
    """What the network meets. remarks: what had to be assumed."""

    shapes: Shapes
    frozen: tuple[Frozen, ...]
    remarks: tuple[str, ...]


def surroundings(config: ExperimentConfig, source: Source | None) -> Surroundings:
    """Of a recipe. source: None where it cannot be read here.

    Raises UserError where a model's sizes are neither known nor to be had.
    """
    prepared = any(isinstance(one, PreparedConfig) for one in configs_of(config.source))
    frozen: list[Frozen] = []
    remarks: list[str] = []
    if prepared and source is not None:
        first = sources_of(source)[0]
        assert isinstance(first, Prepared)
        given = first.manifest.condition
    elif isinstance(config.text, LabelsConfig):
        labels = len(config.text.names or (source.classes if source else ()))
        if not labels:
            labels = ASSUMED_CLASSES
            remarks.append(f"the classes cannot be counted here: taken for {labels:,}")
        given = ConditionShapes(labels=labels)
    else:
        given, frozen = _text(config.text)
    shape = (3, config.size, config.size)
    if isinstance(config.space, LatentConfig):
        space = _space(config.space)
        shape, model = space.shape(config.size), space.autoencoder
        size = _weights(model) * DTYPES[config.space.dtype].itemsize
        flops = 0 if prepared else _encoding(space, config.size)
        frozen.append(Frozen(f"autoencoder {config.space.model}", _weights(model), size, flops))
    if prepared:
        remarks.append("prepared: no text model is in memory, and nothing is encoded")
    shapes = Shapes(channels=shape[0], height=shape[1], width=shape[2], condition=given)
    return Surroundings(shapes, tuple(frozen), tuple(remarks))


def _text(text: TextConfig) -> tuple[ConditionShapes, list[Frozen]]:
    match text:
        case SentenceConfig():
            shapes = ConditionShapes(
                text_width=WIDTH, text_tokens=1 + text.words, pooled_width=WIDTH
            )
            return shapes, [Frozen("sentence encoder, on the host")]
        case MiniLMConfig():
            encoder = text.build(torch.device("cpu"))
            model = encoder._models[0]._model  # type: ignore[attr-defined]
            flops = _reading(model.to(META), text.tokens)
            return encoder.shapes, [_frozen("MiniLM", model, 4, flops)]
        case CLIPConfig():
            model = _clip(text)
            width = model.config.hidden_size
            pooled = model.config.projection_dim if text.projected else width
            shapes = ConditionShapes(text_width=width, text_tokens=text.tokens, pooled_width=pooled)
            return shapes, [_of(text, model)]
        case T5Config():
            model = _t5(text)
            width = model.get_input_embeddings().embedding_dim
            return ConditionShapes(text_width=width, text_tokens=text.tokens), [_of(text, model)]
        case LLMConfig():
            transformers = import_transformers()
            with META:
                model = transformers.AutoModel.from_config(_settings(text.model))
            width = model.config.hidden_size
            pooled = width if text.pooled == "mean" else None
            shapes = ConditionShapes(text_width=width, text_tokens=text.tokens, pooled_width=pooled)
            return shapes, [_of(text, model)]
        case FluxTextConfig():
            (clip, first), (t5, second) = _text(text.clip), _text(text.t5)
            return replace(t5, pooled_width=clip.pooled_width), first + second
        case SD3TextConfig():
            return _sd3(text)
    raise UserError(f"text: {type(text).__name__} is not known to a plan")


def _sd3(text: SD3TextConfig) -> tuple[ConditionShapes, list[Frozen]]:
    (small, first), (large, second) = _text(text.clip_l), _text(text.clip_g)
    padded = T5_TOKENS if text.clip_l.padding == "attended" else 0
    t5 = ConditionShapes(text_width=text.width, text_tokens=padded)
    third: list[Frozen] = []
    if text.t5:
        t5, third = _text(text.t5)
    shapes = ConditionShapes(
        text_width=t5.text_width,
        text_tokens=max(small.text_tokens or 0, large.text_tokens or 0) + (t5.text_tokens or 0),
        pooled_width=(small.pooled_width or 0) + (large.pooled_width or 0),
    )
    return shapes, first + second + third


def _clip(text: CLIPConfig) -> Any:
    settings = _settings(text.model)
    settings = getattr(settings, "text_config", settings)
    cls = "CLIPTextModelWithProjection" if text.projected else "CLIPTextModel"
    with META:
        return getattr(import_transformers(), cls)(settings)


def _t5(text: T5Config) -> Any:
    settings = _settings(text.model)
    if settings.model_type not in T5_CLASSES:
        known = ", ".join(T5_CLASSES)
        raise UserError(f"text: {text.model} is a {settings.model_type}, not one of {known}")
    settings.is_encoder_decoder = False
    with META:
        return getattr(import_transformers(), T5_CLASSES[settings.model_type])(settings)


def _settings(place: str) -> Any:
    """What config.json says: of a folder, of a known model, or of the hub.

    Raises UserError where it cannot be had.
    """
    transformers = import_transformers()
    if not Path(place).expanduser().is_dir() and place in TEXT_MODELS:
        known = dict(TEXT_MODELS[place])
        return transformers.AutoConfig.for_model(known.pop("model_type"), **known)
    where, inside = located(place, ("config.json",), "config.json", "text")
    with reading(place, "text"):
        return transformers.AutoConfig.from_pretrained(
            where, subfolder=inside, trust_remote_code=False
        )


def _of(text: CLIPConfig | T5Config | LLMConfig, model: Any) -> Frozen:
    size = 2 if text.dtype == "bf16" else 4
    return _frozen(text.model, model, size, _reading(model, text.tokens))


def _frozen(name: str, model: nn.Module, size: int, flops: int) -> Frozen:
    weights = _weights(model)
    return Frozen(f"text model {name}", weights, size * weights, flops)


def _reading(model: Any, tokens: int) -> int:
    """FLOPs of one caption of so many tokens."""
    numbers, given = torch.zeros(1, tokens, dtype=torch.long, device=META), {}
    if model.config.model_type.startswith("t5gemma"):  # it would look which tokens are padding
        given["attention_mask"] = {"full_attention": None, "sliding_attention": None}
    return counted(lambda: model(input_ids=numbers, **given))


def _space(config: LatentConfig) -> LatentSpace:
    diffusers, settings = import_diffusers(), AUTOENCODERS.get(config.model)
    if Path(config.model).expanduser().is_dir() or settings is None:
        place, subfolder = located(config.model, ("config.json",), HELD, FIELD)
        with reading(config.model, FIELD):
            settings = diffusers.AutoencoderKL.load_config(place, subfolder=subfolder or None)
    if (kind := settings.get("_class_name")) not in KINDS:
        raise UserError(f"{FIELD}: {config.model} is of kind {kind}; known are {', '.join(KINDS)}")
    with META:
        model = getattr(diffusers, kind).from_config(settings)
    return LatentSpace(model, replace(config, decode_device=""), META)


def _encoding(space: LatentSpace, size: int) -> int:
    """FLOPs of one picture."""
    x = torch.zeros(1, 3, size, size, device=META, dtype=space.dtype)
    return counted(lambda: space.autoencoder.encode(x, return_dict=False))


def _weights(model: nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())
