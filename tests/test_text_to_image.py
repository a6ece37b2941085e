from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import tiny, untrained

from flowbrush import TextToImage
from flowbrush.errors import UserError
from flowbrush.flow.sampling import SamplingConfig
from flowbrush.processes import Processes
from flowbrush.train.loop import train

CPU = torch.device("cpu")
PROMPTS = ["a large red circle", "青い四角が三つ", "a fox", ""] * 4


@pytest.fixture(scope="module")
def painter() -> TextToImage:
    """Random weights everywhere, so that every part of the network has its say."""
    painter = untrained(replace(tiny(), sampling=SamplingConfig(steps=4)))
    torch.manual_seed(1)
    for weight in painter.denoiser.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return painter


def test_a_prompt_and_a_seed_give_the_same_picture_alone_and_in_a_batch_of_16(
    painter: TextToImage,
) -> None:
    seeds = list(range(16))
    together = painter.generate(PROMPTS, seeds=seeds).int()
    alone = painter.generate(PROMPTS, seeds=seeds, batch=1).int()
    assert (together - alone).abs().max() <= 1
    assert together.float().std() > 5  # of pictures that show something


def test_another_seed_gives_another_picture(painter: TextToImage) -> None:
    first, second = painter.generate(["a fox", "a fox"], seeds=[0, 1])
    assert not torch.equal(first, second)


def test_another_prompt_gives_another_picture(painter: TextToImage) -> None:
    first, second = painter.generate(["a fox", "a truck"], seeds=[0, 0])
    assert not torch.equal(first, second)


def test_guidance_outside_its_interval_changes_nothing(painter: TextToImage) -> None:
    never = SamplingConfig(steps=4, scale=7.0, interval=(0.5, 0.5))
    plain = SamplingConfig(steps=4, scale=1.0)
    assert torch.equal(painter.generate(["a fox"], never), painter.generate(["a fox"], plain))


def test_as_many_seeds_as_prompts_are_asked_for(painter: TextToImage) -> None:
    with pytest.raises(UserError, match="seeds: 1 for 2 prompts"):
        painter.generate(["a", "b"], seeds=[0])


def test_a_run_is_loaded_with_the_weights_asked_for(tmp_path: Path) -> None:
    train(tiny(), tmp_path, Processes(torch.device("cpu")))
    pictures = [
        TextToImage.load(tmp_path, weights).generate(["a fox"])
        for weights in ("ema", "ema_0.9", "ema_0.5", "model")
    ]
    assert torch.equal(pictures[0], pictures[1])
    assert not torch.equal(pictures[1], pictures[2])
    assert not torch.equal(pictures[2], pictures[3])


def test_a_folder_without_a_checkpoint_is_named(tmp_path: Path) -> None:
    from flowbrush import config_io

    config_io.save(tiny(), tmp_path / "config.json")
    with pytest.raises(UserError, match="no whole checkpoint"):
        TextToImage.load(tmp_path)


def test_damage_to_the_newest_checkpoint_is_told_and_the_one_before_paints(tmp_path: Path) -> None:
    train(tiny(), tmp_path, Processes(torch.device("cpu")))
    weights = tmp_path / "checkpoints" / "000000000160" / "model.safetensors"
    spoilt = bytearray(weights.read_bytes())
    spoilt[-5] ^= 1
    weights.write_bytes(spoilt)
    said: list[str] = []
    TextToImage.load(tmp_path, say=said.append)
    assert len(said) == 1
    assert "000000000160: damaged (model.safetensors is not as it was written)" in said[0]
