"""One shard: examples of a source in, a file and its record out.

A shard is written aside and renamed when whole, its record after it: a shard with a record that
agrees is finished, whatever happened to the process that made it.
"""

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from jaxtyping import Shaped, UInt8
from torch import Tensor

from flowbrush import config_io
from flowbrush.checkpoint import sha256
from flowbrush.condition import Condition
from flowbrush.data.prepared import CONDITIONS_FILE, Manifest, conditions_metadata, shard_path
from flowbrush.data.source import Example, Source, UnreadablePicture, read_example, stacked
from flowbrush.errors import UserError
from flowbrush.experiment import ExperimentConfig
from flowbrush.spaces import Space
from flowbrush.text import TextEncoder
from flowbrush.whole_files import write_whole

READERS = 4  # threads that read and decode pictures
CAPTIONS_AHEAD = 8  # batches of captions in memory, which the encoder may put in order of length


@dataclass(frozen=True, kw_only=True)
class Broken:
    """A picture that could not be read."""

    index: int  # in the source
    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a finished shard holds."""

    samples: int
    sha256: str
    broken: tuple[Broken, ...] = ()


def record_path(folder: Path, number: int) -> Path:
    return shard_path(folder, number).with_suffix(".json")


def is_finished(folder: Path, number: int, say: Callable[[str], object] = print) -> bool:
    """Whether the shard agrees with its record; `say` is told of one that does not."""
    path = record_path(folder, number)
    if not path.exists():
        return False
    try:
        if config_io.load(Record, path).sha256 == sha256(shard_path(folder, number)):
            return True
        reason = "not as it was written"
    except (OSError, UserError) as error:
        reason = f"unreadable: {error}"
    say(f"{shard_path(folder, number)}: damaged ({reason}); it is made again")
    path.unlink()
    return False


@dataclass(frozen=True)
class Encoding:
    """What encodes examples, and how many at a time."""

    source: Source
    space: Space
    encoder: TextEncoder
    mirrored: bool  # whether the mirrored pictures' latents are stored as well
    batch: int


@dataclass(frozen=True)
class Work:
    """What is to be done, as plain data for any process."""

    config: ExperimentConfig
    manifest: Manifest
    folder: Path
    batch: int

    def indices(self, number: int) -> range:
        """The examples of the source that a shard is made of."""
        each = self.manifest.shard
        return range(number * each, min((number + 1) * each, self.manifest.examples))

    def encoding(self, device: torch.device) -> Encoding:
        """The parts, after the conditions have been written, which are made of them as well.

        Raises UserError where a model cannot be had, or refuses a prompt.
        """
        config = self.config
        source, space = config.source.build(config.size), config.space.build(device)
        encoder = config.text.build(device)
        prompts = config.watch.prompts
        if conditions_metadata(self.folder).get("prompts") != list(prompts):
            _write_conditions(self.folder, prompts, encoder)
        return Encoding(source, space, encoder, self.manifest.mirrored, self.batch)


def _write_conditions(folder: Path, prompts: tuple[str, ...], encoder: TextEncoder) -> None:
    conditions = [encoder.null, *(encoder([prompt]) for prompt in prompts)]
    tensors = {
        f"{i}.{name}": part.clone()  # two of one memory would be refused
        for i, condition in enumerate(conditions)
        for name, part in _parts(condition).items()
    }
    metadata = {"prompts": prompts, "shapes": config_io.to_json(encoder.shapes)}
    # One entry: several would be written in another order each time.
    encoded = safetensors.torch.save(tensors, {"conditions": json.dumps(metadata)})
    write_whole(folder / CONDITIONS_FILE, encoded)


def write_shard(
    work: Work,
    number: int,
    encoding: Encoding,
    tick: Callable[[int], object] = lambda pictures: None,
) -> Record:
    """Encode the shard's examples. tick: told of how many more were read.

    Raises UserError where latents are too large for fp16, or the encoder refuses a caption.
    """
    reading, indices = _Reading(), work.indices(number)
    latents = [_latents(pictures, encoding) for pictures in reading(encoding, indices, tick)]
    kinds = list(reading.captions)
    tensors = {
        "index": torch.tensor(reading.indices, dtype=torch.int64),
        "latents": torch.cat(latents) if latents else torch.empty(0, 1, 0, 0, 0),
    }
    for kind in kinds:
        tensors |= _captions(kind, reading.captions[kind], encoding)
    encoded = safetensors.torch.save(tensors, {"captions": json.dumps(kinds)})
    record = Record(
        samples=len(reading.indices),
        sha256=hashlib.sha256(encoded).hexdigest(),
        broken=tuple(reading.broken),
    )
    write_whole(shard_path(work.folder, number), encoded)
    text = config_io.as_text(config_io.to_json(record))
    write_whole(record_path(work.folder, number), text)
    return record


@dataclass
class _Reading:
    """What was read of a shard's examples, but for the pictures, which go by in batches.

    captions: of each kind one an example; None where it has none of the kind.
    """

    indices: list[int] = field(default_factory=list)
    captions: dict[str, list[str | None]] = field(default_factory=dict)
    broken: list[Broken] = field(default_factory=list)

    def __call__(
        self, encoding: Encoding, indices: range, tick: Callable[[int], object]
    ) -> Iterator[UInt8[Tensor, "b 3 H W"]]:
        for part, examples in _examples(encoding.source, indices, encoding.batch):
            pictures = []
            for i, example in zip(part, examples, strict=True):
                if isinstance(example, UnreadablePicture):
                    self.broken.append(Broken(index=i, name=example.name, reason=example.reason))
                else:
                    self._take(i, example)
                    pictures.append(example.picture)
            if pictures:
                yield stacked(pictures)
            tick(len(part))

    def _take(self, i: int, example: Example) -> None:
        for kind in example.captions:
            self.captions.setdefault(kind, [None] * len(self.indices))
        self.indices.append(i)
        for kind, captions in self.captions.items():
            captions.append(example.captions.get(kind))


def _examples(
    source: Source, indices: range, batch: int
) -> Iterator[tuple[range, list[Example | UnreadablePicture]]]:
    """Examples by the batch; the next batch is read while this one is worked on."""

    def read(i: int) -> Example | UnreadablePicture:
        try:
            return read_example(source, i)
        except UnreadablePicture as error:
            return error

    waiting: deque[tuple[range, list[Future[Example | UnreadablePicture]]]] = deque()
    with ThreadPoolExecutor(READERS) as readers:
        for start in range(0, len(indices), batch):
            part = indices[start : start + batch]
            waiting.append((part, [readers.submit(read, i) for i in part]))
            if len(waiting) > 1:
                part, futures = waiting.popleft()
                yield part, [future.result() for future in futures]
        for part, futures in waiting:
            yield part, [future.result() for future in futures]


def _latents(pictures: UInt8[Tensor, "b 3 H W"], encoding: Encoding) -> Shaped[Tensor, "b f s h w"]:
    """What the space stores of each picture, and where wanted of the mirrored one."""
    views = [pictures, pictures.flip(3)] if encoding.mirrored else [pictures]
    stored = torch.stack([encoding.space.compress(view).cpu() for view in views], dim=1)
    if stored.is_floating_point():
        stored = stored.half()
        if not stored.isfinite().all():
            raise UserError("space: latents that fp16 cannot hold; is it the right autoencoder?")
    return stored


def _captions(kind: str, captions: list[str | None], encoding: Encoding) -> dict[str, Tensor]:
    """One kind of captions, and what the encoder makes of them: nothing, or zeros, of none."""
    held = [np.frombuffer((caption or "").encode(), np.uint8) for caption in captions]
    tensors = _ragged(f"caption.{kind}", [torch.from_numpy(text.copy()) for text in held])
    there = [caption for caption in captions if caption is not None]
    rows: list[dict[str, Tensor]] = []
    for start in range(0, len(there), CAPTIONS_AHEAD * encoding.batch):
        some = there[start : start + CAPTIONS_AHEAD * encoding.batch]
        for condition in encoding.encoder.encode_many(some, encoding.batch):
            rows.append({name: _stored(part) for name, part in _parts(condition).items()})
    for name in rows[0]:
        own, none = iter(rows), rows[0][name][0]
        none = none[:0] if name == "text" else torch.zeros_like(none)
        parts = [none if caption is None else next(own)[name][0] for caption in captions]
        if name == "text":
            tensors |= _ragged(f"text.{kind}", parts)
        else:
            tensors[f"{name}.{kind}"] = torch.stack(parts)
    return tensors


def _parts(condition: Condition) -> dict[str, Tensor]:
    """The fields that are there; of a mask there is no need, as nothing is padded."""
    parts = {"label": condition.label, "text": condition.text, "pooled": condition.pooled}
    return {name: part.contiguous() for name, part in parts.items() if part is not None}


def _stored(part: Tensor) -> Tensor:
    return part.bfloat16() if part.is_floating_point() else part


def _ragged(name: str, parts: list[Tensor]) -> dict[str, Tensor]:
    """Parts of different lengths, one after the other, and where each starts."""
    lengths = torch.tensor([0, *(len(part) for part in parts)], dtype=torch.int64)
    return {name: torch.cat(parts), f"{name}.starts": lengths.cumsum(0)}
