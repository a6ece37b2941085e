"""A vector for each word piece."""

import pytest
import torch

from flowbrush.shapes import ConditionShapes
from flowbrush.text.cached import CachedEncoder
from flowbrush.text.minilm import MiniLMConfig

CPU = torch.device("cpu")

LONG = "a small red fox sleeps below an old green tree"


@pytest.fixture(scope="module")
def encoder() -> CachedEncoder:
    return MiniLMConfig(tokens=8).build(CPU)


@pytest.mark.parametrize(
    ("caption", "tokens"), [("", 2), ("fox", 3), ("a cat", 4), ("a red apple", 5)]
)
def test_a_caption_has_a_token_a_word_and_two_around_them(encoder, caption, tokens):
    assert encoder([caption]).text.shape == (1, tokens, 384)


def test_a_long_caption_is_cut(encoder):
    assert encoder([LONG]).text.shape == (1, 8, 384)


def test_captions_of_different_lengths_are_masked(encoder):
    mask = encoder(["a cat", LONG, "fox"]).text_mask
    assert mask.sum(dim=1).tolist() == [4, 8, 3]
    assert mask[:, :3].all()


def test_captions_of_one_length_have_no_mask(encoder):
    assert encoder(["a cat", "a dog"]).text_mask is None


def test_a_caption_has_the_same_bits_beside_a_longer_one(encoder):
    alone, among = encoder(["a cat"]), encoder([LONG, "a cat"])
    assert torch.equal(among.text[1, :4], alone.text[0])
    assert torch.equal(among.pooled[1], alone.pooled[0])


def test_pooled_is_the_mean_of_the_tokens(encoder):
    condition = encoder(["a cat"])
    assert torch.equal(condition.pooled, condition.text.mean(dim=1))


def test_null_is_the_empty_caption(encoder):
    assert torch.equal(encoder.null.text, encoder([""]).text)


def test_many_captions_at_once_are_the_same_to_rounding(encoder):
    captions = ["a cat", LONG, "", "fox"]
    for caption, row in zip(captions, encoder.encode_many(captions, batch=4), strict=True):
        alone = encoder([caption])
        torch.testing.assert_close(row.text, alone.text, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(row.pooled, alone.pooled, atol=1e-5, rtol=1e-5)


def test_cut_captions_are_counted():
    encoder = MiniLMConfig(tokens=8).build(CPU)
    encoder(["a cat", LONG])
    assert encoder.cut == 1


def test_the_same_word_differs_with_its_neighbours(encoder):
    first, second = encoder(["red fox", "old fox"]).text[:, 2]
    assert not torch.allclose(first, second, atol=0.1)


def test_nothing_wants_a_gradient(encoder):
    condition = encoder(["a cat"])
    assert not condition.text.requires_grad
    assert not condition.pooled.requires_grad


def test_the_encoder_is_no_part_of_what_is_trained(encoder):
    assert not isinstance(encoder, torch.nn.Module)


def test_shapes_say_what_a_condition_holds(encoder):
    assert encoder.shapes == ConditionShapes(text_width=384, text_tokens=8, pooled_width=384)
