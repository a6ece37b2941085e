"""Captions are encoded once each, alone, and remembered within bounds."""

import pytest
import torch

from flowbrush.condition import MAX_CAPTION, Condition
from flowbrush.errors import UserError
from flowbrush.shapes import ConditionShapes
from flowbrush.text.cached import CachedEncoder

SHAPES = ConditionShapes(text_width=4, text_tokens=99, pooled_width=2)
ROW = (4 + 2) * 4  # bytes of a caption of no letters; each letter is a token of 16 more


class Words:
    """Encodes a caption as a start token and one token a letter, and keeps count."""

    def __init__(self, cut: int = 0) -> None:
        self.calls: list[str] = []
        self.batches: list[int] = []
        self.cut = cut

    def __call__(self, captions: list[str]) -> list[Condition]:
        self.calls += captions
        self.batches.append(len(captions))
        return [self.row(caption) for caption in captions]

    def in_batches(self, captions: list[str], batch: int) -> list[Condition]:
        return [row for caption in captions for row in self([caption])]

    def row(self, caption: str) -> Condition:
        codes = torch.tensor([[float(ord(c))] for c in "^" + caption])
        return Condition(text=torch.sqrt(codes).expand(-1, 4)[None], pooled=codes[-1:].expand(1, 2))


class Lengths:
    """A pooled vector alone: how many letters there are."""

    cut = 0

    def __call__(self, captions: list[str]) -> list[Condition]:
        return [Condition(pooled=torch.tensor([[float(len(c))]])) for c in captions]

    def in_batches(self, captions: list[str], batch: int) -> list[Condition]:
        return self(captions)


def pair(**choices) -> tuple[Words, CachedEncoder]:
    words = Words()
    encoder = CachedEncoder([words], SHAPES, **choices)
    words.calls.clear()  # of the empty caption
    words.batches.clear()
    return words, encoder


def three(**choices) -> tuple[list[Words], CachedEncoder]:
    """The first part's tokens, every part's pooled vector."""

    def join(parts: list[Condition]) -> Condition:
        return Condition(text=parts[0].text, pooled=torch.cat([part.pooled for part in parts], 1))

    models = [Words(cut) for cut in (1, 0, 3)]
    encoder = CachedEncoder(models, SHAPES, join, **choices)
    for model in models:
        model.calls.clear()
    return models, encoder


def test_null_is_the_empty_caption():
    words, encoder = pair()
    expected = words.row("")
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
    encoder = CachedEncoder([Lengths()], shapes)
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
    assert pair()[1](["x" * MAX_CAPTION]).text.shape[1] == MAX_CAPTION + 1


def test_a_caption_beyond_all_measure_is_refused_unencoded():
    words, encoder = pair()
    with pytest.raises(UserError, match=r"^caption 'xxxxx.*10,000 characters"):
        encoder(["x" * 10_000])
    assert words.calls == []


# -- several parts


def heard(condition: Condition) -> list[list[str]]:
    """The last letter that each part heard; "^" where it heard none."""
    return [[chr(int(code)) for code in row[::2]] for row in condition.pooled]


def test_every_part_hears_every_caption():
    assert heard(three()[1](["fox", "cat"])) == [["x"] * 3, ["t"] * 3]


def test_a_silent_part_reads_the_empty_caption():
    silent = torch.tensor([[False, True, False], [True, False, True]])
    condition = three()[1](["fox", "cat"], silent)
    assert heard(condition) == [["x", "^", "x"], ["^", "t", "^"]]
    assert condition.text_mask.tolist() == [[True] * 4, [True] + [False] * 3]


def test_nobody_silent_is_the_plain_call():
    models, encoder = three()
    plain, told = encoder(["fox"]), encoder(["fox"], torch.zeros(1, 3, dtype=torch.bool))
    assert torch.equal(plain.text, told.text) and torch.equal(plain.pooled, told.pooled)
    assert [model.calls for model in models] == [["fox"]] * 3


def test_all_silent_is_null():
    encoder = three()[1]
    condition = encoder(["fox"], torch.ones(1, 3, dtype=torch.bool))
    assert torch.equal(condition.text, encoder.null.text)
    assert torch.equal(condition.pooled, encoder.null.pooled)


def test_each_part_encodes_a_caption_once_whoever_else_is_silent():
    models, encoder = three()
    for number in range(8):
        encoder(["fox"], torch.tensor([[bool(number >> part & 1) for part in range(3)]]))
    assert [model.calls for model in models] == [["fox"]] * 3


def test_a_silent_part_is_not_asked():
    models, encoder = three()
    encoder(["fox"], torch.tensor([[True, False, True]]))
    assert [model.calls for model in models] == [[], ["fox"], []]


def test_the_bytes_are_those_of_all_parts_together():
    models, encoder = three(keep_bytes=3 * (ROW + 16))
    encoder(["a"])
    encoder(["b"])
    encoder(["a"])
    assert [model.calls for model in models] == [["a", "b", "a"]] * 3


@pytest.mark.parametrize("captions", [["fox"], ["fox", "cat", "hen"]])
def test_silence_for_another_number_of_captions_is_an_error(captions):
    with pytest.raises(ValueError, match="zip"):
        three()[1](captions, torch.zeros(2, 3, dtype=torch.bool))


def test_parts_are_counted():
    assert (pair()[1].parts, three()[1].parts) == (1, 3)


def test_cut_captions_are_those_of_all_parts():
    assert three()[1].cut == 4


# -- many at once


def test_many_are_the_same_as_one_at_a_time():
    captions = ["fox", "a", "", "a long caption", "fox"]
    for encoder in (pair()[1], three()[1]):
        for caption, row in zip(captions, encoder.encode_many(captions, batch=2), strict=True):
            alone = encoder([caption])
            assert torch.equal(row.text, alone.text) and torch.equal(row.pooled, alone.pooled)
            assert row.text_mask is None


def test_many_come_in_batches_of_like_length():
    words, encoder = pair()
    encoder.encode_many(["four", "a", "three", "to", "b"], batch=2)
    assert words.calls == ["a", "b", "to", "four", "three"]
    assert words.batches == [2, 2, 1]


def test_many_are_encoded_once_where_they_repeat():
    words, encoder = pair()
    assert len(encoder.encode_many(["fox", "cat", "fox"], batch=8)) == 3
    assert words.calls == ["fox", "cat"]


def test_many_neither_use_nor_fill_the_memory():
    words, encoder = pair()
    encoder(["fox"])
    encoder.encode_many(["fox", "cat"], batch=8)
    encoder(["cat"])
    assert words.calls == ["fox", "fox", "cat", "cat"]


def test_none_is_as_many_as_any():
    assert pair()[1].encode_many([], batch=4) == []


def test_many_with_a_caption_beyond_all_measure_are_refused_unencoded():
    words, encoder = pair()
    with pytest.raises(UserError, match=r"^caption 'xxxxx.*10,000 characters"):
        encoder.encode_many(["fox", "x" * 10_000], batch=1)
    assert words.calls == []


def test_null_may_be_zeros_of_the_same_shape():
    _, empty = pair()
    _, zeros = pair(null="zeros")
    assert zeros.null.text.shape == empty.null.text.shape
    assert not zeros.null.text.any()
    assert not zeros.null.pooled.any()
    assert zeros([""]).text.any(), "the empty caption itself is still encoded"
