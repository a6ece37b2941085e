"""What a data source is: a length and random access. The order is not its business."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8


@dataclass(frozen=True)
class Example:
    """One captioned picture.

    picture: square, bytes, as large as the source was asked for.
    captions: by language or kind ("en", "ja", "short"); any of them describes the whole picture.
    truth: what the source knows of the picture beyond its captions, if it drew it itself.
    """

    picture: UInt8[np.ndarray, "H W 3"]
    captions: Mapping[str, str]
    truth: Any = None


class UnreadablePicture(Exception):
    """A picture that cannot be decoded; it is skipped, counted and listed."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


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
