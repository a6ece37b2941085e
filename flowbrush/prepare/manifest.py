"""What is to be prepared, written before anything is; and what was, written at the end."""

import hashlib
import json
import sys
from dataclasses import fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from flowbrush import config_io
from flowbrush.data.changes import WRITTEN_AGAIN, changed
from flowbrush.data.prepared import (
    MANIFEST_FILE,
    Manifest,
    Shard,
    conditions_metadata,
    shard_path,
)
from flowbrush.data.provenance import provenance
from flowbrush.data.source import Source, UnreadablePicture
from flowbrush.errors import UserError
from flowbrush.experiment import ExperimentConfig
from flowbrush.prepare.shards import Record, record_path
from flowbrush.randomness import derive
from flowbrush.shapes import ConditionShapes
from flowbrush.spaces import PixelConfig
from flowbrush.whole_files import write_whole

SAMPLED = 64  # examples that a source is known by
COMPARED_APART = {"provenance"}
KNOWN_AT_THE_END = {"complete", "samples", "broken", "digest", "latents", "condition"}


def plan(config: ExperimentConfig, source: Source, shard: int) -> Manifest:
    """What preparing `config` will make, as far as it is known without any model."""
    pixels = isinstance(config.space, PixelConfig)  # whose mirror costs nothing while training
    return Manifest(
        size=config.size,
        space=config_io.to_json(config.space),
        text=config_io.to_json(config.text),
        source=config_io.to_json(config.source),
        examples=len(source),
        fingerprint=fingerprint(source),
        classes=source.classes,
        attribution=source.attribution,
        shard=shard,
        mirrored=config.batch.flip and not pixels,
        versions=_versions(),
        dtypes={"latents": "uint8" if pixels else "fp16", "text": "bf16"},
        provenance=provenance(config.source, source),
    )


def fingerprint(source: Source) -> str:
    """SHA-256 over the pictures and captions of some examples, always the same ones."""
    digest, n = hashlib.sha256(), len(source)
    for i in [0, n - 1, *(derive(n, "fingerprint", j) % n for j in range(SAMPLED))]:
        try:
            example = source[i]
        except UnreadablePicture:
            digest.update(b"broken")
        else:
            digest.update(example.picture.tobytes())
            digest.update(json.dumps(dict(example.captions)).encode())
    return digest.hexdigest()


def opened(folder: Path, planned: Manifest, source: Source) -> Manifest:
    """The manifest in the folder: `planned`, where there was none.

    Raises UserError where what is there was planned otherwise, or made of other data.
    """
    path = folder / MANIFEST_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"--to {folder}: a file stands there; choose another folder") from None
    strangers = [p for p in folder.iterdir() if not p.name.startswith(".")]
    if not path.exists():  # looked for after the others: a peer writes it first
        if strangers:
            raise UserError(f"--to {folder}: holds other files; choose another folder")
        _write(planned, path)
    found = config_io.load(Manifest, path)
    _check_data(folder, found, planned, source)
    for f in fields(Manifest):
        before, now = (getattr(manifest, f.name) for manifest in (found, planned))
        if f.name not in KNOWN_AT_THE_END | COMPARED_APART and (
            at := _difference(before, now, f.name)
        ):
            raise UserError(
                f"{folder}: begun otherwise ({at[0]} was {at[1]}, is now {at[2]}); choose another "
                "folder with --to, or delete this one"
            )
    return found


def _check_data(folder: Path, found: Manifest, planned: Manifest, source: Source) -> None:
    """Raises UserError where captions, or the list of images, have changed."""
    if found.source != planned.source or not found.provenance:
        return  # which is told by name
    change = changed(found.provenance, planned.provenance, source)
    if change and change.told == WRITTEN_AGAIN:
        print(
            f"{folder}: since it was begun {change.told}; shards that are there stay as they are",
            file=sys.stderr,
        )
    elif change:
        raise UserError(
            f"{folder}: begun with other data ({change.told}); choose another folder with --to, or "
            "delete this one"
        )


def completed(folder: Path, manifest: Manifest) -> Manifest | None:
    """The manifest with its counts, now in the folder; None while a shard is still missing.

    Raises UserError where no picture at all could be read.
    """
    paths = [record_path(folder, number) for number in range(manifest.shards)]
    if not all(path.is_file() for path in paths):
        return None
    records = [config_io.load(Record, path) for path in paths]
    samples = tuple(record.samples for record in records)
    if not any(samples):
        raise UserError(f"{folder}: none of the {manifest.examples} pictures could be read")
    first = next(number for number, count in enumerate(samples) if count)
    shapes = conditions_metadata(folder)["shapes"]
    whole = replace(
        manifest,
        complete=True,
        samples=samples,
        broken=sum(len(record.broken) for record in records),
        digest=hashlib.sha256("".join(record.sha256 for record in records).encode()).hexdigest(),
        latents=Shard(shard_path(folder, first)).arrays["latents"].shape[2:],
        condition=config_io.from_json(ConditionShapes, shapes, str(folder)),
    )
    if whole != manifest:
        _write(whole, folder / MANIFEST_FILE)
    for leftover in folder.glob(".aside-*-shard-*"):
        leftover.unlink(missing_ok=True)
    return whole


def _write(manifest: Manifest, path: Path) -> None:
    write_whole(path, config_io.as_text(config_io.to_json(manifest)))


def _difference(before: Any, now: Any, path: str) -> tuple[str, Any, Any] | None:
    """The first field, by its dotted path, in which two values differ, and both values there."""
    if isinstance(before, dict) and isinstance(now, dict):
        pairs = ((n, before.get(n), now.get(n)) for n in (before | now))
        found = (_difference(a, b, f"{path}.{name}") for name, a, b in pairs)
        return next((difference for difference in found if difference), None)
    return None if before == now else (path, before, now)


def _versions() -> dict[str, str]:
    found = {}
    for package in ("flowbrush", "torch", "transformers", "diffusers"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "none"
    return found
