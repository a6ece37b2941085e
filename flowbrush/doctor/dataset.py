"""A recipe's data: read as training would read them, some of them or all."""

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch

from flowbrush.data.folders import Folder
from flowbrush.data.pictures import upright_sides
from flowbrush.data.source import Source, too_many
from flowbrush.doctor.finding import Finding, judged
from flowbrush.doctor.sample import Sample
from flowbrush.errors import UserError
from flowbrush.experiment import ExperimentConfig
from flowbrush.text import (
    CLIPConfig,
    FluxTextConfig,
    LabelsConfig,
    LLMConfig,
    MiniLMConfig,
    SD3TextConfig,
    SentenceConfig,
    T5Config,
    TextConfig,
)
from flowbrush.text.pretrained import load_tokenizer

MOST_CUT, MOST_SMALL = 0.05, 0.1  # shares
WRITINGS = {
    "HIRAGANA": "Japanese",
    "KATAKANA": "Japanese",
    "CJK": "Han",
    "HANGUL": "Korean",
    "LATIN": "Latin",
    "CYRILLIC": "Cyrillic",
    "ARABIC": "Arabic",
    "THAI": "Thai",
    "DEVANAGARI": "Devanagari",
}


class Reading(NamedTuple):
    """A text model's way to count what it reads of a caption."""

    name: str
    tokens: int  # the most that it reads
    count: Callable[[str], int]


def findings(config: ExperimentConfig, source: Source, sample: Sample) -> Iterator[Finding]:
    """Of everything that was looked at."""
    n, size = len(source), sample.size
    yield Finding(
        "ok", f"data: {n:,} examples" + (f", of which {size:,} were read" if size < n else "")
    )
    yield _broken(sample, n)
    if missing := sample.incomplete:
        what = f"{len(missing):,} of {size:,} examples lack an image or a caption ({missing[0]})"
        none = len(missing) == size
        yield Finding("wrong" if none else "look at", what, "" if none else "they are skipped")
    yield from _captions(config, source, sample)
    yield from _pictures(sample)
    if isinstance(source, Folder):
        yield _sizes(source, config.size, size)


def _broken(sample: Sample, n: int) -> Finding:
    """As training judges it: see `Rejects`."""
    broken = len(sample.broken)
    if not broken:
        return Finding("ok", "every picture can be read")
    what = f"{broken:,} of {sample.size:,} pictures cannot be read ({sample.broken[0]}, ...)"
    if too_many(broken, sample.size, n):
        return Finding("wrong", what, "training stops at a tenth: mend or remove them")
    return Finding("look at", what, "they are skipped; --sample 0 reads all of them")


def _captions(config: ExperimentConfig, source: Source, sample: Sample) -> Iterator[Finding]:
    wanted = dict(config.batch.captions)
    kinds = {kind: found for kind, found in sample.captions.items() if not wanted or kind in wanted}
    if missing := sorted(wanted.keys() - sample.captions.keys()):
        there = ", ".join(sample.captions)
        what = f"batch.captions: no {', '.join(missing)} among the captions ({there})"
        yield Finding("look at" if kinds else "wrong", what, "give kinds that are there")
    for kind, captions in kinds.items():
        lengths = sorted(map(len, captions))
        low, middle, high, most = (lengths[int(q * (len(lengths) - 1))] for q in (0, 0.5, 0.95, 1))
        what = (
            f"captions '{kind}': {low} to {most} characters, half up to {middle}, 95 % up to {high}"
        )
        yield Finding("ok", f"{what}; {_writings(captions)}")
        if not low:
            empty = sum(not length for length in lengths)
            yield Finding(
                "look at", f"{empty:,} captions '{kind}' are empty", "they are learned so"
            )
    every = [caption for captions in kinds.values() for caption in captions]
    if not every:
        return
    repeated = sum(count - 1 for count in Counter(every).values())
    text = config.text
    labels = isinstance(text, LabelsConfig)
    what = f"{repeated / len(every):.1%} of the captions repeat another one"
    mend = "pictures of one caption cannot be told apart by it"
    yield judged(labels or repeated <= 0.5 * len(every), what, mend)
    if isinstance(text, LabelsConfig):
        names = set(text.names or source.classes)
        if strange := [caption for caption in every if caption not in names]:
            mend = "choose kinds with batch.captions, or another text encoder"
            yield Finding(
                "wrong", f"'{strange[0]}' and {len(strange) - 1:,} more are no classes", mend
            )
        return
    yield from _cut(text, every)


