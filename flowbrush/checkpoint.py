"""Checkpoints: a dict of named states in a folder of its own, written aside and renamed when whole.

    checkpoints/000085120/{model,ema_0.998,optimizer}.safetensors, progress.json, manifest.json

Of a network in shards each process writes its rows: model.part-1-of-2.safetensors and so on. The
manifest holds the SHA-256 of each file. A reader takes the newest folder that agrees with its
manifest, so a crash, a full disk or a flipped bit costs only the steps since the one before.
"""

import errno
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from flowbrush.config_io import as_text
from flowbrush.errors import UserError
from flowbrush.finite import check_finite
from flowbrush.sharding import Rows, own, rows
from flowbrush.whole_files import sync

MANIFEST, ASIDE = "manifest.json", ".aside-"
State = Mapping[str, Any]  # tensors, or else plain values
FILE = re.compile(r"(?P<state>.+?)(\.part-(?P<part>\d+)-of-\d+)?\.(safetensors|json)")


def save(folder: Path, pictures: int, states: Mapping[str, State], keep: int | None) -> Path:
    """Write `states` as the checkpoint at `pictures` seen, then delete all but the newest `keep`.

    keep: None = all up to this one.
    A state of tensors becomes `.safetensors`, one of plain values `.json`.
    Raises UserError where the disk is full; what was there before is then untouched.
    """
    aside = begin(folder, pictures)
    with _abandoned_otherwise(aside):
        digests = write(aside, states)
    return finish(aside, digests, keep)


def begin(folder: Path, pictures: int) -> Path:
    """An empty folder for the files of a checkpoint, which `finish` makes one or `abandon` undoes.

    Raises UserError where the disk is full, as `write` and `finish` do.
    """
    for leftover in folder.glob(f"{ASIDE}*"):
        abandon(leftover)
    aside = folder / f"{ASIDE}{pictures:012d}"
    with _told_of_a_full_disk(folder):
        aside.mkdir(parents=True)
    return aside


def write(aside: Path, states: Mapping[str, State]) -> dict[str, str]:
    """Write each state, and wait until it is on the disk; the SHA-256 of each file, by its name."""
    with _told_of_a_full_disk(aside.parent):
        files = [_write(aside, name, state) for name, state in states.items()]
        for file in files:
            sync(file)
        return {file.name: sha256(file) for file in files}


def finish(aside: Path, digests: Mapping[str, str], keep: int | None) -> Path:
    """Make a checkpoint of the files that were written; delete all but the newest `keep`."""
    folder, whole = aside.parent, aside.parent / aside.name.removeprefix(ASIDE)
    with _abandoned_otherwise(aside), _told_of_a_full_disk(folder):
        (aside / MANIFEST).write_text(json.dumps(digests, indent=2), "utf-8")
        sync(aside / MANIFEST)
    shutil.rmtree(whole, ignore_errors=True)  # damaged, or this very step again
    aside.rename(whole)
    sync(folder)
    earlier = [found for found in _all(folder) if int(found.name) <= int(whole.name)]
    for found in _all(folder):
        if found not in earlier[:keep]:  # old, or later than this one and so damaged
            shutil.rmtree(found)
    return whole


def abandon(aside: Path) -> None:
    """Leave nothing of a checkpoint that was begun."""
    shutil.rmtree(aside, ignore_errors=True)


def copy(found: Path, folder: Path) -> Path:
    """The checkpoint `found` again, as the first of another run's folder.

    Raises UserError where the disk is full.
    """
    digests = json.loads((found / MANIFEST).read_text("utf-8"))
    aside = begin(folder, int(found.name))
    with _abandoned_otherwise(aside), _told_of_a_full_disk(folder):
        for name in digests:
            shutil.copyfile(found / name, aside / name)
            sync(aside / name)
    return finish(aside, digests, keep=None)


def own_part(name: str, state: State, main: bool) -> dict[str, State]:
    """What this process is to write of a state, copied into the host's memory, by its file's name.

    Of a state in shards its rows. The main process alone writes what is in no shards.
    """
    places = {key: rows(value) for key, value in state.items() if isinstance(value, Tensor)}
    place = max(places.values(), key=lambda place: place.parts, default=Rows())
    if place.copy or (place.parts == 1 and not main):
        return {}
    mine = {
        key: own(value).to("cpu", copy=True) if isinstance(value, Tensor) else value
        for key, value in state.items()
        if place.part == 0 or places[key].parts > 1
    }
    part = f".part-{place.part + 1}-of-{place.parts}" if place.parts > 1 else ""
    return {f"{name}{part}": mine}


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


def pictures_seen(folder: Path) -> int:
    """At the newest checkpoint, whole or not; 0 where there is none."""
    return max((int(found.name) for found in _all(folder)), default=0)


