"""Flux's and SD3's reading of a caption is that of diffusers' pipelines."""

from dataclasses import replace

import pytest
import torch
from diffusers import FluxPipeline, SD3Transformer2DModel, StableDiffusion3Pipeline

from flowbrush import config_io
from flowbrush.errors import UserError
from flowbrush.shapes import ConditionShapes
from flowbrush.text.cached import CachedEncoder
from flowbrush.text.joined import FluxTextConfig, SD3TextConfig

CPU = torch.device("cpu")
CAPTIONS = ["", "a fox", "A red fox! Asleep!!", "青い四角 きつね"]


def places(models, number: str) -> dict[str, str]:
    return {
        "model": str(models / f"text_encoder{number}"),
        "tokenizer": str(models / f"tokenizer{number}"),
    }


def flux(models, **t5) -> FluxTextConfig:
    own = FluxTextConfig()
    return FluxTextConfig(
        clip=replace(own.clip, **places(models, "")),
        t5=replace(own.t5, **places(models, "_3") | t5),
    )


def sd3(models, **every) -> SD3TextConfig:
    own = SD3TextConfig()
    return SD3TextConfig(
        clip_l=replace(own.clip_l, **places(models, "") | every),
        clip_g=replace(own.clip_g, **places(models, "_2") | every),
        t5=replace(own.t5, **places(models, "_3") | every),
        width=96,
    )


