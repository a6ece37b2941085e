"""Captions to conditions. Encoders are frozen, and outside what is trained, averaged or saved."""

from typing import Protocol, runtime_checkable

from jaxtyping import Bool
from torch import Tensor

from flowbrush.condition import Condition
from flowbrush.shapes import ConditionShapes
from flowbrush.text.clip import CLIPConfig
from flowbrush.text.joined import FluxTextConfig, SD3TextConfig
from flowbrush.text.labels import LabelsConfig
from flowbrush.text.llm import LLMConfig
from flowbrush.text.minilm import MiniLMConfig
from flowbrush.text.sentence import SentenceConfig
from flowbrush.text.t5 import T5Config


@runtime_checkable
class TextEncoder(Protocol):
    """Captions -> a batch of conditions, on the CPU.

    silent: which part does not hear which caption, and reads the empty one; None = all hear all.
    """

    def __call__(
        self, captions: list[str], silent: Bool[Tensor, "b parts"] | None = None
    ) -> Condition: ...

    def encode_many(self, captions: list[str], batch: int) -> list[Condition]:
        """A batch of one a caption, without padding, computed `batch` at a time if it can."""
        ...

    @property
    def null(self) -> Condition:
        """What an absent caption is to this encoder, a batch of one."""
        ...

    @property
    def shapes(self) -> ConditionShapes: ...

    @property
    def parts(self) -> int:
        """How many text models read a caption."""
        ...

    @property
    def cut(self) -> int:
        """How many times one of them met a caption that was longer than it reads."""
        ...


TextConfig = (
    SentenceConfig
    | MiniLMConfig
    | LabelsConfig
    | CLIPConfig
    | T5Config
    | LLMConfig
    | FluxTextConfig
    | SD3TextConfig
)
