"""Several sources as one: in every stretch of training each has its share, whatever its length."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from flowbrush import data
from flowbrush.data.source import Example, Source
from flowbrush.errors import UserError


@dataclass(frozen=True, kw_only=True)
class ShareConfig:
    """One part of a mixture. Shares need not add up to 1."""

    share: float = 1.0
    source: "data.SourceConfig"

    def __post_init__(self) -> None:
        if not (self.share > 0 and math.isfinite(self.share)):
            raise UserError(f"source.parts: a share of {self.share}; it must be above 0")


@dataclass(frozen=True, kw_only=True)
class MixtureConfig:
    """Sources that are learned together, such as one of photographs and one of drawings."""

    parts: tuple[ShareConfig, ...] = ()

    def build(self, size: int) -> "Mixture":
        """Raises UserError where there is no part, or as the parts do."""
        if not self.parts:
            raise UserError("source.parts: a mixture of nothing; give it parts")
        shares = tuple(part.share for part in self.parts)
        return Mixture(tuple(part.source.build(size) for part in self.parts), shares)


@dataclass(frozen=True)
class Mixture:
    """A Source: the examples of its parts, one part after the other. Only their order is mixed."""

    parts: tuple[Source, ...]
    shares: tuple[float, ...]

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """The number of each part's first example, and the end."""
        return tuple(accumulate(map(len, self.parts), initial=0))

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, i: int) -> Example:
        part = bisect_right(self.starts, i) - 1
        return self.parts[part][i - self.starts[part]]

    @property
    def classes(self) -> tuple[str, ...]:
        """Of all parts, where each has some."""
        if not all(part.classes for part in self.parts):
            return ()
        return tuple(dict.fromkeys(name for part in self.parts for name in part.classes))

    @property
    def attribution(self) -> str:
        return "; ".join(dict.fromkeys(p.attribution for p in self.parts if p.attribution))


def configs_of(source: "data.SourceConfig") -> "list[data.SourceConfig]":
    """Those that a mixture is made of, of any depth; of any other source, itself."""
    if not isinstance(source, MixtureConfig):
        return [source]
    return [one for part in source.parts for one in configs_of(part.source)]


def sources_of(source: Source) -> Sequence[Source]:
    """As `configs_of`, of what was built."""
    if not isinstance(source, Mixture):
        return [source]
    return [one for part in source.parts for one in sources_of(part)]
