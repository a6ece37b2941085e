"""Text models are only looked at: training neither changes nor learns nor saves them."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny

from flowbrush import checkpoint
from flowbrush.errors import UserError
from flowbrush.experiment import ExperimentConfig, TrainConfig
from flowbrush.processes import Processes
from flowbrush.spaces import LatentConfig
from flowbrush.spaces.tiny import tiny_autoencoder
from flowbrush.text import CLIPConfig, FluxTextConfig, LLMConfig, T5Config, TextConfig
from flowbrush.text.cached import CachedEncoder
from flowbrush.text.tiny import tiny_clip, tiny_llm, tiny_t5
from flowbrush.text_to_image import TextToImage
from flowbrush.train.loop import train

CPU = Processes(torch.device("cpu"))
STEPS = 5


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TextConfig]:
    """Models none of whose tensors has the shape of one of the network's."""
    root = tmp_path_factory.mktemp("models")
    tiny_llm(root / "llm", root / "llm", width=64)
    tiny_clip(root / "clip", root / "clip", width=64)
    tiny_t5(root / "t5", root / "t5", width=80)
    joint = FluxTextConfig(
        clip=CLIPConfig(model=str(root / "clip")), t5=T5Config(model=str(root / "t5"), tokens=24)
    )
    return {"llm": LLMConfig(model=str(root / "llm"), tokens=64, pooled="mean"), "joint": joint}


def experiment(text: TextConfig, steps: int = STEPS, b: int = 8, **choices) -> ExperimentConfig:
    config = tiny()
    return replace(
        config,
        text=text,
        batch=replace(config.batch, size=b),
        train=replace(config.train, pictures=steps * b, **choices),
        watch=replace(config.watch, preview=10**6),
    )


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, dict[str, torch.Tensor]]]:
    """Every text model that is loaded from now on, and a copy of its tensors at that time."""
    found: list[tuple[Any, dict[str, torch.Tensor]]] = []

    def watched(load: Any) -> Any:
        def loads(self: Any, device: torch.device) -> tuple[Any, Any]:
            model, tokenizer = load(self, device)
            found.append((model, {k: v.clone() for k, v in model.state_dict().items()}))
            return model, tokenizer

        return loads

    for config in (LLMConfig, CLIPConfig, T5Config):
        monkeypatch.setattr(config, "load", watched(config.load))
    return found


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[bool]]]:
    """Each caption that training reads from now on, and which parts are silent."""
    found: list[tuple[str, list[bool]]] = []
    call = CachedEncoder.__call__

    def hears(self: CachedEncoder, captions: list[str], silent: Any = None) -> Any:
        if silent is not None:  # previews do not say
            found.extend(zip(captions, silent.tolist(), strict=True))
        return call(self, captions, silent)

    monkeypatch.setattr(CachedEncoder, "__call__", hears)
    return found


