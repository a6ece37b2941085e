"""Whatever is wrong with a model's place is said in one line."""

import sys
from functools import partial

import httpx
import pytest
import torch
from huggingface_hub import constants, errors
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel

from flowbrush.errors import UserError
from flowbrush.text.clip import CLIPConfig
from flowbrush.text.llm import LLMConfig
from flowbrush.text.pretrained import load_model, load_tokenizer, model_type
from flowbrush.text.t5 import T5Config
from flowbrush.text.tiny import tiny_clip, tiny_llm, tiny_t5

CPU = torch.device("cpu")


def load_clip(place, dtype="fp32"):
    return load_model(CLIPTextModel.from_pretrained, str(place), dtype, CPU)


def refused(error, line: str, words: str = "the hub's own words\nin several lines") -> None:
    """Loading that fails as the hub's client does fails with this line."""

    def fails(*_, **__):
        raise OSError(words) from error

    with pytest.raises(UserError, match=line):
        load_model(fails, "owner/name", "fp32", CPU)


def answer(status: int) -> httpx.Response:
    return httpx.Response(status, request=httpx.Request("GET", "https://huggingface.co"))


# -- what is loaded


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_model_is_frozen_and_of_the_type_that_was_asked_for(models, dtype):
    model = load_clip(models / "text_encoder", dtype)
    assert not model.training
    assert {p.requires_grad for p in model.parameters()} == {False}
    assert model.dtype == {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]


def test_loading_prints_nothing(models, capfd):
    config = CLIPConfig(model=str(models / "text_encoder"), tokenizer=str(models / "tokenizer"))
    config.build(CPU)
    T5Config(model=str(models / "text_encoder_3"), tokenizer=str(models / "tokenizer_3")).build(CPU)
    assert capfd.readouterr() == ("", "")


def test_a_tokenizer_beside_the_model_is_found(tmp_path):
    tiny_clip(tmp_path, tmp_path)
    assert CLIPConfig(model=str(tmp_path)).build(CPU)(["a fox"]).text.shape == (1, 6, 32)


def test_a_home_folder_is_understood(models, monkeypatch):
    monkeypatch.setenv("HOME", str(models))
    assert model_type("~/text_encoder") == "clip_text_model"


def test_a_folder_inside_a_name_on_the_hub_is_asked_for():
    asked = []

    def read(*place, subfolder, **_):
        asked.append((*place, subfolder))
        raise OSError

    for place in ("gpt2", "owner/name", "owner/name/text/encoder"):
        with pytest.raises(UserError):
            load_model(read, place, "fp32", CPU)
    assert asked == [("gpt2", ""), ("owner/name", ""), ("owner/name", "text/encoder")]


# -- folders


@pytest.mark.parametrize("place", ["/no/such/folder", "./models", "~/models", "", "a b"])
def test_what_is_neither_a_folder_nor_a_name_is_refused(place):
    with pytest.raises(UserError, match=r"^text: .* is no folder; give one, or a hub's name$"):
        CLIPConfig(model=place).build(CPU)


def test_a_folder_without_a_config_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"^text: the folder \S+ has no config\.json; give one"):
        T5Config(model=str(tmp_path)).build(CPU)


def test_a_folder_without_weights_is_refused(models, tmp_path):
    (tmp_path / "config.json").write_bytes((models / "text_encoder/config.json").read_bytes())
    with pytest.raises(
        UserError, match=r"^text: the folder \S+ has no weights as \.safetensors; g"
    ):
        load_clip(tmp_path)


def test_weights_that_may_hold_code_are_refused(models, tmp_path):
    model = load_clip(models / "text_encoder")
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(
        UserError, match=r"no weights as \.safetensors; it has \.bin, which may hol"
    ):
        load_clip(tmp_path)


