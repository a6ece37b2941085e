"""A published network as it is found on a disk: weights, and what stands beside them."""

import json
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from flowbrush.errors import UserError
from flowbrush.experiment import ExperimentConfig
from flowbrush.interchange.files import INDEX_ENDING, read_weights
from flowbrush.interchange.networks import Networks, find_networks
from flowbrush.interchange.rules import Weights


class Imported(NamedTuple):
    """An experiment and its checkpoint's states.

    origins: where its settings are from, by dotted name. notes: what is not followed, for the user.
    """

    config: ExperimentConfig
    weights: dict[str, Weights]
    origins: dict[str, str]
    notes: list[str]


@dataclass(frozen=True)
class Choices:
    """What weights do not say."""

    classes: Path | None = None
    """a data set of a folder a class, whose names the labels take in order; numbers if left out"""
    heads: int | None = None
    """attention heads of a DiT or SiT; by its width if left out"""
    size: int | None = None
    """of the pictures, in pixels; the published one if left out"""
    vae: str = ""
    """autoencoder: a folder or a name on the hub; beside the weights, or as published"""
    clip: str = ""
    """text model, the same; for SD3 the smaller CLIP"""
    clip_g: str = ""
    """text model, the same; for SD3 the larger CLIP"""
    t5: str = ""
    """text model, the same"""


@dataclass(frozen=True)
class Published:
    """What was read.

    contents: of the file, as its trainer wrote it. networks: those in it, without their wrappers.
    settings: of diffusers' config.json, if there is one. pipeline: the folder of diffusers' whole
    pipeline, if it is one.
    """

    path: Path
    contents: dict[str, Any]
    networks: Networks
    settings: dict[str, Any] | None = None
    pipeline: Path | None = None

    @property
    def model(self) -> Weights:
        return self.networks.model

    def averages(self, count: int) -> list[Weights]:
        """So many averages; where the file has fewer, its last one or the model stands for them."""
        found = list(self.networks.averages.values()) or [self.model]
        return [found[min(i, len(found) - 1)] for i in range(count)]

    def config(self, family: str) -> dict[str, Any]:
        """The settings. Raises UserError where there are none."""
        if self.settings is None:
            raise UserError(
                f"{self.path}: no config.json beside it; give the folder that diffusers writes for "
                f"{family}, with its transformer"
            )
        return self.settings

    def part(self, name: str, file: str) -> dict[str, Any]:
        """Settings of another part of the pipeline, such as its scheduler; empty if missing."""
        place = None if self.pipeline is None else self.pipeline / name / file
        return _json(place) if place is not None and place.is_file() else {}

    def place(self, name: str, chosen: str, known: str) -> str:
        """Where a part is: the chosen place, a folder of the pipeline, or else the known one."""
        if chosen or self.pipeline is None or not (self.pipeline / name).is_dir():
            return chosen or known
        return str((self.pipeline / name).resolve())


def read_published(path: Path) -> Published:
    """A file of weights, or a folder that diffusers wrote: of a pipeline, or of its transformer.

    Raises UserError where nothing can be read there.
    """
    if not path.is_dir():
        beside = path.parent / "config.json"
        settings = _json(beside) if path.name.endswith("rs") and beside.is_file() else None
        return _found(path, path, settings)
    inside = path / "transformer"
    folder = inside if inside.is_dir() else path
    if not (folder / "config.json").is_file():
        raise UserError(
            f"{folder}: no config.json in it; fetch the whole folder, as diffusers writes it"
        )
    file, settings = _weights_file(folder), _json(folder / "config.json")
    pipeline = next((f for f in (path, path.parent) if (f / "model_index.json").is_file()), None)
    return _found(path, file, settings, pipeline)


def _found(
    path: Path, file: Path, settings: dict[str, Any] | None, pipeline: Path | None = None
) -> Published:
    contents = read_weights(file)
    return Published(path, contents, find_networks(contents, str(file)), settings, pipeline)


def _weights_file(folder: Path) -> Path:
    """Sharded or not; a variant such as `.fp16` only where there is nothing else."""
    found = [*folder.glob(f"*{INDEX_ENDING}"), *folder.glob("*.safetensors")]
    found = found or [*folder.glob("*.bin")]
    if not found:
        raise UserError(f"{folder}: no .safetensors in it; fetch the whole folder")
    return min(found, key=lambda file: (not file.name.endswith(INDEX_ENDING), len(file.name)))


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (ValueError, UnicodeDecodeError):
        found = None
    if not isinstance(found, dict):
        raise UserError(f"{path}: no JSON object in it; fetch it again")
    return found


def network_settings(
    published: Mapping[str, Any], defaults: Mapping[str, Any], what: str, idle: Container[str] = ()
) -> dict[str, Any]:
    """A network's settings in diffusers' config.json, and `defaults` for those it does not name.

    idle: those without effect. Raises UserError, which begins with `what`, for any other: a later
    network may follow it, and would give other images.
    """
    for name, value in published.items():
        if name not in defaults and name not in idle and not name.startswith("_"):
            raise UserError(
                f"{what}: {name} is {value!r}, which is not followed; if that network needs it, it "
                "cannot be imported, otherwise remove it"
            )
    return {**defaults, **published}


def class_names(folder: Path | None, count: int) -> tuple[str, ...]:
    """The folders of a data set, in order; the classes' numbers where no folder is given.

    Raises UserError where they are not as many as the weights have.
    """
    if folder is None:
        return tuple(map(str, range(count)))
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give one with a folder a class")
    found = tuple(sorted(p.name for p in folder.iterdir() if p.is_dir()))
    if len(found) != count:
        raise UserError(f"{folder}: {len(found)} class folders, the weights have {count} classes")
    return found


def compression(vae: str, otherwise: int = 8) -> int:
    """Pixels along a latent's side, of an autoencoder in a folder; of one elsewhere `otherwise`."""
    settings = Path(vae) / "config.json"
    if not settings.is_file():
        return otherwise
    widths = _json(settings).get("block_out_channels", [0] * 4)
    return 2 ** (len(widths) - 1)