def tensors(state: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor in a state, under its dotted name."""
    if isinstance(state, torch.Tensor):
        yield name, state
    elif isinstance(state, dict | list | tuple):
        items = state.items() if isinstance(state, dict) else enumerate(state)
        for key, value in items:
            yield from tensors(value, f"{name}.{key}")


@pytest.mark.parametrize(("text", "models"), [("llm", 1), ("joint", 2)])
def test_training_leaves_the_text_models_as_they_were_loaded(
    texts, loaded, tmp_path: Path, text: str, models: int
) -> None:
    assert train(experiment(texts[text]), tmp_path / "run", CPU) == 0
    assert len(loaded) == models
    for model, before in loaded:
        assert all(torch.equal(before[name], now) for name, now in model.state_dict().items())
        assert not model.training
        assert not any(p.requires_grad or p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("text", ["llm", "joint"])
def test_a_checkpoint_holds_nothing_of_the_text_models(
    texts, loaded, tmp_path: Path, text: str
) -> None:
    train(experiment(texts[text]), tmp_path / "run", CPU)
    frozen = {name: tensor.shape for _, state in loaded for name, tensor in state.items()}
    deep = {name for name in frozen if name.count(".") > 1}  # JiT has a norm.weight of its own
    newest = checkpoint.newest(tmp_path / "run" / "checkpoints", print)
    names = checkpoint.names(newest)
    assert {"model", "optimizer", "ema_0.9", "ema_0.5"} <= set(names)
    for file in names:
        for name, tensor in tensors(checkpoint.load(newest, file)):
            assert not any(name.endswith(f".{theirs}") for theirs in deep), name
            assert tensor.shape not in frozen.values(), name


@pytest.mark.parametrize("text", ["llm", "joint"])
def test_the_optimizer_and_the_averages_hold_the_networks_weights_alone(
    texts, tmp_path: Path, text: str
) -> None:
    train(experiment(texts[text]), tmp_path / "run", CPU)
    newest = checkpoint.newest(tmp_path / "run" / "checkpoints", print)
    model, optimizer = (checkpoint.load(newest, file) for file in ("model", "optimizer"))
    assert {name.partition("/")[0] for name in optimizer} == model.keys()
    for decay in ("0.9", "0.5"):
        average = dict(tensors(checkpoint.load(newest, f"ema_{decay}")))
        assert sum(v.numel() for v in average.values()) == sum(v.numel() for v in model.values())


# -- text models that do not hear


def test_which_model_hears_which_caption_is_up_to_the_pictures_place(
    texts, heard, tmp_path: Path
) -> None:
    for b in (8, 4):
        config = experiment(texts["joint"], 80 // b, b, encoder_dropout=0.5)
        train(config, tmp_path / f"batches of {b}", CPU)
    assert heard[:80] == heard[80:]
    first, second = zip(*(silent for _, silent in heard[:80]), strict=True)
    assert 25 < sum(first) < 55 and 25 < sum(second) < 55
    assert 25 < sum(a != b for a, b in zip(first, second, strict=True)) < 55  # each on its own


def test_a_resumed_run_goes_on_with_the_same_silence(texts, heard, tmp_path: Path) -> None:
    whole = experiment(texts["joint"], 4, encoder_dropout=0.5, schedule="constant")
    half = experiment(texts["joint"], 2, encoder_dropout=0.5, schedule="constant")
    train(whole, tmp_path / "whole", CPU)
    train(half, tmp_path / "halves", CPU)
    train(whole, tmp_path / "halves", CPU, changeable=("train.pictures",))
    assert heard[:32] == heard[32:]
    one, two = (
        checkpoint.load(checkpoint.newest(tmp_path / name / "checkpoints", print), "model")
        for name in ("whole", "halves")
    )
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_every_model_hears_every_caption_unless_it_is_asked_for(
    texts, heard, tmp_path: Path
) -> None:
    train(experiment(texts["joint"], 1), tmp_path / "run", CPU)
    assert len(heard) == 8
    assert not any(any(silent) for _, silent in heard)


def test_one_text_model_alone_cannot_be_silenced(texts, tmp_path: Path) -> None:
    config = experiment(texts["llm"], encoder_dropout=0.4)
    with pytest.raises(UserError, match=r"^train\.encoder_dropout: text has one model only; give"):
        train(config, tmp_path / "run", CPU)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_is_between_0_and_1(share: float) -> None:
    with pytest.raises(UserError, match=r"^train\.encoder_dropout: .* it is in \[0, 1\]$"):
        TrainConfig(encoder_dropout=share)


# -- captions that are cut


def test_the_end_of_training_says_how_often_captions_were_cut(
    texts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for tokens, said in ((4, True), (256, False)):
        train(experiment(replace(texts["llm"], tokens=tokens), 1), tmp_path / str(tokens), CPU)
        out = capsys.readouterr().out
        assert ("captions longer than the text encoder reads, and cut: " in out) is said


def test_a_run_goes_on_and_paints_only_with_the_text_model_that_it_began_with(
    texts: dict[str, TextConfig], tmp_path: Path
) -> None:
    run, place = tmp_path / "run", tmp_path / "llm"
    tiny_llm(place, place, width=64)
    config = experiment(LLMConfig(model=str(place), tokens=64))
    train(config, run, CPU)
    longer = replace(config, train=replace(config.train, pictures=2 * STEPS * 8))
    tiny_llm(place, place, width=48)
    with pytest.raises(UserError, match="width 64, now 48"):
        TextToImage.load(run)
    with pytest.raises(UserError, match="another null caption"):
        train(longer, run, CPU, ("train.pictures",))
    tiny_llm(place, place, width=64)
    assert train(longer, run, CPU, ("train.pictures",)) == 0


def test_a_run_goes_on_and_paints_only_with_the_autoencoder_that_it_began_with(
    tmp_path: Path,
) -> None:
    run, place = tmp_path / "run", tmp_path / "vae"
    tiny_autoencoder(place, factor=4)
    own = experiment(LLMConfig())
    config = replace(
        own,
        text=tiny().text,
        space=LatentConfig(model=str(place)),
        backbone=replace(own.backbone, patch=2),
    )
    train(config, run, CPU)
    longer = replace(config, train=replace(config.train, pictures=2 * STEPS * 8))
    tiny_autoencoder(place, factor=4, channels=8)
    with pytest.raises(UserError, match="its autoencoder or text model is not the one") as refused:
        TextToImage.load(run)
    assert "\n" not in str(refused.value)
    with pytest.raises(UserError, match="its autoencoder or text model is not the one"):
        train(longer, run, CPU, ("train.pictures",))
