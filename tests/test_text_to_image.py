from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from tiny import tiny, untrained
from torch import Tensor

from flowbrush import TextToImage
from flowbrush.errors import UserError
from flowbrush.experiment import ExperimentConfig
from flowbrush.flow.denoiser import FlowConfig
from flowbrush.flow.sampling import Method, SamplingConfig
from flowbrush.processes import Processes
from flowbrush.train.loop import train

CPU = torch.device("cpu")
PROMPTS = ["a large red circle", "青い四角が三つ", "a fox", ""] * 4


def with_random_weights(config: ExperimentConfig, frozen: bool = False) -> TextToImage:
    """Everywhere, so that every part of the network has its say."""
    plain = untrained(replace(config, sampling=SamplingConfig(steps=4)))
    torch.manual_seed(1)
    for weight in plain.denoiser.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return TextToImage(plain.config, plain.denoiser, plain.encoder, plain.space, CPU, frozen)


@pytest.fixture(scope="module")
def painter() -> TextToImage:
    return with_random_weights(tiny())


@pytest.fixture(scope="module", params=["data", "velocity"])
def frozen(request) -> TextToImage:
    return with_random_weights(replace(tiny(), flow=FlowConfig(prediction=request.param)), True)


def assert_alike(one: Tensor, other: Tensor) -> None:
    """To the byte, but for those on whose edge the rounding of sums falls: at most 1 in 1,000."""
    apart = (one.int() - other.int()).abs()
    assert apart.max() <= 1
    assert (apart > 0).float().mean() <= 1e-3
    assert one.float().std() > 5  # of pictures that show something


@pytest.mark.parametrize("method", get_args(Method))
def test_a_prompt_and_a_seed_give_the_same_picture_alone_in_a_batch_and_in_another_order(
    method: Method, frozen: TextToImage
) -> None:
    """In the interval and out of it: a row of dopri5 is within while its neighbour is not."""
    sampling = SamplingConfig(method=method, steps=6, scale=3.0, interval=(0.2, 0.7))
    prompts, seeds = PROMPTS[:5], [3, 1, 4, 15, 9]
    alone = frozen.generate(prompts, sampling, seeds, batch=1)
    assert_alike(frozen.generate(prompts, sampling, seeds), alone)
    order = [4, 2, 0, 3, 1, 1]
    others = [prompts[i] for i in order], sampling, [seeds[i] for i in order]
    assert_alike(frozen.generate(*others), alone[order])


def test_threads_with_settings_of_their_own_get_the_bits_that_each_gets_alone(
    frozen: TextToImage,
) -> None:
    settings = [
        SamplingConfig(method=method, steps=steps, scale=scale)
        for method, steps, scale in (("heun", 3, 2.0), ("euler", 7, 1.0), ("rk4", 2, 3.0))
    ] * 3

    def generate(sampling: SamplingConfig) -> Tensor:
        return frozen.generate(["a fox", "a truck"], sampling)

    alone = [generate(sampling) for sampling in settings]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(generate, settings))
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))


def test_a_network_in_training_is_in_training_again_after_a_prompt_that_was_refused(
    painter: TextToImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(prompts: list[str]) -> None:
        raise UserError("no such class")

    monkeypatch.setattr(painter, "encoder", refuse)
    painter.denoiser.train()
    with pytest.raises(UserError, match="no such class"):
        painter.generate(["a fox"])
    assert painter.denoiser.training
    painter.denoiser.eval()


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
