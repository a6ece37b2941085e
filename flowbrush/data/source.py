"""What a data source is: a length and random access. The order is not its business."""

import hashlib
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float16, Float32, Int16, UInt8
from torch import Tensor

from flowbrush.condition import MAX_CAPTION, Condition
from flowbrush.data.names import shown

LONGEST_CAPTION = 65_536  # bytes that are read of a caption, or characters of what is text already

Picture = UInt8[np.ndarray, "H W 3"] | Float16[np.ndarray, "h w s"]
Size = int | tuple[int, int]  # of a picture in pixels: the side of a square, or height and width


@dataclass(frozen=True)
class Features:
    """What a text encoder made of one caption, as it is stored: the 16 bits of bf16 numbers."""

    text: Int16[np.ndarray, "n d"] | None = None
    pooled: Int16[np.ndarray, " p"] | None = None
    label: int | None = None

    def copied(self) -> "Features":
        """In memory of its own, where this one may be a view of a file."""
        return replace(
            self,
            text=None if self.text is None else self.text.copy(),
            pooled=None if self.pooled is None else self.pooled.copy(),
        )

    def condition(self) -> Condition:
        """A batch of one, in fp32."""
        return Condition(
            label=None if self.label is None else torch.tensor([self.label]),
            text=None if self.text is None else _floats(self.text),
            pooled=None if self.pooled is None else _floats(self.pooled),
        )


def _floats(stored: Int16[np.ndarray, "..."]) -> Tensor:
    return torch.from_numpy(stored.copy()).view(torch.bfloat16).float()[None]


@dataclass(frozen=True)
class Example:
    """One captioned picture.

    picture: as large as the source was asked for: bytes, or what a space stored of it.
    captions: by language or kind ("en", "ja", "short"); any of them describes the whole picture.
    truth: what the source knows of the picture beyond its captions, if it drew it itself.
    mirrored: what a space stored of the mirrored picture.
    features: of each kind of caption, where they were encoded beforehand.
    name: where it is, for messages; empty where `truth` tells, or its number does.
    """

    picture: Picture
    captions: Mapping[str, str]
    truth: Any = None
    mirrored: Picture | None = None
    features: Mapping[str, Features] | None = None
    name: str = ""


def stacked(pictures: Sequence[Picture]) -> UInt8[Tensor, "b 3 H W"] | Float16[Tensor, "b s h w"]:
    """Pictures of one shape as a batch, their channels first."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()


MOST_BROKEN = 0.1  # share of the examples; more stops a run


class UnreadablePicture(Exception):
    """An example that cannot be learned: it is skipped, counted and listed.

    Where more than MOST_BROKEN are so, training stops and `doctor` says so: see `too_many`.
    Its name can be printed and stored, whatever bytes the file's name has.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name, self.reason = shown(name), shown(reason)

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


class IncompleteExample(UnreadablePicture):
    """A row that states no image or no caption, as of a failed download. It is no damage: it is
    skipped, counted and listed, however many there are."""


def too_many(broken: int, read: int, size: int) -> bool:
    """Whether more than MOST_BROKEN of `size` examples must be broken, by `read` of them that were
    drawn: within three standard deviations it may be chance."""
    if not size:
        return False
    read = min(read, size)
    spread = MOST_BROKEN * (1 - MOST_BROKEN) * read * (1 - read / size)
    return broken > MOST_BROKEN * read + 3 * math.sqrt(spread)


@runtime_checkable
class Source(Protocol):
    """Random access to examples. Raises UnreadablePicture from `[i]` for a broken one."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> Example: ...

    @property
    def classes(self) -> tuple[str, ...]:
        """The captions, where they come out of a closed list; empty otherwise."""
        ...

    @property
    def attribution(self) -> str:
        """Whom the pictures are due to, in one line; empty where nobody need be named."""
        ...


def read_example(source: Source, i: int, kinds: Collection[str] = ()) -> Example:
    """Example `i` as it is learned: with those captions alone that a text encoder takes.

    kinds: of captions that are wanted; empty = all. Raises UnreadablePicture where none is left.
    """
    example = source[i]
    captions = {k: c for k, c in example.captions.items() if not kinds or k in kinds}
    name = example.name or (example.truth if isinstance(example.truth, str) else f"example {i}")
    if not captions:
        wanted, there = " or ".join(kinds) or "of any kind", ", ".join(example.captions) or "none"
        raise IncompleteExample(name, f"no caption {wanted}; there is {there}")
    unfit = {kind: why for kind, text in captions.items() if (why := _why_unfit(text))}
    fitting = {kind: text for kind, text in captions.items() if kind not in unfit}
    if not fitting:
        raise UnreadablePicture(name, next(iter(unfit.values())))
    return example if len(fitting) == len(example.captions) else replace(example, captions=fitting)


def _why_unfit(caption: str) -> str:
    """Why no text encoder takes a caption; empty where one does."""
    if len(caption) > MAX_CAPTION:
        return f"a caption of {len(caption):,} characters, over {MAX_CAPTION:,}"
    try:
        caption.encode()
    except UnicodeEncodeError:  # as of half a pair of surrogates in a .json
        return "a caption that is no Unicode"
    return ""


def all_pictures(source: Source) -> UInt8[Tensor, "n 3 H W"] | Float16[Tensor, "n s h w"]:
    """Of a source that is small enough to be held in memory."""
    return stacked([source[i].picture for i in range(len(source))])


@runtime_checkable
class Sharded(Protocol):
    """A source that is cheapest to read a shard at a time: a file of many examples."""

    @property
    def shards(self) -> Sequence[int]:
        """The examples of each, in the order of their numbers."""
        ...


@runtime_checkable
class Shaped(Protocol):
    """A source of pictures of many shapes, which gives them in any."""

    def aspects(self) -> Iterator[Float32[np.ndarray, " m"]]:
        """Width / height of every picture, in order and in parts; NaN where it is not known.

        Pictures are not decoded for it. Raises UserError where it cannot be had.
        """
        ...

    def reshaped(self, size: tuple[int, int]) -> Source:
        """The same examples, their pictures of that height and width."""
        ...


@dataclass(frozen=True)
class Origin:
    """What a source knows of where its examples are from, beyond its config.

    sha256: of the list of its files. left_out: how many examples, by cause. licences: how many have
    which, among the first `licences_of`. made_of: the same of a source that this one was made of.
    Of files that are images, names_sha256: of their names alone; captions_sha256: of all captions;
    stamps_sha256: of the images' sizes and times of writing, in order, whatever they are called.
    """

    sha256: str
    left_out: Mapping[str, int] = field(default_factory=dict)
    licences: Mapping[str, int] = field(default_factory=dict)
    licences_of: int = 0
    made_of: Mapping[str, Any] = field(default_factory=dict)
    names_sha256: str = ""
    captions_sha256: str = ""
    stamps_sha256: str = ""


@runtime_checkable
class Traced(Protocol):
    """A source that tells its origin; any other is known by its config alone."""

    def origin(self) -> Origin: ...


@runtime_checkable
class Growing(Protocol):
    """A source that knows what the hash of its list was while it had fewer examples."""

    def first_sha256(self, examples: int) -> str: ...


def listing_sha256(files: Iterable[tuple[str, int]]) -> str:
    """Of names and sizes, in their order."""
    digest = hashlib.sha256()
    for name, size in files:
        digest.update(f"{size} {name}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def shards_of(source: Source) -> Sequence[int]:
    """The examples of each shard; a source that has none is one."""
    return source.shards if isinstance(source, Sharded) else (len(source),)