def check(encoder: CachedEncoder, text: torch.Tensor, pooled: torch.Tensor) -> None:
    condition = encoder(CAPTIONS)
    assert condition.text_mask is None
    torch.testing.assert_close(condition.text, text, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(condition.pooled, pooled, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(encoder.null.text, text[:1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(encoder.null.pooled, pooled[:1], atol=1e-5, rtol=1e-5)


# -- what diffusers gives


def test_flux_reads_a_caption_as_diffusers_does(models):
    config = flux(models)
    (clip, words), (t5, pieces) = config.clip.load(CPU), config.t5.load(CPU)
    pipeline = FluxPipeline(None, None, clip, words, t5, pieces, None)
    text, pooled, _ = pipeline.encode_prompt(CAPTIONS, device=CPU, max_sequence_length=256)
    check(config.build(CPU), text, pooled)


def test_sd3_reads_a_caption_as_diffusers_does(models):
    config = sd3(models)
    clip_l, clip_g, t5 = (part.load(CPU) for part in (config.clip_l, config.clip_g, config.t5))
    pipeline = StableDiffusion3Pipeline(None, None, None, *clip_l, *clip_g, *t5)
    text, _, pooled, _ = pipeline.encode_prompt(CAPTIONS, None, None, device=CPU)
    check(config.build(CPU), text, pooled)


def test_sd3_without_a_t5_reads_a_caption_as_diffusers_does(models):
    config = replace(sd3(models), t5=None)
    network = SD3Transformer2DModel(
        num_layers=1, attention_head_dim=8, num_attention_heads=2, joint_attention_dim=96
    )
    clip_l, clip_g = config.clip_l.load(CPU), config.clip_g.load(CPU)
    pipeline = StableDiffusion3Pipeline(network, None, None, *clip_l, *clip_g, None, None)
    text, _, pooled, _ = pipeline.encode_prompt(CAPTIONS, None, None, device=CPU)
    check(config.build(CPU), text, pooled)


# -- shapes


def test_flux_has_t5s_tokens_and_clips_pooled_vector(models):
    shapes = flux(models).build(CPU).shapes
    assert shapes == ConditionShapes(text_width=96, text_tokens=256, pooled_width=32)


@pytest.mark.parametrize("t5", [True, False])
def test_sd3_has_every_models_tokens_and_both_pooled_vectors(models, t5):
    config = sd3(models) if t5 else replace(sd3(models), t5=None)
    encoder = config.build(CPU)
    assert encoder.shapes == ConditionShapes(text_width=96, text_tokens=333, pooled_width=40)
    assert encoder.null.text.shape == (1, 333, 96)
    assert encoder.null.pooled.shape == (1, 40)


# -- without padding


def test_masked_flux_has_the_tokens_of_a_masked_t5(models):
    config = flux(models, padding="masked")
    condition, alone = config.build(CPU)(CAPTIONS), config.t5.build(CPU)(CAPTIONS)
    assert torch.equal(condition.text, alone.text)
    assert torch.equal(condition.text_mask, alone.text_mask)


def test_masked_sd3_has_the_real_tokens_of_each_model(models):
    config = sd3(models, padding="masked")
    text = config.build(CPU)(["a fox"]).text
    clip_l, clip_g, t5 = (
        part.build(CPU)(["a fox"]).text for part in (config.clip_l, config.clip_g, config.t5)
    )
    assert text.shape == (1, 6 + 7, 96)
    assert torch.equal(text[:, :6, :32], clip_l)
    assert torch.equal(text[:, :6, 32:80], clip_g)
    assert (text[:, :6, 80:] == 0).all()
    assert torch.equal(text[:, 6:], t5)


def test_masked_sd3_without_a_t5_has_the_clips_tokens_alone(models):
    encoder = replace(sd3(models, padding="masked"), t5=None).build(CPU)
    assert encoder(["a fox"]).text.shape == (1, 6, 96)
    assert encoder.shapes.text_tokens == 77


def test_a_token_that_one_of_the_clips_does_not_have_is_zero_there(models):
    config = sd3(models, padding="masked")
    config = replace(config, clip_l=replace(config.clip_l, tokens=4))
    text = config.build(CPU)(["a fox"]).text[0]
    assert (text[4:6, :32] == 0).all()
    assert (text[:4, :32] != 0).all() and (text[:6, 32:80] != 0).all()


# -- parts that do not hear


def test_flux_with_a_silent_t5_keeps_clips_vector(models):
    encoder = flux(models, padding="masked").build(CPU)
    condition, whole = encoder(["a fox"], torch.tensor([[False, True]])), encoder(["a fox"])
    assert torch.equal(condition.text, encoder.null.text)
    assert torch.equal(condition.pooled, whole.pooled)


def test_flux_with_a_silent_clip_keeps_t5s_tokens(models):
    encoder = flux(models).build(CPU)
    condition, whole = encoder(["a fox"], torch.tensor([[True, False]])), encoder(["a fox"])
    assert torch.equal(condition.text, whole.text)
    assert torch.equal(condition.pooled, encoder.null.pooled)


def test_a_silent_part_of_sd3_is_that_of_the_empty_caption_where_it_stands(models):
    encoder = sd3(models).build(CPU)
    condition, whole = encoder(["a fox"], torch.tensor([[False, True, False]])), encoder(["a fox"])
    text, pooled = whole.text.clone(), whole.pooled.clone()
    text[:, :77, 32:80], pooled[:, 16:] = (
        encoder.null.text[:, :77, 32:80],
        encoder.null.pooled[:, 16:],
    )
    assert torch.equal(condition.text, text) and torch.equal(condition.pooled, pooled)
    assert not torch.equal(whole.text, text) and not torch.equal(whole.pooled, pooled)


def test_as_many_parts_hear_as_there_are_models(models):
    configs = flux(models), sd3(models), replace(sd3(models), t5=None)
    assert [config.build(CPU).parts for config in configs] == [2, 3, 2]


# -- many at once


@pytest.mark.parametrize("padding", ["masked", "attended"])
@pytest.mark.parametrize("choose", [flux, sd3])
def test_many_captions_at_once_are_the_same_to_rounding(models, choose, padding):
    encoder = choose(models, padding=padding).build(CPU)
    for caption, row in zip(CAPTIONS, encoder.encode_many(CAPTIONS, batch=3), strict=True):
        alone = encoder([caption])
        torch.testing.assert_close(row.text, alone.text, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(row.pooled, alone.pooled, atol=1e-5, rtol=1e-5)


# -- small things


def test_cut_captions_are_counted_for_each_model(models, capsys):
    encoder = flux(models, tokens=60).build(CPU)
    encoder(["a caption in between: long for T5, while CLIP reads all of it", "a fox"])
    assert encoder.cut == 1
    encoder(["a long caption " * 7])
    assert encoder.cut == 3
    shown = capsys.readouterr().err
    assert "CLIP reads the first 77" in shown and "T5 reads the first 60" in shown


def test_a_t5_narrower_than_both_clips_is_refused(models):
    with pytest.raises(
        UserError, match=r"^text: both CLIPs' vectors are 80 wide, more than T5's 64"
    ):
        replace(sd3(models), t5=None, width=64).build(CPU)


@pytest.mark.parametrize("config", [FluxTextConfig(), SD3TextConfig(), SD3TextConfig(t5=None)])
def test_a_config_comes_back_from_json(config):
    assert config_io.from_json(type(config), config_io.to_json(config), "text") == config
