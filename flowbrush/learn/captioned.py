"""What step 4 learns from: whichever captioned pictures and text model are on this machine."""

from dataclasses import replace
from pathlib import Path

import torch

from flowbrush.data import CifarConfig, EmojiGroupsConfig
from flowbrush.data.source import Source
from flowbrush.errors import UserError
from flowbrush.experiment import ExperimentConfig
from flowbrush.recipes.learn import learn_4_text
from flowbrush.text import CLIPConfig, SentenceConfig
from flowbrush.text.pretrained import import_transformers, load_tokenizer
from flowbrush.text.sentence import pieces

Pictures = CifarConfig | EmojiGroupsConfig
Text = CLIPConfig | SentenceConfig


def captioned_pictures(cifar: Path | str = CifarConfig.path) -> Pictures:
    """CIFAR-10 where its folder is here, else emoji; which of them, is said in a sentence."""
    config = CifarConfig(path=Path(cifar))
    try:
        config.build(32)
    except UserError as error:
        print(
            f"Pictures: 160 emoji of ten groups, since there is no CIFAR-10 ({error}); it is to be "
            "had at cs.toronto.edu/~kriz/cifar.html."
        )
        return EmojiGroupsConfig()
    print(f"Pictures: the photos of CIFAR-10, which is in {config.path}.")
    return config


def text_model(clip: str = CLIPConfig.model) -> Text:
    """CLIP where its weights are here, else the packaged encoder; which of them, is said.

    clip: a folder, or a name on Hugging Face's hub whose files were fetched before. Nothing is
    downloaded.
    """
    try:
        config = CLIPConfig(model=_on_this_machine(clip))
        config.build(torch.device("cpu"))
    except UserError as error:
        print(
            f"Text: the packaged encoder, which reads English and Japanese, since there is no CLIP "
            f"({error}); give a folder that has its weights, and it is taken."
        )
        packaged = learn_4_text().text
        assert isinstance(packaged, SentenceConfig)
        return packaged
    print(f"Text: CLIP, whose weights are in {config.model}. It reads English only.")
    return config


def _on_this_machine(place: str) -> str:
    """The folder of a model's files. Raises UserError where they are not here."""
    import_transformers()
    from huggingface_hub import snapshot_download

    if (folder := Path(place).expanduser()).is_dir():
        return str(folder)
    try:
        return snapshot_download(place, local_files_only=True)
    except (ValueError, OSError):
        raise UserError(f"{place}: no folder, and not among the hub's files here") from None


def text_experiment(pictures: Pictures, text: Text) -> ExperimentConfig:
    """Recipe learn-4-text with these. What differs from it stands in the run's name."""
    config = learn_4_text()
    name = config.name
    if isinstance(pictures, CifarConfig):
        name += "-cifar"
    batch = config.batch
    if isinstance(text, CLIPConfig):
        name += "-clip"
        batch = replace(batch, captions=(("en", 0.5), ("en-name", 0.5)))  # all that it can read
    return replace(config, name=name, source=pictures, text=text, batch=batch)


def languages(text: Text) -> tuple[str, ...]:
    """What a text model reads, among the captions' languages."""
    return ("en",) if isinstance(text, CLIPConfig) else ("en", "ja")


def captions_of_classes(source: Source, language: str) -> list[str]:
    """Its classes' captions in that language, in the order of their numbers."""
    found: dict[int, str] = {}
    for i in range(len(source)):
        example = source[i]
        found.setdefault(example.truth, example.captions[language])
        if len(found) == len(source.classes):
            break
    return [found[label] for label in sorted(found)]


def token_names(text: Text, caption: str) -> list[str]:
    """What each of a caption's tokens stands for."""
    if isinstance(text, CLIPConfig):
        tokenizer = load_tokenizer(text.tokenizer or text.model)
        return tokenizer.convert_ids_to_tokens(tokenizer(caption).input_ids)[: text.tokens]
    return ["(sentence)", *pieces(caption)[: text.words]]
