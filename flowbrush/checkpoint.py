"""Checkpoints: a dict of named states in a folder of its own, written aside and renamed when whole.

    checkpoints/000085120/{model,ema_0.998}.safetensors, optimizer.pt, progress.json, manifest.json

The manifest holds the SHA-256 of each file. A reader takes the newest folder that agrees with its
manifest, so a crash, a full disk or a flipped bit costs only the steps since the one before.
"""

import errno
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from flowbrush.errors import UserError

MANIFEST = "manifest.json"


@runtime_checkable
class Stateful(Protocol):
    """What a checkpoint can hold."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


def save(
    folder: Path, pictures: int, states: Mapping[str, Mapping[str, Any]], keep: int | None
) -> Path:
    """Write `states` as the checkpoint at `pictures` seen, then delete all but the newest `keep`.

    keep: None = all up to this one.
    A state of tensors becomes `.safetensors`, one of plain values `.json`, any other `.pt`.
    Raises UserError where the disk is full; what was there before is then untouched.
    """
    aside = folder / f".aside-{pictures:012d}"
    _clear_leftovers(folder)
    try:
        aside.mkdir(parents=True)
        names = [_write(aside, name, state) for name, state in states.items()]
        manifest = {name: sha256(aside / name) for name in names}
        (aside / MANIFEST).write_text(json.dumps(manifest, indent=2), "utf-8")
        for name in [*names, MANIFEST]:
            sync(aside / name)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        if _is_full(error):
            raise UserError(
                f"{folder}: no space left on the disk; nothing was half-written. "
                "Free some, then go on from the last checkpoint"
            ) from None
        raise
    whole = folder / f"{pictures:012d}"
    shutil.rmtree(whole, ignore_errors=True)  # damaged, or this very step again
    aside.rename(whole)
    sync(folder)
    earlier = [found for found in _all(folder) if int(found.name) <= pictures]
    for found in _all(folder):
        if found not in earlier[:keep]:  # old, or later than this one and so damaged
            shutil.rmtree(found)
    return whole


def newest(folder: Path, say: Callable[[str], None]) -> Path:
    """The newest checkpoint whose files agree with its manifest; `say` is told of each damaged one.

    Raises UserError where there is none.
    """
    for found in whole(folder, say):
        return found
    raise UserError(
        f"{folder}: no whole checkpoint in it; train the run first, or delete the folder to "
        "start anew"
    )


def whole(folder: Path, say: Callable[[str], None]) -> Iterator[Path]:
    """The checkpoints that agree with their manifests, newest first; `say` is told of the rest."""
    for found in _all(folder):
        damage = _damage(found)
        if damage is None:
            yield found
        else:
            say(f"{found}: damaged ({damage}); going without it")


def exists(folder: Path) -> bool:
    """Whether there is any checkpoint, whole or not."""
    return bool(_all(folder))


def load(checkpoint: Path, name: str, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The state of that name, as given to `save`. Only tensors and plain values are unpickled."""
    if (path := checkpoint / f"{name}.safetensors").exists():
        return load_file(path, device=str(device))
    if (path := checkpoint / f"{name}.json").exists():
        return dict(json.loads(path.read_text("utf-8")))
    if (path := checkpoint / f"{name}.pt").exists():
        return dict(torch.load(path, map_location=device, weights_only=True))
    raise UserError(
        f"{checkpoint}: no state '{name}' in it; there are {', '.join(sorted(names(checkpoint)))}"
    )


def check_fits(weights: Mapping[str, Tensor], network: nn.Module, told: str) -> None:
    """Raises UserError, which begins with `told`, where a name or a shape is not the network's."""
    own = network.state_dict()
    for name in sorted(weights.keys() | own.keys()):
        there, here = (part[name].shape if name in part else None for part in (weights, own))
        if there != here:
            raise UserError(f"{told}: {name} is {_said(there)} there and {_said(here)} here")


def _said(shape: torch.Size | None) -> str:
    return "missing" if shape is None else str(tuple(shape))


def names(checkpoint: Path) -> set[str]:
    """The names of the states in a checkpoint."""
    listed = json.loads((checkpoint / MANIFEST).read_text("utf-8"))
    return {name.rsplit(".", 1)[0] for name in listed}


def _all(folder: Path) -> list[Path]:
    """Every finished checkpoint folder, newest first."""
    found = [p for p in folder.glob("*") if p.name.isdigit() and p.is_dir()]
    return sorted(found, key=lambda p: int(p.name), reverse=True)


def _clear_leftovers(folder: Path) -> None:
    for leftover in folder.glob(".aside-*"):
        shutil.rmtree(leftover)


def _write(aside: Path, name: str, state: Mapping[str, Any]) -> str:
    if all(isinstance(value, Tensor) for value in state.values()):
        save_file({k: v.contiguous() for k, v in state.items()}, aside / f"{name}.safetensors")
        return f"{name}.safetensors"
    if _is_plain(state):
        (aside / f"{name}.json").write_text(
            json.dumps(state, indent=2, ensure_ascii=False), "utf-8"
        )
        return f"{name}.json"
    encoded = (
        io.BytesIO()
    )  # torch.save into a full disk raises what cannot be told from other errors
    torch.save(dict(state), encoded)
    (aside / f"{name}.pt").write_bytes(encoded.getbuffer())
    return f"{name}.pt"


def _is_plain(value: Any) -> bool:
    """Whether JSON gives the value back as it is."""
    if isinstance(value, Mapping):
        return all(isinstance(k, str) and _is_plain(v) for k, v in value.items())
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int | float)


def _damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_text("utf-8"))
        if not manifest:
            return "its manifest names no files"
        for name, digest in manifest.items():
            if sha256(checkpoint / name) != digest:
                return f"{name} is not as it was written"
    except (OSError, ValueError, AttributeError) as error:
        return f"unreadable: {error}"
    return None


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Wait until the file or folder is on disk, so that no power cut puts it after the rename."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_full(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return "no space left" in str(error).lower()  # safetensors has no number for it
