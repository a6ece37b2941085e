"""Captions are encoded once each, alone, and remembered within bounds."""

import pytest
import torch

from flowbrush.condition import Condition
from flowbrush.errors import UserError
from flowbrush.shapes import ConditionShapes
from flowbrush.text.cached import LONGEST_CAPTION, CachedEncoder

SHAPES = ConditionShapes(text_width=4, text_tokens=99, pooled_width=2)
ROW = (4 + 2) * 4  # bytes of a caption of no letters; each letter is a token of 16 more


class Words:
    """Encodes a caption as a start token and one token a letter, and keeps count."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __call__(self, caption: str) -> Condition:
        self.calls.append(caption)
        codes = torch.tensor([[float(ord(c))] for c in "^" + caption])
        return Condition(text=torch.sqrt(codes).expand(-1, 4)[None], pooled=codes[-1:].expand(1, 2))


def pair(**choices) -> tuple[Words, CachedEncoder]:
    words = Words()
    encoder = CachedEncoder(words, SHAPES, **choices)
    words.calls.clear()  # of the empty caption
    return words, encoder


def test_null_is_the_empty_caption():
    words, encoder = pair()
    expected = words("")
    assert torch.equal(encoder.null.text, expected.text)
    assert torch.equal(encoder.null.pooled, expected.pooled)


def test_null_is_encoded_once():
    words, encoder = pair()
    assert encoder.null is encoder.null
    assert words.calls == []


def test_shapes_are_handed_on():
    assert pair()[1].shapes is SHAPES


def test_rows_come_in_the_order_of_the_captions():
    _, encoder = pair()
    assert encoder(["b", "a", "c"]).pooled[:, 0].tolist() == [ord("b"), ord("a"), ord("c")]


def test_a_caption_is_encoded_once():
    words, encoder = pair()
    encoder(["fox", "cat", "fox"])
    encoder(["cat", "fox"])
    assert words.calls == ["fox", "cat"]


def test_a_caption_has_the_same_bits_in_any_batch():
    _, encoder = pair()
    alone, among = encoder(["fox"]), encoder(["a long caption", "fox", "x"])
    assert torch.equal(among.text[1, :4], alone.text[0])
    assert torch.equal(among.pooled[1], alone.pooled[0])


def test_a_caption_has_the_same_bits_after_it_was_forgotten():
    words, encoder = pair(keep_bytes=1)
    before = encoder(["fox"])
    encoder(["cat", "dog"])
    after = encoder(["fox"])
    assert words.calls.count("fox") == 2
    assert torch.equal(before.text, after.text)


# -- padding


def test_captions_of_one_length_have_no_mask():
    assert pair()[1](["fox", "cat"]).text_mask is None


def test_captions_of_different_lengths_are_masked():
    mask = pair()[1](["fox", "a"]).text_mask
    assert mask.tolist() == [[True] * 4, [True] * 2 + [False] * 2]


def test_padding_is_zero():
    assert (pair()[1](["fox", "a"]).text[1, 2:] == 0).all()


def test_an_encoder_without_tokens_is_batched_too():
    shapes = ConditionShapes(pooled_width=1)
    encoder = CachedEncoder(lambda c: Condition(pooled=torch.tensor([[float(len(c))]])), shapes)
    assert encoder(["fox", "a"]).pooled.tolist() == [[3.0], [1.0]]


# -- bounds


def test_as_many_captions_are_kept_as_fit_into_the_bytes():
    words, encoder = pair(keep_bytes=3 * (ROW + 16))
    encoder(["a", "b", "c"])
    encoder(["c", "b", "a"])
    assert words.calls == ["a", "b", "c"]


def test_the_caption_seen_longest_ago_is_forgotten_first():
    words, encoder = pair(keep_bytes=3 * (ROW + 16))
    encoder(["a", "b", "c"])
    encoder(["a"])
    encoder(["d"])
    words.calls.clear()
    encoder(["a", "c", "d"])
    assert words.calls == []
    encoder(["b"])
    assert words.calls == ["b"]


def test_a_long_caption_takes_the_room_of_several():
    words, encoder = pair(keep_bytes=3 * (ROW + 16))
    encoder(["a", "b", "c"])
    encoder(["longer"])  # 24 + 96 bytes, of 120
    words.calls.clear()
    encoder(["longer"])
    assert words.calls == []
    encoder(["a", "b", "c"])
    assert words.calls == ["a", "b", "c"]


def test_room_is_given_back_when_captions_are_forgotten():
    words, encoder = pair(keep_bytes=3 * (ROW + 16))
    for i in range(20):
        encoder([chr(97 + i)])
    words.calls.clear()
    encoder([chr(97 + i) for i in (17, 18, 19)])
    assert words.calls == []


def test_no_more_is_kept_in_the_long_run_than_fits():
    words, encoder = pair(keep_bytes=3 * (ROW + 16))
    for i in range(20):
        encoder([chr(97 + i)])
    words.calls.clear()
    encoder([chr(97 + 16)])
    assert words.calls == [chr(97 + 16)]


def test_a_caption_of_the_greatest_length_is_encoded():
    assert pair()[1](["x" * LONGEST_CAPTION]).text.shape[1] == LONGEST_CAPTION + 1


def test_a_caption_beyond_all_measure_is_refused_unencoded():
    words, encoder = pair()
    with pytest.raises(UserError, match=r"^caption 'xxxxx.*10,000 characters"):
        encoder(["x" * 10_000])
    assert words.calls == []
