"""Frozen models and tokenizers of Hugging Face's transformers, from a folder or from the hub."""

from collections.abc import Callable
from typing import Any, Literal

import torch

from flowbrush.errors import UserError
from flowbrush.finite import check_finite
from flowbrush.hub import located, reading

Precision = Literal["fp32", "bf16"]

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "spiece.model", "tokenizer.model")


def import_transformers() -> Any:
    """Raises UserError where it is not installed."""
    try:
        import transformers
    except ImportError:
        raise UserError("text: transformers is missing; pip install 'flowbrush[hf]'") from None
    return transformers


def model_type(place: str) -> str:
    """What a model's config.json says that it is: clip, t5, t5gemma, ...

    Raises UserError where the place or the file is missing, or the hub is out of reach.
    """
    transformers = import_transformers()
    where, inside = located(place, ("config.json",), "config.json", "text")
    with reading(place, "text"):
        config = transformers.AutoConfig.from_pretrained(
            where, subfolder=inside, trust_remote_code=False
        )
    return config.model_type


def load_model(
    from_pretrained: Callable[..., Any], place: str, dtype: Precision, device: torch.device
) -> Any:
    """The model that `from_pretrained` of a transformers class reads, frozen. Safetensors alone.

    Raises UserError where the place, its files or a weight is missing or not finite, or the hub is
    out of reach.
    """
    where, inside = located(place, ("*.safetensors",), "weights as .safetensors", "text")
    with reading(place, "text"):
        model, report = from_pretrained(
            where,
            subfolder=inside,
            dtype=DTYPES[dtype],
            use_safetensors=True,
            output_loading_info=True,
        )
    if missing := sorted(report["missing_keys"]):  # transformers only warns, and draws them
        raise UserError(
            f"text: {place} lacks {len(missing)} weights of a {type(model).__name__} "
            f"({missing[0]} ...); it is another kind of model, or was not fetched whole"
        )
    model.to(device)
    check_finite(model.state_dict(), f"text: {place}")
    return model.eval().requires_grad_(False)


def load_tokenizer(place: str) -> Any:
    """Raises UserError where the place or its files are missing, or the hub is out of reach."""
    transformers = import_transformers()
    where, inside = located(place, TOKENIZER_FILES, "tokenizer (tokenizer.json, ...)", "text")
    with reading(place, "text"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            where, subfolder=inside, trust_remote_code=False
        )
    # Where the files are missing, transformers may make up a tokenizer without any words.
    if tokenizer.unk_token_id in tokenizer("a", add_special_tokens=False).input_ids:
        raise UserError(f"text: {place} has no tokenizer that knows the letter a; give another")
    return tokenizer
