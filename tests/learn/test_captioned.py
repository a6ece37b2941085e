"""Step 4 takes what is on this machine, and says what it took."""

from pathlib import Path

import pytest
import torch
from tiny_cifar import write_cifar

from flowbrush.data import CifarConfig, EmojiGroupsConfig
from flowbrush.learn.captioned import (
    captioned_pictures,
    captions_of_classes,
    languages,
    text_experiment,
    text_model,
    token_names,
)
from flowbrush.recipes import recipe
from flowbrush.text import CLIPConfig, SentenceConfig
from flowbrush.text.tiny import END, START, tiny_clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    tiny_clip(folder, folder)
    return folder


@pytest.fixture
def no_hub(tmp_path, monkeypatch) -> Path:
    """An empty cache of the hub's files, and a hub that must not be asked."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("httpx.Client.send", lambda *_, **__: pytest.fail("asked the network"))
    return tmp_path


def test_cifar_is_taken_where_its_files_are(tmp_path, capsys):
    folder = write_cifar(tmp_path / "cifar-10")
    assert captioned_pictures(folder) == CifarConfig(path=folder)
    assert capsys.readouterr().out == f"Pictures: the photos of CIFAR-10, which is in {folder}.\n"


def test_else_emoji_are_and_a_sentence_says_how_to_get_the_other(tmp_path, capsys):
    assert captioned_pictures(tmp_path / "none") == EmojiGroupsConfig()
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert f"{tmp_path / 'none'}: no data_batch_1.bin" in said and "cs.toronto.edu" in said


def test_a_broken_cifar_is_not_taken(tmp_path, capsys):
    folder = write_cifar(tmp_path / "cifar-10")
    (folder / "data_batch_2.bin").write_bytes(b"x")
    assert captioned_pictures(folder) == EmojiGroupsConfig()
    assert "fetch it again" in capsys.readouterr().out


def test_clip_is_taken_from_a_folder(clip, capsys):
    assert text_model(str(clip)) == CLIPConfig(model=str(clip))
    assert "English only" in capsys.readouterr().out


def test_clip_is_taken_from_the_hubs_files_that_are_here(no_hub, capsys):
    there = no_hub / "models--openai--tiny"
    snapshot = there / "snapshots" / "abc"
    tiny_clip(snapshot, snapshot)
    (there / "refs").mkdir()
    (there / "refs" / "main").write_text("abc")
    assert text_model("openai/tiny") == CLIPConfig(model=str(snapshot))


def test_else_the_packaged_encoder_is_without_a_look_into_the_network(no_hub, capsys):
    assert text_model("openai/clip-vit-large-patch14") == recipe("learn-4-text").text
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "openai/clip-vit-large-patch14: no folder, and not among the hub's files here" in said


@pytest.mark.parametrize("place", ["", "no such name", "a/b/c/d"])
def test_a_place_that_is_none_is_told_in_one_line_as_well(place, no_hub, capsys):
    assert isinstance(text_model(place), SentenceConfig)
    assert capsys.readouterr().out.count("\n") == 1


def test_a_folder_that_is_no_clip_is_not_taken(tmp_path, capsys):
    assert isinstance(text_model(str(tmp_path)), SentenceConfig)
    assert f"the folder {tmp_path} has no config.json" in capsys.readouterr().out


def test_with_neither_it_is_the_recipe():
    config = recipe("learn-4-text")
    assert text_experiment(EmojiGroupsConfig(), config.text) == config


def test_another_source_or_encoder_is_another_run():
    config = text_experiment(CifarConfig(path=Path("here")), CLIPConfig(model="there"))
    assert config.name == "learn-4-text-cifar-clip"
    assert config.source == CifarConfig(path=Path("here"))
    assert config.text == CLIPConfig(model="there")


def test_clip_learns_english_captions_alone():
    config = text_experiment(EmojiGroupsConfig(), CLIPConfig())
    assert {kind for kind, _ in config.batch.captions} == {"en", "en-name"}
    assert languages(CLIPConfig()) == ("en",)
    assert languages(SentenceConfig()) == ("en", "ja")


def test_the_classes_captions_come_in_the_order_of_their_numbers(tmp_path):
    cifar = CifarConfig(path=write_cifar(tmp_path / "c")).build(32)
    assert captions_of_classes(cifar, "en") == list(cifar.classes)
    emoji = EmojiGroupsConfig().build(8)
    assert captions_of_classes(emoji, "en") == list(emoji.classes)
    assert captions_of_classes(emoji, "ja")[2] == "果物の絵"


def test_each_token_has_a_name(clip):
    words, letters = SentenceConfig(words=10), CLIPConfig(model=str(clip))
    assert token_names(words, "a fruit") == ["(sentence)", "<s>", "▁a", "▁fruit", "</s>"]
    assert token_names(letters, "a cat") == [START, "a</w>", "c", "a", "t</w>", END]
    for text in (words, letters, SentenceConfig(words=2), CLIPConfig(model=str(clip), tokens=4)):
        encoder = text.build(torch.device("cpu"))
        assert len(token_names(text, "a red cat")) == encoder(["a red cat"]).text.shape[1]
