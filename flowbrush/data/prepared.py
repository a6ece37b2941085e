"""Pictures and captions that were encoded once: shards, read at random through memory maps.

    manifest.json              what was encoded, by what, into how many samples
    conditions.safetensors     the null condition, and those of the previews' prompts
    shard-000012.safetensors   latents, features and captions of some examples of the source
    shard-000012.json          its record, written after it: samples, broken pictures, SHA-256

A shard of m samples holds `index` (m), `latents` (m f s h w; the second of f is of the mirrored
picture) and for each kind K of captions `caption.K` (bytes of UTF-8), `text.K` (tokens, width),
`pooled.K` (m, width) and `label.K` (m), where the encoder gives them. Captions and texts stand one
after the other: sample i has those from `starts[i]` to `starts[i + 1]` of `caption.K.starts`. They
are empty where it has no caption of the kind.
"""

import json
import mmap
from bisect import bisect_right
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from flowbrush import config_io
from flowbrush.condition import Condition
from flowbrush.data.source import Example, Features, Origin
from flowbrush.errors import UserError
from flowbrush.shapes import ConditionShapes

MANIFEST_FILE, CONDITIONS_FILE = "manifest.json", "conditions.safetensors"
DTYPES = {"F16": np.float16, "BF16": np.int16, "U8": np.uint8, "I64": np.int64}
OPEN_SHARDS = 256  # at a time, in one process: each holds a file handle
FIRST_EXAMPLES = 64  # whose captions are known beside the prompts, for previews without any


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a folder of shards holds. Configs are as `config_io.to_json` writes them."""

    size: int  # of the pictures, in pixels
    space: dict
    text: dict
    source: dict
    examples: int  # of the source
    fingerprint: str  # of some of them
    classes: tuple[str, ...]
    attribution: str
    shard: int  # examples of the source that one shard is made of
    mirrored: bool  # whether the latents of the mirrored pictures are there
    versions: dict
    dtypes: dict
    provenance: dict = field(default_factory=dict)  # of the source

    complete: bool = False
    samples: tuple[int, ...] = ()  # of each shard
    broken: int = 0
    digest: str = ""  # SHA-256 over the shards' own
    latents: tuple[int, ...] = ()  # (s, h, w)
    condition: ConditionShapes = ConditionShapes()

    @property
    def shards(self) -> int:
        return -(-self.examples // self.shard)


def shard_path(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:06d}.safetensors"


@dataclass(frozen=True, kw_only=True)
class PreparedConfig:
    """A folder that `flowbrush prepare` has filled."""

    path: Path = Path("prepared")

    def build(self, size: int) -> "Prepared":
        """Raises UserError where the folder is none, unfinished, or of another size."""
        return Prepared(self, size)


class Prepared:
    """A Source over shards. It can be pickled: each process opens the shards it reads."""

    def __init__(self, config: PreparedConfig, size: int) -> None:
        self.path = config.path
        if not (self.path / MANIFEST_FILE).is_file():
            raise UserError(
                f"{self.path}: nothing prepared in it; fill it with: "
                f"flowbrush prepare RECIPE --to {self.path}"
            )
        self.manifest = config_io.load(Manifest, self.path / MANIFEST_FILE)
        if not self.manifest.complete:
            raise UserError(
                f"{self.path}: not finished; go on with: flowbrush prepare RECIPE --to {self.path}"
            )
        if self.manifest.size != size:
            raise UserError(f"size: {size} pixels, but {self.path} holds {self.manifest.size}")
        self._starts = list(accumulate(self.manifest.samples, initial=0))

    def __len__(self) -> int:
        return self._starts[-1]

    @property
    def shards(self) -> tuple[int, ...]:
        return self.manifest.samples

    def __getitem__(self, i: int) -> Example:
        """Raises UserError where a shard is missing or cut short."""
        number = bisect_right(self._starts, i) - 1
        shard = _opened(shard_path(self.path, number), self.manifest.digest)
        return shard.example(i - self._starts[number])

    @property
    def classes(self) -> tuple[str, ...]:
        return self.manifest.classes

    @property
    def attribution(self) -> str:
        return self.manifest.attribution

    def origin(self) -> Origin:
        """By the manifest."""
        broken = {"unreadable": self.manifest.broken} if self.manifest.broken else {}
        return Origin(self.manifest.digest, broken, made_of=self.manifest.provenance)

    @property
    def null(self) -> Condition:
        return read_conditions(self.path)[""]

    def known(self) -> dict[str, Condition]:
        """The conditions of the prepared prompts, and of the first examples' captions."""
        found: dict[str, Condition] = {}
        for example in map(self.__getitem__, range(min(len(self), FIRST_EXAMPLES))):
            for kind, features in (example.features or {}).items():
                found[example.captions[kind]] = features.condition()
        return found | read_conditions(self.path)


