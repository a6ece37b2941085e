"""Captions to conditions. Encoders are frozen, and outside what is trained, averaged or saved."""

from typing import Protocol, runtime_checkable

from flowbrush.condition import Condition
from flowbrush.shapes import ConditionShapes
from flowbrush.text.labels import LabelsConfig
from flowbrush.text.minilm import MiniLMConfig
from flowbrush.text.sentence import SentenceConfig


@runtime_checkable
class TextEncoder(Protocol):
    """Captions -> a batch of conditions, on the CPU."""

    def __call__(self, captions: list[str]) -> Condition: ...

    @property
    def null(self) -> Condition:
        """What an absent caption is to this encoder, a batch of one."""
        ...

    @property
    def shapes(self) -> ConditionShapes: ...


TextConfig = SentenceConfig | MiniLMConfig | LabelsConfig
