"""T5's vectors are those that transformers gives, with padding and without."""

import copy

import pytest
import torch
import transformers
from diffusers import PixArtSigmaPipeline

from flowbrush.errors import UserError
from flowbrush.shapes import ConditionShapes
from flowbrush.text.t5 import T5Config, T5Text, t5_encoder

CPU = torch.device("cpu")
CAPTIONS = ["", "a fox", "A red fox, asleep!", " きつね 狐 "]
LONG = "a small red fox sleeps below an old green tree"


def choose(models, **choices) -> T5Config:
    own = {"model": str(models / "text_encoder_3"), "tokenizer": str(models / "tokenizer_3")}
    return T5Config(**{"tokens": 64} | own | choices)


def t5gemma(folder) -> torch.nn.Module:
    """A whole model, written into the folder; its encoder."""
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "head_dim": 16}
    sizes |= {"num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 288}
    module = transformers.T5GemmaModuleConfig(**sizes)
    config = transformers.T5GemmaConfig(encoder=module, decoder=module, vocab_size=288)
    whole = transformers.T5GemmaForConditionalGeneration(config).eval()
    whole.save_pretrained(folder)
    return whole.model.encoder


# -- what transformers gives


@pytest.mark.parametrize("caption", CAPTIONS)
def test_tokens_without_padding_are_those_whose_padding_was_masked(models, caption):
    config = choose(models)
    model, tokenizer = config.load(CPU)
    pieces = tokenizer(caption, padding="max_length", max_length=64, return_tensors="pt")
    expected = model(**pieces).last_hidden_state[0, pieces.attention_mask[0].bool()]
    text = t5_encoder(model, tokenizer, config)([caption]).text
    torch.testing.assert_close(text[0], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("caption", CAPTIONS)
def test_attended_padding_is_read_as_any_token(models, caption):
    config = choose(models, padding="attended")
    model, tokenizer = config.load(CPU)
    pieces = tokenizer(caption, padding="max_length", max_length=64, return_tensors="pt")
    expected = model(pieces.input_ids).last_hidden_state
    condition = t5_encoder(model, tokenizer, config)([caption])
    assert condition.text_mask is None
    torch.testing.assert_close(condition.text, expected, atol=1e-5, rtol=1e-5)


def test_lower_case_and_masked_is_what_pixart_reads(models):
    config = choose(models, lowercase=True)
    model, tokenizer = config.load(CPU)
    pipeline = PixArtSigmaPipeline(tokenizer, model, None, None, None)
    expected, mask, null, null_mask = pipeline.encode_prompt(
        CAPTIONS, device=CPU, max_sequence_length=64
    )
    encoder = t5_encoder(model, tokenizer, config)
    condition = encoder(CAPTIONS)
    longest = condition.text.shape[1]
    assert torch.equal(condition.text_mask, mask[:, :longest].bool())
    expected = (expected * mask[..., None])[:, :longest]
    torch.testing.assert_close(condition.text, expected, atol=1e-5, rtol=1e-5)
    null = null[:1, null_mask[0].bool()]
    torch.testing.assert_close(encoder.null.text, null, atol=1e-5, rtol=1e-5)


def test_case_is_kept_unless_it_is_asked_for(models):
    encoder = choose(models).build(CPU)
    assert not torch.equal(encoder(["Fox"]).text, encoder(["fox"]).text)


# -- other kinds


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (transformers.MT5Config, "MT5ForConditionalGeneration"),
        (transformers.UMT5Config, "UMT5ForConditionalGeneration"),
        (transformers.T5Config, "T5ForConditionalGeneration"),
    ],
)
def test_the_encoder_of_a_whole_model_is_loaded(models, tmp_path, config, kind):
    sizes = {"d_model": 32, "d_kv": 16, "d_ff": 32, "num_layers": 2, "num_heads": 2}
    whole = getattr(transformers, kind)(config(vocab_size=300, **sizes)).eval()
    whole.save_pretrained(tmp_path)
    own = choose(models, model=str(tmp_path))
    model, tokenizer = own.load(CPU)
    assert not any("decoder" in name for name in model.state_dict())
    pieces = tokenizer("a fox", return_tensors="pt")
    expected = whole.encoder(**pieces).last_hidden_state
    text = t5_encoder(model, tokenizer, own)(["a fox"]).text
    torch.testing.assert_close(text, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("padding", ["masked", "attended"])
def test_the_encoder_of_t5gemma_is_loaded(models, tmp_path, padding):
    encoder = t5gemma(tmp_path)
    config = choose(models, model=str(tmp_path), padding=padding)
    model, tokenizer = config.load(CPU)
    padded = tokenizer("a fox", padding="max_length", max_length=64, return_tensors="pt")
    real = padded.attention_mask
    seen = real if padding == "masked" else torch.ones_like(real)
    expected = encoder(padded.input_ids, attention_mask=seen).last_hidden_state[0, seen[0].bool()]
    text = t5_encoder(model, tokenizer, config)(["a fox"]).text
    torch.testing.assert_close(text[0], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("padding", ["masked", "attended"])
@pytest.mark.parametrize("kind", ["t5", "t5gemma"])
def test_many_captions_at_once_are_the_same_to_rounding(models, tmp_path, padding, kind):
    config = choose(models, padding=padding)
    if kind == "t5gemma":
        t5gemma(tmp_path)
        config = choose(models, padding=padding, model=str(tmp_path))
    encoder, captions = config.build(CPU), [*CAPTIONS, LONG * 2]
    for caption, row in zip(captions, encoder.encode_many(captions, batch=5), strict=True):
        torch.testing.assert_close(row.text, encoder([caption]).text, atol=1e-5, rtol=1e-5)


# -- batches and long captions


def test_captions_of_different_lengths_are_masked(models):
    mask = choose(models).build(CPU)(["fox", "", "a fox"]).text_mask
    assert mask.sum(dim=1).tolist() == [5, 1, 7]


def test_null_is_the_empty_caption(models):
    encoder = choose(models).build(CPU)
    assert encoder.null.text.shape == (1, 1, 96)
    assert torch.equal(encoder.null.text, encoder([""]).text)


def test_shapes_say_what_a_condition_holds(models):
    encoder = choose(models, tokens=9).build(CPU)
    assert encoder.shapes == ConditionShapes(text_width=96, text_tokens=9)
    condition = encoder([LONG])
    assert condition.text.shape == (1, 9, 96)
    assert condition.pooled is None


def test_a_cut_caption_keeps_its_end_token(models):
    config = choose(models, tokens=9)
    text = T5Text(*config.load(CPU), config)
    long, empty = (text.reader([caption]).numbers for caption in (LONG, ""))
    assert long[0, -1] == empty[0, -1]


def test_the_first_cut_caption_is_shown_and_each_is_counted(models, capsys):
    config = choose(models, tokens=9)
    text = T5Text(*config.load(CPU), config)
    text(["a fox", LONG, LONG + "!", ""])
    assert text.cut == 2
    assert capsys.readouterr().err == (
        "caption 'a small red fox sleeps below a...' has 48 tokens; T5 reads the first 9, of "
        "this and of any longer one\n"
    )


# -- the model is only looked at


def test_the_model_is_frozen_and_unchanged(models):
    config = choose(models)
    model, tokenizer = config.load(CPU)
    before = copy.deepcopy(model.state_dict())
    condition = t5_encoder(model, tokenizer, config)(CAPTIONS)
    assert not condition.text.requires_grad
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_a_model_in_bf16_gives_vectors_in_fp32(models):
    config = choose(models, dtype="bf16")
    assert config.load(CPU)[0].dtype == torch.bfloat16
    assert config.build(CPU)(["a fox"]).text.dtype == torch.float32


# -- errors


def test_a_clip_is_no_t5(models):
    with pytest.raises(UserError, match=r"^text: \S+ is a clip_text_model, not one of t5, mt5, um"):
        choose(models, model=str(models / "text_encoder")).build(CPU)


def test_a_tokenizer_of_more_tokens_than_the_model_is_refused(models):
    with pytest.raises(UserError, match=r"^text: a tokenizer of 514 tokens .* to a T5 of 288; "):
        choose(models, tokenizer=str(models / "tokenizer")).build(CPU)