class Shard:
    """One file of samples, mapped into memory."""

    def __init__(self, path: Path) -> None:
        """Raises UserError where it is missing or cut short."""
        try:
            with path.open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            size = 8 + int.from_bytes(mapped[:8], "little")
            header = json.loads(mapped[8:size])
            self.kinds = json.loads(header.pop("__metadata__")["captions"])
            self.arrays = {name: _array(mapped, size, entry) for name, entry in header.items()}
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"{path}: not to be read ({error}); make it again with the same flowbrush prepare"
            ) from None

    def example(self, row: int) -> Example:
        """The sample at `row`; its arrays are views of the file."""
        stored = self.arrays["latents"][row].transpose(0, 2, 3, 1)  # as pictures are: (f h w s)
        captions = {
            kind: self._ragged(f"caption.{kind}", row).tobytes().decode() for kind in self.kinds
        }
        if any(captions.values()):  # else the captions themselves are empty
            captions = {kind: caption for kind, caption in captions.items() if caption}
        features = {kind: self._features(kind, row) for kind in captions}
        mirrored = stored[1] if len(stored) > 1 else None
        return Example(stored[0], captions, mirrored=mirrored, features=features)

    def _features(self, kind: str, row: int) -> Features:
        labels, pooled = self.arrays.get(f"label.{kind}"), self.arrays.get(f"pooled.{kind}")
        return Features(
            text=self._ragged(f"text.{kind}", row) if f"text.{kind}" in self.arrays else None,
            pooled=None if pooled is None else pooled[row],
            label=None if labels is None else int(labels[row]),
        )

    def _ragged(self, name: str, row: int) -> np.ndarray:
        start, end = self.arrays[f"{name}.starts"][row : row + 2]
        return self.arrays[name][start:end]


@lru_cache(OPEN_SHARDS)
def _opened(path: Path, digest: str) -> Shard:
    """digest: of the whole folder, so that one that was made anew is not taken for the old one."""
    return Shard(path)


def _array(mapped: mmap.mmap, start: int, entry: dict[str, Any]) -> np.ndarray:
    """The array of one entry of a safetensors header; the data begin at `start`."""
    dtype, (begin, end) = np.dtype(DTYPES[entry["dtype"]]), entry["data_offsets"]
    if begin == end:
        return np.empty(entry["shape"], dtype)
    count = (end - begin) // dtype.itemsize
    return np.frombuffer(mapped, dtype, count, start + begin).reshape(entry["shape"])


def conditions_metadata(folder: Path) -> dict[str, Any]:
    """`prompts` and `shapes` of the conditions in a folder; empty where they are not there yet."""
    if not (folder / CONDITIONS_FILE).is_file():
        return {}
    with _conditions(folder) as file:
        return dict(json.loads(file.metadata()["conditions"]))


def read_conditions(folder: Path) -> dict[str, Condition]:
    """The null condition, by the name of "", and those of the prompts."""
    with _conditions(folder) as file:
        names: list[str] = list(file.keys())
        parts = {name: file.get_tensor(name) for name in names}
        prompts = ["", *json.loads(file.metadata()["conditions"])["prompts"]]
    own = [{n.split(".")[1]: t for n, t in parts.items() if n.startswith(f"{i}.")} for i in
           range(len(prompts))]  # fmt: skip
    return {prompt: Condition(**fields) for prompt, fields in zip(prompts, own, strict=True)}


def _conditions(folder: Path) -> Any:
    try:
        return safe_open(folder / CONDITIONS_FILE, framework="pt")
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{folder / CONDITIONS_FILE}: not to be read ({error}); delete it, and make it again "
            "with the same flowbrush prepare"
        ) from None
