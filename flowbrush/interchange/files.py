"""Weight files from elsewhere, read without running anything that is in them."""

import argparse
import json
import pickle
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from flowbrush.errors import UserError

INDEX_ENDING = ".safetensors.index.json"
SHARD = re.compile(r"-\d+-of-0*(\d+)\.(?:safetensors|bin)$")
LFS_POINTER = b"version https://git-lfs"


def read_weights(path: Path) -> dict[str, Any]:
    """What a file holds: `.safetensors`, a sharded one's index, or torch's (`.pt`, `.pth`, `.bin`).

    A torch file may hold tensors, plain values and an argparse.Namespace, nested in any way.
    Raises UserError where the file is missing, cut short, or wants to run code.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if shard := SHARD.search(path.name):
        raise UserError(
            f"{path}: one file of {int(shard[1])}; give their index, *{INDEX_ENDING}, which lies "
            "beside them"
        )
    with path.open("rb") as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            raise UserError(
                f"{path}: a pointer of Git LFS, not the weights; fetch with git lfs pull"
            )
    try:
        if path.name.endswith(INDEX_ENDING):
            return _read_shards(path)
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        with torch.serialization.safe_globals([argparse.Namespace]):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path}: {_refusal(error)}") from None
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: cut short or no weight file ({reason}); fetch it again") from None
    if not isinstance(loaded, dict):
        raise UserError(f"{path}: holds a {type(loaded).__name__}, where weights by name belong")
    return loaded


def _read_shards(index: Path) -> dict[str, Any]:
    try:
        names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
    except (RecursionError, TypeError, AttributeError):
        raise UserError(f"{index}: no index of weights; fetch it again") from None
    weights: dict[str, Any] = {}
    for name in names:
        if Path(name).name != name:
            raise UserError(f"{index}: lists {name!r}, outside of its folder; fetch it again")
        if not (index.parent / name).is_file():
            raise UserError(
                f"{index.parent / name}: missing, though {index.name} lists it; fetch it"
            )
        weights |= _load_shard(index.parent / name)
    return weights


def _load_shard(file: Path) -> dict[str, Any]:
    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{file}: cut short or no weight file ({error}); fetch it again") from None


def _refusal(error: pickle.UnpicklingError) -> str:
    if code := re.search(r"GLOBAL (\S+)", str(error)):
        return f"wants to run code ({code[1]}) when it is read; refused. Ask for it as .safetensors"
    return "cut short or no weight file; fetch it again"
