"""CLIP's vectors are those that transformers gives, with padding and without."""

import copy
from dataclasses import replace

import pytest
import torch
from transformers import CLIPModel

from flowbrush.errors import UserError
from flowbrush.shapes import ConditionShapes
from flowbrush.text.clip import CLIPConfig, CLIPText, clip_encoder

CPU = torch.device("cpu")
CAPTIONS = ["", "a fox", "A red fox, asleep!", "青い四角 2"]
LONG = "a small red fox sleeps below an old green tree"


def choose(models, **choices) -> CLIPConfig:
    own = {"model": str(models / "text_encoder"), "tokenizer": str(models / "tokenizer")}
    return CLIPConfig(**own | choices)


def by_hand(model, tokenizer, caption, masked=False):
    """The padded caption through transformers, and which of its tokens are real."""
    pieces = tokenizer(caption, padding="max_length", max_length=77, return_tensors="pt")
    mask = pieces.attention_mask if masked else None
    with torch.no_grad():
        out = model(pieces.input_ids, attention_mask=mask, output_hidden_states=True)
    return out, pieces.attention_mask[0].bool()


# -- what transformers gives


@pytest.mark.parametrize("caption", CAPTIONS)
@pytest.mark.parametrize("masked", [True, False])
def test_tokens_without_padding_are_those_that_had_padding(models, caption, masked):
    config = choose(models)
    out, real = by_hand(*config.load(CPU), caption, masked)
    text = config.build(CPU)([caption]).text
    torch.testing.assert_close(text[0], out.last_hidden_state[0, real], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("caption", CAPTIONS)
def test_attended_padding_is_part_of_the_text(models, caption):
    config = choose(models, padding="attended")
    out, _ = by_hand(*config.load(CPU), caption)
    condition = config.build(CPU)([caption])
    assert condition.text.shape == (1, 77, 32)
    torch.testing.assert_close(condition.text, out.last_hidden_state, atol=1e-5, rtol=1e-5)


def test_penultimate_is_what_goes_into_the_last_layer(models):
    config = choose(models, layer="penultimate")
    model, tokenizer = config.load(CPU)
    text = clip_encoder(model, tokenizer, config)(["a fox"]).text
    with torch.no_grad():
        n = text.shape[1]
        mask = torch.full((1, 1, n, n), -torch.inf).triu(1)
        last = model.final_layer_norm(model.encoder.layers[-1](text, mask))
    expected = clip_encoder(model, tokenizer, replace(config, layer="last"))(["a fox"]).text
    torch.testing.assert_close(last, expected, atol=1e-5, rtol=1e-5)


# -- the pooled vector


@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize("end", [2, 513])
@pytest.mark.parametrize("tokenizer", ["tokenizer", "tokenizer_2"])
def test_pooled_is_the_same_with_padding_and_without(models, projected, end, tokenizer):
    config = choose(models, projected=projected, tokenizer=str(models / tokenizer))
    model, words = config.load(CPU)
    (model.text_model if projected else model).eos_token_id = model.config.eos_token_id = end
    short = clip_encoder(model, words, config)(CAPTIONS).pooled
    padded = clip_encoder(model, words, replace(config, padding="attended"))(CAPTIONS).pooled
    torch.testing.assert_close(short, padded, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(short[0], short[1], atol=1e-2)


def test_pooled_is_the_last_token(models):
    condition = choose(models).build(CPU)(["a fox"])
    assert torch.equal(condition.pooled, condition.text[:, -1])


def test_the_projection_is_of_the_pooled_vector(models):
    config = choose(models, projected=True)
    model, tokenizer = config.load(CPU)
    condition = clip_encoder(model, tokenizer, config)(["a fox"])
    with torch.no_grad():
        expected = model.text_projection(condition.text[:, -1])
    torch.testing.assert_close(condition.pooled, expected)


# -- batches


def test_captions_of_different_lengths_are_masked(models):
    mask = choose(models).build(CPU)(["a fox", "", "a red fox"]).text_mask
    assert mask.sum(dim=1).tolist() == [6, 2, 9]


def test_nothing_is_masked_where_padding_is_attended(models):
    assert choose(models, padding="attended").build(CPU)(["a fox", ""]).text_mask is None


def test_null_is_the_empty_caption(models):
    encoder = choose(models).build(CPU)
    assert encoder.null.text.shape == (1, 2, 32)
    assert torch.equal(encoder.null.text, encoder([""]).text)


@pytest.mark.parametrize(("projected", "pooled"), [(False, 32), (True, 16)])
def test_shapes_say_what_a_condition_holds(models, projected, pooled):
    encoder = choose(models, projected=projected, tokens=9).build(CPU)
    assert encoder.shapes == ConditionShapes(text_width=32, text_tokens=9, pooled_width=pooled)
    condition = encoder([LONG])
    assert condition.text.shape == (1, 9, 32)
    assert condition.pooled.shape == (1, pooled)


@pytest.mark.parametrize("padding", ["masked", "attended"])
@pytest.mark.parametrize("end", [2, 513])
def test_many_captions_at_once_are_the_same_to_rounding(models, padding, end):
    config = choose(models, padding=padding, layer="penultimate", projected=True)
    model, words = config.load(CPU)
    model.text_model.eos_token_id = model.config.eos_token_id = end
    encoder = clip_encoder(model, words, config)
    captions = [*CAPTIONS, LONG * 2]
    for caption, row in zip(captions, encoder.encode_many(captions, batch=5), strict=True):
        alone = encoder([caption])
        torch.testing.assert_close(row.text, alone.text, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(row.pooled, alone.pooled, atol=1e-5, rtol=1e-5)


# -- long captions


def test_a_long_caption_is_cut_before_its_end_token(models):
    cut, whole = (choose(models, tokens=n).build(CPU)([LONG]) for n in (8, 77))
    torch.testing.assert_close(cut.text[:, :7], whole.text[:, :7], atol=1e-5, rtol=1e-5)
    assert torch.equal(cut.pooled, cut.text[:, -1])


def test_the_first_cut_caption_is_shown_and_each_is_counted(models, capsys):
    config = choose(models, tokens=8)
    text = CLIPText(*config.load(CPU), config)
    text(["a fox", LONG, LONG + "!", ""])
    assert text.cut == 2
    assert capsys.readouterr().err == (
        "caption 'a small red fox sleeps below a...' has 39 tokens; CLIP reads the first 8, of "
        "this and of any longer one\n"
    )


def test_a_caption_that_just_fits_is_not_cut(models, capsys):
    config = choose(models, tokens=6)
    text = CLIPText(*config.load(CPU), config)
    text(["a fox"])
    assert text.cut == 0
    assert capsys.readouterr().err == ""


# -- the model is only looked at


def test_the_model_is_frozen_and_unchanged(models):
    config = choose(models)
    model, tokenizer = config.load(CPU)
    before = copy.deepcopy(model.state_dict())
    condition = clip_encoder(model, tokenizer, config)(CAPTIONS)
    assert not condition.text.requires_grad and not condition.pooled.requires_grad
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_a_model_in_bf16_gives_vectors_in_fp32(models):
    config = choose(models, dtype="bf16", projected=True)
    assert config.load(CPU)[0].dtype == torch.bfloat16
    condition = config.build(CPU)(["a fox"])
    exact = choose(models, projected=True).build(CPU)(["a fox"])
    assert condition.text.dtype == condition.pooled.dtype == torch.float32
    torch.testing.assert_close(condition.text, exact.text, atol=0.1, rtol=0.1)


def test_the_text_half_of_a_whole_clip_is_loaded(models, tmp_path):
    config = choose(models, projected=True)
    model, _ = config.load(CPU)
    whole = CLIPModel(
        CLIPModel.config_class(
            text_config=model.config.to_dict(),
            vision_config={"hidden_size": 16, "num_attention_heads": 1, "num_hidden_layers": 1}
            | {"intermediate_size": 16, "image_size": 8, "patch_size": 8},
            projection_dim=16,
        )
    )
    whole.load_state_dict(model.state_dict(), strict=False)
    whole.save_pretrained(tmp_path)
    of_whole = replace(config, model=str(tmp_path)).build(CPU)(["a fox"])
    torch.testing.assert_close(of_whole.pooled, config.build(CPU)(["a fox"]).pooled)


# -- errors


def test_more_tokens_than_clip_has_positions_are_refused(models):
    with pytest.raises(UserError, match=r"^text\.tokens: 78; this CLIP reads at most 77$"):
        choose(models, tokens=78).build(CPU)


def test_a_t5_is_no_clip(models):
    with pytest.raises(UserError, match=r"^text: \S+text_encoder_3 is a t5, not a CLIP$"):
        choose(models, model=str(models / "text_encoder_3")).build(CPU)


def test_a_tokenizer_with_another_end_is_refused(models):
    with pytest.raises(
        UserError, match=r"^text: this CLIP pools at token 513, its tokenizer .* 1;"
    ):
        choose(models, tokenizer=str(models / "tokenizer_3")).build(CPU)


def test_a_model_without_the_projection_is_refused_where_it_is_wanted(models, tmp_path):
    model, _ = choose(models).load(CPU)
    model.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"^text: \S+ lacks 1 weights of a CLIPTextModelWith.*text"):
        choose(models, model=str(tmp_path), projected=True).build(CPU)
