"""Captions to conditions. Encoders are frozen, and outside what is trained, averaged or saved."""

from typing import Protocol, runtime_checkable

from flowbrush.condition import Condition
from flowbrush.shapes import ConditionShapes
from flowbrush.text.clip import CLIPConfig
from flowbrush.text.joined import FluxTextConfig, SD3TextConfig
from flowbrush.text.labels import LabelsConfig
from flowbrush.text.minilm import MiniLMConfig
from flowbrush.text.sentence import SentenceConfig
from flowbrush.text.t5 import T5Config


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


TextConfig = (
    SentenceConfig
    | MiniLMConfig
    | LabelsConfig
    | CLIPConfig
    | T5Config
    | FluxTextConfig
    | SD3TextConfig
)