@pytest.mark.parametrize("model", ["text_encoder", "text_encoder_3"])
def test_a_folder_without_a_tokenizer_is_refused(models, model):
    with pytest.raises(
        UserError, match=r"^text: the folder \S+ has no tokenizer \(tokenizer\.json"
    ):
        load_tokenizer(str(models / model))


def test_a_tokenizer_without_words_is_refused(tmp_path):
    CLIPTokenizer().save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"^text: \S+ has no tokenizer that knows the letter a"):
        load_tokenizer(str(tmp_path))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_broken_file_is_refused(tmp_path, name):
    tiny_clip(tmp_path, tmp_path)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:100])
    with pytest.raises(UserError, match=r"^text: \S+ cannot be read \(.+\)$"):
        CLIPConfig(model=str(tmp_path)).build(CPU)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_weight_that_is_not_finite_is_named(tmp_path, dtype):
    tiny_clip(tmp_path, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    name = next(name for name in weights if name.endswith("fc1.weight"))
    weights[name][0, 0] = float("inf")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"^text: \S+: \S+fc1.weight holds NaN or infinity, so"):
        CLIPConfig(model=str(tmp_path), dtype=dtype).build(CPU)


def test_a_model_of_another_kind_is_refused(models):
    with pytest.raises(
        UserError, match=r"^text: \S+ lacks \d+ weights of a T5EncoderModel \(.*\.\.\."
    ):
        load_model(T5EncoderModel.from_pretrained, str(models / "text_encoder"), "fp32", CPU)


# -- the hub


@pytest.mark.parametrize("load", [model_type, load_tokenizer, load_clip])
def test_without_network_the_folder_is_asked_for(load, monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"^text: owner/name is no folder .* download it elsewhere"):
        load("owner/name")
    assert capfd.readouterr() == ("", "")


def test_an_unknown_name_is_refused():
    error = errors.RepositoryNotFoundError("404", response=answer(404))
    refused(error, r"^text: owner/name is no folder here and no name on huggingface\.co \(or a pri")


def test_closed_weights_are_told_from_unknown_ones():
    error = errors.GatedRepoError("403", response=answer(403))
    refused(error, r"^text: owner/name is closed: accept its terms on huggingface\.co, then run `h")


def test_a_name_without_safetensors_is_refused():
    words = "it has no model.safetensors. Please do not set `use_safetensors=True`."
    refused(None, r"^text: owner/name has no weights as \.safetensors; give a name or", words)


def test_any_other_failure_is_said_in_its_first_line():
    refused(None, r"^text: owner/name cannot be read \(the hub's own words\)$")


@pytest.mark.parametrize("config", [CLIPConfig(), T5Config(), LLMConfig()])
def test_a_missing_package_is_named(config, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(
        UserError, match=r"^text: transformers is missing; pip install 'flowbrush\[h"
    ):
        config.build(CPU)


# -- tiny models


@pytest.mark.parametrize("write", [tiny_clip, tiny_t5, tiny_llm, partial(tiny_clip, projection=16)])
def test_a_tiny_model_is_the_same_to_the_bit_each_time(write, tmp_path):
    for name in ("one", "two"):
        torch.rand(3)
        write(tmp_path / name, tmp_path / name)
    write(tmp_path / "other", tmp_path / "other", seed=1)
    one, two, other = (
        {p.name: p.read_bytes() for p in (tmp_path / name).iterdir()}
        for name in ("one", "two", "other")
    )
    assert one == two
    assert one["model.safetensors"] != other["model.safetensors"]


def test_writing_a_tiny_model_leaves_the_random_state_alone(tmp_path):
    before = torch.get_rng_state()
    tiny_clip(tmp_path, tmp_path)
    tiny_t5(tmp_path, tmp_path)
    tiny_llm(tmp_path, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_writing_a_tiny_model_prints_nothing(tmp_path, capfd):
    tiny_clip(tmp_path, tmp_path)
    tiny_t5(tmp_path, tmp_path)
    tiny_llm(tmp_path, tmp_path)
    assert capfd.readouterr() == ("", "")
