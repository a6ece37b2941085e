"""One vector for a sentence and its translation."""

import os
import subprocess
import sys

import pytest
import torch

from flowbrush.errors import UserError
from flowbrush.shapes import ConditionShapes
from flowbrush.text.cached import CachedEncoder
from flowbrush.text.sentence import SentenceConfig, pieces

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def encoder() -> CachedEncoder:
    return SentenceConfig().build(CPU)


def cosine(encoder: CachedEncoder, first: str, second: str) -> float:
    a, b = encoder([first, second]).pooled
    return float(torch.cosine_similarity(a, b, dim=0))


@pytest.mark.parametrize("caption", ["cat", "赤いリンゴ", "a red circle above a blue square", ""])
def test_a_vector_has_unit_variance(encoder, caption):
    assert float(encoder([caption]).pooled.norm()) == pytest.approx(512**0.5, rel=1e-5)


@pytest.mark.parametrize(("english", "japanese"), [("cat", "猫"), ("dog", "犬"), ("house", "家")])
def test_a_word_is_near_its_translation(encoder, english, japanese):
    assert cosine(encoder, english, japanese) > 0.8


@pytest.mark.parametrize("cat", ["cat", "猫"])
def test_a_word_is_far_from_another(encoder, cat):
    assert cosine(encoder, cat, "truck") < 0.6


def test_the_text_is_one_token_equal_to_the_pooled_vector(encoder):
    condition = encoder(["cat", "a red apple"])
    assert torch.equal(condition.text, condition.pooled[:, None])


def test_captions_of_any_length_need_no_mask(encoder):
    assert encoder(["cat", "a cat that sleeps on a warm roof"]).text_mask is None


def test_null_is_the_empty_caption(encoder):
    assert torch.equal(encoder.null.pooled, encoder([""]).pooled)


def test_a_caption_has_the_same_bits_in_any_batch(encoder):
    alone = SentenceConfig().build(CPU)(["fox"]).pooled[0]
    assert torch.equal(SentenceConfig().build(CPU)(["cat", "fox"]).pooled[1], alone)


def test_many_captions_are_read_one_by_one(encoder):
    rows = encoder.encode_many(["cat", "猫"], batch=2)
    assert torch.equal(torch.cat([row.text for row in rows]), encoder(["cat", "猫"]).text)


def test_shapes_say_what_a_condition_holds(encoder):
    assert encoder.shapes == ConditionShapes(text_width=512, text_tokens=1, pooled_width=512)
    condition = encoder(["cat"])
    assert (condition.text.shape, condition.pooled.shape) == ((1, 1, 512), (1, 512))


def test_the_encoder_is_no_part_of_what_is_trained(encoder):
    assert not isinstance(encoder, torch.nn.Module)
    assert not encoder(["cat"]).pooled.requires_grad


def test_the_vectors_do_not_depend_on_the_number_of_threads():
    code = (
        "from flowbrush.text import SentenceConfig; import hashlib;"
        "text = SentenceConfig().build('cpu')(['fox', 'キツネの顔', 'a red apple']).pooled;"
        "print(hashlib.sha256(text.numpy().tobytes()).hexdigest())"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "OPENBLAS_NUM_THREADS": threads},
            capture_output=True,
            check=True,
        ).stdout
        for threads in ("1", "2")
    }
    assert len(said) == 1


# -- pieces of words beside it


def test_pieces_of_words_follow_the_sentences_vector(encoder):
    found = SentenceConfig(words=12).build(CPU)(["a red circle above a blue star"])
    assert torch.equal(found.pooled, encoder(["a red circle above a blue star"]).pooled)
    assert torch.equal(found.text[:, 0], found.pooled)
    assert found.text.shape[1] > 7
    torch.testing.assert_close(found.text.norm(dim=2), torch.full(found.text.shape[:2], 512**0.5))


def test_a_piece_is_the_same_wherever_it_stands():
    words = SentenceConfig(words=12).build(CPU)
    first, second = (words([caption]).text[0] for caption in ("red star", "star red"))
    assert torch.equal(first[1:].sort(dim=0).values, second[1:].sort(dim=0).values)
    assert not torch.equal(first[1:], second[1:])


def test_more_pieces_than_are_read_are_cut_and_counted():
    words = SentenceConfig(words=3).build(CPU)
    assert words(["a red circle above a blue star"]).text.shape[1] == 4
    assert words.cut == 1
    assert SentenceConfig(words=3).build(CPU).null.text.shape[1] <= 4


def test_fewer_pieces_than_none_are_refused():
    with pytest.raises(UserError, match=r"text\.words: -1"):
        SentenceConfig(words=-1)


def test_pieces_are_named_as_they_are_written():
    caption = "a red circle"
    assert pieces(caption) == ["<s>", "▁a", "▁red", "▁circle", "</s>"]
    words = SentenceConfig(words=12).build(CPU)
    assert words([caption]).text.shape[1] == 1 + len(pieces(caption))
