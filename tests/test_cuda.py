"""What only a GPU can show: `pytest -m gpu`."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import tiny

from flowbrush import TextToImage, checkpoint
from flowbrush.processes import Processes, choose_dtype
from flowbrush.train.loop import train

pytestmark = pytest.mark.gpu


def test_a_run_trained_on_cuda_paints_the_same_on_the_cpu(tmp_path: Path) -> None:
    assert train(tiny(), tmp_path, Processes(torch.device("cuda"))) == 0
    prompts = ["a large red circle", "青い四角が三つ"]
    on_gpu = TextToImage.load(tmp_path, device="cuda").generate(prompts).int()
    on_cpu = TextToImage.load(tmp_path, device="cpu").generate(prompts).int()
    assert (on_gpu - on_cpu).abs().max() <= 2


def test_going_on_is_exact_on_cuda(tmp_path: Path) -> None:
    steady = replace(tiny(), train=replace(tiny().train, schedule="constant"))
    half = replace(steady, train=replace(steady.train, pictures=80))
    cuda = Processes(torch.device("cuda"))
    train(steady, tmp_path / "whole", cuda)
    train(half, tmp_path / "parts", cuda)
    train(steady, tmp_path / "parts", cuda, changeable=("train.pictures",))
    whole, parts = (
        checkpoint.load(checkpoint.newest(tmp_path / run / "checkpoints", print), "model")
        for run in ("whole", "parts")
    )
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_bf16_is_chosen_and_trains(tmp_path: Path) -> None:
    assert choose_dtype("auto", torch.device("cuda")) == torch.bfloat16
    mixed = replace(tiny(), train=replace(tiny().train, precision="auto"))
    assert train(mixed, tmp_path, Processes(torch.device("cuda"))) == 0
