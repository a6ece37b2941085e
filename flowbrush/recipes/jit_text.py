"""JiT on captions, which a language model reads: Japanese as well as English.

The networks of JiT (Li & He 2025) as a Japanese fork uses them, with LLM-jp in the label's place.
There a caption is one vector, the mean of its tokens: `--backbone.text pooled --text.pooled mean`.
Here its tokens join in context, which says more. Captions come from `--source.path FOLDER`, with
images/ and captions/ in it. Costs are the network's alone, for 600 times ImageNet's pictures at
55 % of an H200's 790 TFLOP/s; `flowbrush prepare` reads the captions beforehand, once. A mock run
that needs nothing: `flowbrush train jit-b16-text --tiny`.
"""

from dataclasses import replace

from flowbrush.data import FolderConfig
from flowbrush.experiment import ExperimentConfig
from flowbrush.recipes import jit
from flowbrush.text import LLMConfig

LLM = LLMConfig(model="llm-jp/llm-jp-3-3.7b", tokens=77, null="zeros", dtype="bf16")
PROMPTS = ("富士山と桜", "a cat asleep on a sofa", "赤い自転車", "a bowl of ramen, from above")


def jit_b16_text() -> ExperimentConfig:
    """JiT-B/16 on captions at 256 px, 133 M parameters.

    Source: the fork. Cost: 83 H200-hours, estimated. Result: none published.
    """
    return _text(jit.jit_b16())


def jit_b32_text() -> ExperimentConfig:
    """JiT-B/32 on captions at 512 px, 135 M parameters.

    Source: the fork. Cost: 85 H200-hours, estimated. Result: none published.
    """
    return _text(jit.jit_b32())


def jit_l16_text() -> ExperimentConfig:
    """JiT-L/16 on captions at 256 px, 461 M parameters.

    Source: the fork. Cost: 290 H200-hours, estimated. Result: none published.
    """
    return _text(jit.jit_l16())


def jit_l32_text() -> ExperimentConfig:
    """JiT-L/32 on captions at 512 px, 464 M parameters.

    Source: the fork. Cost: 292 H200-hours, estimated. Result: none published.
    """
    return _text(jit.jit_l32())


def jit_h16_text() -> ExperimentConfig:
    """JiT-H/16 on captions at 256 px, 955 M parameters.

    Source: the fork. Cost: 600 H200-hours, estimated. Result: none published.
    """
    return _text(jit.jit_h16())


def jit_h32_text() -> ExperimentConfig:
    """JiT-H/32 on captions at 512 px, 959 M parameters.

    Source: the fork. Cost: 603 H200-hours, estimated. Result: none published.
    """
    return _text(jit.jit_h32())


def _text(labels: ExperimentConfig) -> ExperimentConfig:
    return replace(
        labels,
        name=f"{labels.name}-text",
        source=FolderConfig(),
        text=LLM,
        watch=replace(labels.watch, prompts=PROMPTS),
    )
