"""A language model's vectors are those that transformers gives, with padding on either side."""

import copy

import pytest
import torch
import transformers
from torch import nn
from transformers import PreTrainedTokenizerFast

from flowbrush import config_io
from flowbrush.errors import UserError
from flowbrush.shapes import ConditionShapes
from flowbrush.text.llm import KINDS, LLMConfig, LLMText, llm_encoder
from flowbrush.text.tiny import tiny_llm

CPU = torch.device("cpu")
CAPTIONS = ["", "a fox", "A red fox, asleep!", "青い四角が三つ"]
LONG = "a small red fox sleeps below an old green tree"
SIZES = {"vocab_size": 260, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3}
SIZES |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("llm")
    tiny_llm(place, place, width=32)
    return place


@pytest.fixture(scope="module")
def words(folder):
    return PreTrainedTokenizerFast.from_pretrained(folder)


def choose(folder, **choices) -> LLMConfig:
    return LLMConfig(**{"model": str(folder), "tokens": 64} | choices)


def model_of(kind: str, make=transformers.AutoModel) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make.from_config(transformers.AutoConfig.for_model(kind, **SIZES)).eval()


def without_begin(words, **choices):
    """The tokenizer as Qwen's are: nothing is put before a caption."""
    return PreTrainedTokenizerFast(
        tokenizer_object=_plain(words), eos_token="</s>", pad_token="</s>", **choices
    )


def _plain(words):
    from tokenizers.processors import ByteLevel

    plain = copy.deepcopy(words.backend_tokenizer)
    plain.post_processor = ByteLevel(trim_offsets=False)
    return plain


