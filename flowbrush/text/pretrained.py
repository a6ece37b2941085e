"""Frozen models and tokenizers of Hugging Face's transformers, from a folder or from the hub.

A name on the hub may go on with a folder in it: `PixArt-alpha/PixArt-Sigma-XL-2-1024-MS/tokenizer`.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch

from flowbrush.errors import UserError

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
    where, inside = _found(place, ("config.json",), "config.json")
    with _reading(place):
        config = transformers.AutoConfig.from_pretrained(
            where, subfolder=inside, trust_remote_code=False
        )
    return config.model_type


def load_model(
    from_pretrained: Callable[..., Any], place: str, dtype: Precision, device: torch.device
) -> Any:
    """The model that `from_pretrained` of a transformers class reads, frozen. Safetensors alone.

    Raises UserError where the place, its files or a weight is missing, or the hub is out of reach.
    """
    where, inside = _found(place, ("*.safetensors",), "weights as .safetensors")
    with _reading(place):
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
    return model.to(device).eval().requires_grad_(False)


def load_tokenizer(place: str) -> Any:
    """Raises UserError where the place or its files are missing, or the hub is out of reach."""
    transformers = import_transformers()
    where, inside = _found(place, TOKENIZER_FILES, "tokenizer (tokenizer.json, ...)")
    with _reading(place):
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            where, subfolder=inside, trust_remote_code=False
        )
    # Where the files are missing, transformers may make up a tokenizer without any words.
    if tokenizer.unk_token_id in tokenizer("a", add_special_tokens=False).input_ids:
        raise UserError(f"text: {place} has no tokenizer that knows the letter a; give another")
    return tokenizer


def _found(place: str, files: tuple[str, ...], what: str) -> tuple[str, str]:
    """A folder and "", or a name on the hub and the folder inside it."""
    folder = Path(place).expanduser()
    if place and folder.is_dir():
        if not any(any(folder.glob(name)) for name in files):
            held = "; it has .bin, which may hold code" if any(folder.glob("*.bin")) else ""
            raise UserError(f"text: the folder {folder} has no {what}{held}; give one that has")
        return str(folder), ""
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)*", place):
        raise UserError(f"text: {place or 'an empty name'} is no folder; give one, or a hub's name")
    owner, *rest = place.split("/")
    return "/".join([owner, *rest[:1]]), "/".join(rest[1:])


@contextmanager
def _reading(place: str) -> Iterator[None]:
    """One line for whatever goes wrong. While the hub sends something, its bars are shown."""
    with quiet(bars=not Path(place).expanduser().is_dir()):
        try:
            yield
        except Exception as error:  # of any kind: a broken file's is up to its reader
            raise UserError(f"text: {place} {_reason(error)}") from None


@contextmanager
def quiet(bars: bool = False) -> Iterator[None]:
    """Without the remarks of transformers and of the hub, and without bars of progress."""
    from huggingface_hub.utils import logging as hub
    from transformers.utils import logging

    before, before_hub = logging.get_verbosity(), hub.get_verbosity()
    logging.set_verbosity_error()
    hub.set_verbosity_error()
    if hidden := logging.is_progress_bar_enabled() and not bars:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        hub.set_verbosity(before_hub)
        if hidden:
            logging.enable_progress_bar()


def _reason(error: BaseException) -> str:
    from huggingface_hub import errors

    causes = [error]
    while cause := causes[-1].__cause__ or causes[-1].__context__:
        causes.append(cause)
    for cause in causes:
        if isinstance(cause, errors.GatedRepoError):
            return "is closed: accept its terms on huggingface.co, then run `hf auth login`"
        if isinstance(cause, errors.RepositoryNotFoundError):
            return "is no folder here and no name on huggingface.co (or a private one)"
        if isinstance(cause, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
            return (
                "is no folder here, and huggingface.co is out of reach; "
                "download it elsewhere and give its folder"
            )
    first = str(error).strip().partition("\n")[0]
    if "use_safetensors" in first:  # advice not to insist on them
        return "has no weights as .safetensors; give a name or a folder that has"
    return f"cannot be read ({first or type(error).__name__})"