def _cut(text: TextConfig, captions: list[str]) -> Iterator[Finding]:
    try:
        readings = list(_readings(text))
    except UserError as error:
        yield Finding(
            "look at", f"tokens were not counted ({error})", "give the tokenizer's folder"
        )
        return
    for reading in readings:
        lengths = [reading.count(caption) for caption in captions]
        cut = sum(length > reading.tokens for length in lengths) / len(lengths)
        what = f"{reading.name} reads {reading.tokens} tokens: half of the captions have up to "
        what += f"{int(np.median(lengths))}, the longest {max(lengths)}; {cut:.1%} are cut"
        yield judged(cut <= MOST_CUT, what, "raise its tokens, or shorten captions")


def _readings(text: TextConfig) -> Iterator[Reading]:
    """Raises UserError where a tokenizer is not to be had."""
    match text:
        case CLIPConfig() | T5Config() | LLMConfig():
            words = load_tokenizer(text.tokenizer or text.model)
            yield Reading(text.model, text.tokens, lambda c: len(words(c, verbose=False).input_ids))
        case FluxTextConfig():
            yield from (*_readings(text.clip), *_readings(text.t5))
        case SD3TextConfig():
            for part in (text.clip_l, text.clip_g, text.t5):
                if part:
                    yield from _readings(part)
        case MiniLMConfig():
            reader = text.build(torch.device("cpu"))._models[0].reader  # type: ignore[attr-defined]
            yield Reading("MiniLM", text.tokens, lambda c: len(reader._tokenizer(c).input_ids))
        case SentenceConfig(words=most) if most:
            from flowbrush.text.sentence import _model

            text.build(torch.device("cpu"))
            pieces = _model()._model.sp
            yield Reading("the sentence encoder's words", most, lambda c: len(pieces.encode(c)))


def _writings(captions: Iterable[str]) -> str:
    """Which writing the captions are in; Japanese as soon as there is one kana."""
    found: Counter[str] = Counter()
    for caption in captions:
        names = {unicodedata.name(c, "").partition(" ")[0] for c in caption if c.isalpha()}
        known = {WRITINGS.get(name, "other") for name in names} or {"none"}
        found["Japanese" if "Japanese" in known else " and ".join(sorted(known))] += 1
    whole = sum(found.values())
    return ", ".join(f"{name} {count / whole:.0%}" for name, count in found.most_common(4))


def _pictures(sample: Sample) -> Iterator[Finding]:
    for what, counts in (("the same", sample.pictures), ("much alike", sample.likenesses)):
        read, again = sum(counts.values()), sum(count - 1 for count in counts.values())
        if read:
            said = f"{again:,} of {read:,} pictures are {what} as another one"
            yield judged(
                again <= 0.01 * read, said, "remove them: what is repeated is learned by heart"
            )
    if (latents := sample.latents) is None:
        return
    yield judged(
        not latents.not_finite,
        f"latents: {latents.not_finite:,} positions are not finite",
        "prepare again with space.dtype fp32",
        "wrong",
    )
    means = " ".join(f"{value:.3g}" for value in latents.mean)
    stds = " ".join(f"{value:.3g}" for value in latents.std)
    what = f"stored latents by channel: mean {means}; standard deviation {stds}"
    yield judged(bool((latents.std > 0).all()), what, "a channel that never changes: prepare again")


def _sizes(source: Folder, size: int, most: int) -> Finding:
    """Of the files, which are scaled to the recipe's size."""
    step = max(1, len(source) // most)
    sides = [min(upright_sides(source.pictures / name)) for name in source.names[::step]]
    sides = [side for side in sides if side]  # without those that have no header
    small = sum(side < size for side in sides)
    what = f"{small:,} of {len(sides):,} files have fewer than {size} pixels on their short side"
    if sides:
        what += f" (half of them up to {int(np.median(sides))})"
    return judged(
        small <= MOST_SMALL * len(sides), what, "they are scaled up: lower size, or leave them out"
    )