# -- what transformers gives


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", KINDS)
def test_tokens_without_padding_are_those_whose_padding_was_masked(words, kind, side):
    model = model_of(kind)
    encoder = llm_encoder(model, words, LLMConfig(tokens=64))
    padder = copy.deepcopy(words)
    padder.pad_token, padder.padding_side = padder.eos_token, side
    pieces = padder(CAPTIONS, padding=True, return_tensors="pt")
    real = pieces.attention_mask
    # A caption's first token is at position 0, also behind padding on its left.
    places = (real.cumsum(dim=1) - 1).clamp(min=0)
    with torch.no_grad():
        out = model(pieces.input_ids, attention_mask=real, position_ids=places)
    for caption, row, kept in zip(CAPTIONS, out.last_hidden_state, real.bool(), strict=True):
        text = encoder([caption]).text
        torch.testing.assert_close(text[0], row[kept], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_many_captions_at_once_are_the_same_to_rounding(words, kind):
    encoder = llm_encoder(model_of(kind), words, LLMConfig(tokens=64, layer=-2, pooled="mean"))
    captions = [*CAPTIONS, LONG * 2]
    for caption, row in zip(captions, encoder.encode_many(captions, batch=5), strict=True):
        alone = encoder([caption])
        torch.testing.assert_close(row.text, alone.text, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(row.pooled, alone.pooled, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_no_token_hears_those_behind_it(words, kind):
    encoder = llm_encoder(model_of(kind), words, LLMConfig(tokens=64))
    short, long = (encoder([caption]).text for caption in ("a fox", "a fox that sleeps"))
    torch.testing.assert_close(long[:, : short.shape[1]], short, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma2"])
def test_a_whole_language_model_is_loaded_without_its_head(folder, tmp_path, kind):
    whole = model_of(kind, transformers.AutoModelForCausalLM)
    whole.save_pretrained(tmp_path)
    config = choose(tmp_path, tokenizer=str(folder))
    model, tokenizer = config.load(CPU)
    assert not any("lm_head" in name for name in model.state_dict())
    with torch.no_grad():
        expected = whole.model(**tokenizer("a fox", return_tensors="pt")).last_hidden_state
    torch.testing.assert_close(config.build(CPU)(["a fox"]).text, expected, atol=1e-5, rtol=1e-5)


# -- layers


def test_a_layer_counts_from_the_last_which_is_normalized(folder):
    model, words = choose(folder).load(CPU)
    seen = []
    model.layers[-1].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model.norm.register_forward_hook(lambda *of: seen.append(of[2]))
    for layer, expected in ((-2, 0), (-1, 1)):
        seen.clear()
        text = LLMText(model, words, choose(folder, layer=layer))(["a fox"])[0].text
        assert torch.equal(text, seen[expected])


@pytest.mark.parametrize("layer", [0, 1, -3])
def test_a_layer_that_is_not_there_is_refused(folder, layer):
    with pytest.raises(UserError, match=rf"^text\.layer: {layer}; this llama has -1 \.\.\. -2$"):
        choose(folder, layer=layer).build(CPU)


# -- the pooled vector


def test_there_is_no_pooled_vector_unless_it_is_asked_for(folder):
    assert choose(folder).build(CPU)(["a fox"]).pooled is None


def test_the_mean_of_the_tokens_stands_beside_them(folder):
    plain, mean = choose(folder).build(CPU), choose(folder, pooled="mean").build(CPU)
    condition = mean(["a fox", LONG])
    assert torch.equal(condition.text, plain(["a fox", LONG]).text)
    real = condition.text_mask.sum(dim=1, keepdim=True)  # zeros stand behind a caption's end
    torch.testing.assert_close(condition.pooled, condition.text.sum(dim=1) / real)


# -- the empty caption


def test_null_is_the_token_that_begins_a_text(folder):
    encoder = choose(folder).build(CPU)
    assert encoder.null.text.shape == (1, 1, 32)
    assert torch.equal(encoder.null.text, encoder([""]).text)


def test_null_may_be_zeros(folder):
    assert not choose(folder, null="zeros").build(CPU).null.text.any()


@pytest.mark.parametrize(
    ("begin", "token"), [({}, 1), ({"bos_token": "<s>"}, 0)], ids=["end alone", "begin and end"]
)
def test_null_is_one_token_where_the_tokenizer_adds_none(folder, words, begin, token):
    model, _ = choose(folder).load(CPU)
    encoder = llm_encoder(model, without_begin(words, **begin), choose(folder))
    expected = model(torch.tensor([[token]])).last_hidden_state
    assert torch.equal(encoder.null.text, expected)
    assert encoder(["a fox"]).text.shape == (1, 5, 32)


def test_a_tokenizer_without_any_token_for_it_is_refused(folder, words):
    bare = PreTrainedTokenizerFast(tokenizer_object=_plain(words))
    with pytest.raises(UserError, match=r"^text: llama's tokenizer has no token for an empty capt"):
        llm_encoder(choose(folder).load(CPU)[0], bare, choose(folder))


# -- long captions and shapes


def test_japanese_is_read(folder):
    encoder = choose(folder).build(CPU)
    assert encoder(["青"]).text.shape == (1, 4, 32)  # a letter of three bytes
    assert not torch.equal(encoder(["青"]).text, encoder(["赤"]).text)


def test_a_long_caption_is_cut_and_counted(folder, capsys):
    cut, whole = choose(folder, tokens=8).build(CPU), choose(folder).build(CPU)
    for caption in ("a fox", LONG, LONG + "!", LONG):
        cut([caption])
    assert cut.cut == 2
    torch.testing.assert_close(cut([LONG]).text, whole([LONG]).text[:, :8], atol=1e-5, rtol=1e-5)
    assert capsys.readouterr().err == (
        "caption 'a small red fox sleeps below a...' has 47 tokens; llama reads the first 8, of "
        "this and of any longer one\n"
    )


@pytest.mark.parametrize(("pooled", "width"), [("none", None), ("mean", 32)])
def test_shapes_say_what_a_condition_holds(folder, pooled, width):
    encoder = choose(folder, pooled=pooled, tokens=9).build(CPU)
    assert encoder.shapes == ConditionShapes(text_width=32, text_tokens=9, pooled_width=width)
    assert encoder([LONG]).text.shape == (1, 9, 32)
    assert encoder.parts == 1


# -- the model is only looked at


def test_the_model_is_frozen_and_unchanged(folder):
    config = choose(folder, pooled="mean")
    model, tokenizer = config.load(CPU)
    before = copy.deepcopy(model.state_dict())
    condition = llm_encoder(model, tokenizer, config)(CAPTIONS)
    assert not condition.text.requires_grad and not condition.pooled.requires_grad
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_a_model_in_bf16_gives_vectors_in_fp32(folder):
    config = choose(folder, dtype="bf16")
    assert config.load(CPU)[0].dtype == torch.bfloat16
    assert config.build(CPU)(["a fox"]).text.dtype == torch.float32


# -- errors


def test_a_clip_is_no_language_model(models):
    with pytest.raises(UserError, match=r"^text: \S+ is a clip_text_model, not one of llama, mist"):
        choose(models / "text_encoder").build(CPU)


def test_more_tokens_than_there_are_positions_are_refused(folder):
    with pytest.raises(UserError, match=r"^text\.tokens: 2049; this llama reads at most 2048$"):
        choose(folder, tokens=2049).build(CPU)


def test_a_tokenizer_of_more_tokens_than_the_model_is_refused(models, folder):
    with pytest.raises(UserError, match=r"^text: a tokenizer of 514 tokens .* to a llama of 258; "):
        choose(folder, tokenizer=str(models / "tokenizer")).build(CPU)


def test_a_config_comes_back_from_json():
    config = LLMConfig(layer=-2, pooled="mean")
    assert config_io.from_json(LLMConfig, config_io.to_json(config), "text") == config
