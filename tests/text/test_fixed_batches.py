"""Captions that are encoded together have the bits that they have in any other batch."""

import pytest
import torch

from flowbrush.shapes import ConditionShapes
from flowbrush.text.cached import CachedEncoder
from flowbrush.text.clip import CLIPConfig, CLIPText
from flowbrush.text.minilm import MiniLMConfig
from flowbrush.text.t5 import T5Config, T5Text

CPU = torch.device("cpu")
CAPTIONS = [
    "a fox",
    "",
    "きつね 狐",
    "a small red fox sleeps below an old green tree",
    "an owl",
    "x",
]


@pytest.fixture(params=["clip", "clip attended", "t5", "t5 attended", "minilm"])
def text(request, models):
    """A text model with random weights, or MiniLM's own."""
    kind, _, padding = request.param.partition(" ")
    padding = padding or "masked"
    if kind == "minilm":
        return MiniLMConfig().load(CPU)
    if kind == "t5":
        place = {"model": f"{models}/text_encoder_3", "tokenizer": f"{models}/tokenizer_3"}
        config = T5Config(tokens=64, padding=padding, **place)
        return T5Text(*config.load(CPU), config)
    place = {"model": f"{models}/text_encoder", "tokenizer": f"{models}/tokenizer"}
    config = CLIPConfig(padding=padding, projected=True, **place)
    return CLIPText(*config.load(CPU), config)


def encoder(text, batch: int) -> CachedEncoder:
    return CachedEncoder([text], ConditionShapes(), batch=batch)


def test_a_caption_has_the_same_bits_in_every_batch_and_at_every_place(text):
    together = encoder(text, batch=4)(CAPTIONS)
    for order in (CAPTIONS[::-1], CAPTIONS[3:] + CAPTIONS[:3]):
        other = encoder(text, batch=4)(order)
        for i, caption in enumerate(order):
            mine, theirs = CAPTIONS.index(caption), i
            assert torch.equal(together.text[mine], other.text[theirs]), caption
    for i, caption in enumerate(CAPTIONS):
        alone = encoder(text, batch=4)([caption])
        n = alone.text.shape[1]
        assert torch.equal(together.text[i, :n], alone.text[0]), caption


def test_a_batch_of_fixed_shape_is_the_plain_call_to_rounding(text):
    together, alone = encoder(text, batch=4)(CAPTIONS), encoder(text, batch=1)(CAPTIONS)
    torch.testing.assert_close(together.text, alone.text, atol=1e-5, rtol=1e-5)
    if alone.pooled is not None:
        torch.testing.assert_close(together.pooled, alone.pooled, atol=1e-5, rtol=1e-5)


def test_captions_that_are_missing_are_computed_together(text, monkeypatch):
    batches = []
    compute = text._compute
    monkeypatch.setattr(
        text, "_compute", lambda read: (batches.append(len(read.numbers)), compute(read))[1]
    )
    encode = encoder(text, batch=8)
    batches.clear()
    encode(CAPTIONS)
    assert set(batches) == {8}
    assert len(batches) <= 3  # one for each length
    batches.clear()
    encode(CAPTIONS)
    assert batches == []