def load(checkpoint: Path, name: str, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The whole state of that name, as given to `save`.

    Raises UserError where the checkpoint has none.
    """
    files = _files(checkpoint, name)
    if files[0].suffix == ".json":
        return dict(json.loads(files[0].read_text("utf-8")))
    parts = [load_file(file, device=str(device)) for file in files]
    found = {key: [part[key] for part in parts if key in part] for key in parts[0]}
    return {key: of[0] if len(of) == 1 else torch.cat(of) for key, of in found.items()}


def fill(checkpoint: Path, name: str, state: Mapping[str, Tensor], told: str) -> None:
    """Read into `state` what it had when it was saved, by however many processes, row by row.

    Raises UserError where a name or a shape is another one, which begins with `told`, and where
    numbers are not finite.
    """
    with ExitStack() as opened:
        stored: dict[str, list[Any]] = {}  # the parts of each tensor, unread
        for path in _files(checkpoint, name):
            file = opened.enter_context(safe_open(path, "pt"))
            for key in file.keys():  # noqa: SIM118 - it is no mapping
                stored.setdefault(key, []).append(file.get_slice(key))
        _check_shapes({key: _shape(parts) for key, parts in stored.items()}, _shapes(state), told)
        for key, tensor in state.items():
            _fill(own(tensor), stored[key], rows(tensor).first)
    check_finite({key: own(tensor) for key, tensor in state.items()}, f"{checkpoint}: {name}")


def _shape(parts: Sequence[Any]) -> torch.Size:
    shapes = [part.get_shape() for part in parts]
    return torch.Size([sum(shape[0] for shape in shapes), *shapes[0][1:]] if shapes[0] else [])


@torch.no_grad()
def _fill(mine: Tensor, parts: Sequence[Any], first: int) -> None:
    """The rows from `first` on, out of parts that lie one after the other."""
    if mine.ndim == 0:
        mine.copy_(parts[0][...])
        return
    start = -first
    for part in parts:
        end = start + part.get_shape()[0]
        low, high = max(start, 0), min(end, len(mine))
        if low < high:
            mine[low:high] = part[low - start : high - start]
        start = end


def check_fits(weights: Mapping[str, Tensor], network: nn.Module, told: str) -> None:
    """Raises UserError, which begins with `told`, where a name or a shape is not the network's."""
    _check_shapes(_shapes(weights), _shapes(network.state_dict()), told)


def _shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {key: tensor.shape for key, tensor in state.items()}


def _check_shapes(
    there: Mapping[str, torch.Size], here: Mapping[str, torch.Size], told: str
) -> None:
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            pair = _said(there.get(name)), _said(here.get(name))
            raise UserError(f"{told}: {name} is {pair[0]} there and {pair[1]} here")


def _said(shape: torch.Size | None) -> str:
    return "missing" if shape is None else str(tuple(shape))


def names(checkpoint: Path) -> set[str]:
    """The names of the states in a checkpoint."""
    return {found["state"] for found in _listed(checkpoint)}


def _files(checkpoint: Path, name: str) -> list[Path]:
    """Those of a state, its parts in their order."""
    found = [file for file in _listed(checkpoint) if file["state"] == name]
    if not found:
        known = ", ".join(sorted(names(checkpoint)))
        raise UserError(f"{checkpoint}: no state '{name}' in it; there are {known}")
    found.sort(key=lambda file: int(file["part"] or 0))
    return [checkpoint / file.string for file in found]


def _listed(checkpoint: Path) -> list[re.Match[str]]:
    """The files that the manifest names, and that are of a known kind."""
    listed = json.loads((checkpoint / MANIFEST).read_text("utf-8"))
    return [found for file in listed if (found := FILE.fullmatch(file))]


def _all(folder: Path) -> list[Path]:
    """Every finished checkpoint folder, newest first."""
    found = [p for p in folder.glob("*") if p.name.isdigit() and p.is_dir()]
    return sorted(found, key=lambda p: int(p.name), reverse=True)


def _write(aside: Path, name: str, state: State) -> Path:
    if state and all(isinstance(value, Tensor) for value in state.values()):
        path = aside / f"{name}.safetensors"
        save_file({k: v.contiguous() for k, v in state.items()}, path)
        return path
    path = aside / f"{name}.json"
    path.write_bytes(as_text(state))
    return path


@contextmanager
def _abandoned_otherwise(aside: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        abandon(aside)
        raise


@contextmanager
def _told_of_a_full_disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        if not _is_full(error):
            raise
        raise UserError(
            f"{folder}: no space left on the disk; nothing was half-written. "
            "Free some, then go on from the last checkpoint"
        ) from None


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


def _is_full(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return "no space left" in str(error).lower()  # safetensors has no number for it
