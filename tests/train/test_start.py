"""A run may begin with the weights of another."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import tiny

from flowbrush import checkpoint
from flowbrush.errors import UserError
from flowbrush.processes import Processes
from flowbrush.recipes import recipe
from flowbrush.recipes.tiny import tiny as small
from flowbrush.train.loop import train

CPU = Processes(torch.device("cpu"))


def short(config, pictures: int = 16, **changes):
    return replace(config, train=replace(config.train, pictures=pictures, **changes))


def weights(run: Path, name: str) -> dict[str, torch.Tensor]:
    return checkpoint.load(checkpoint.newest(run / "checkpoints", print), name)


def test_a_network_of_the_same_sizes_takes_all_weights(tmp_path: Path) -> None:
    train(short(tiny()), tmp_path / "first", CPU)
    barely = short(tiny(), 8, start=str(tmp_path / "first"), lr=1e-9, warmup=0)
    train(barely, tmp_path / "second", CPU)
    first, second = weights(tmp_path / "first", "ema_0.9"), weights(tmp_path / "second", "ema_0.9")
    assert all(torch.allclose(first[name], second[name], atol=1e-6) for name in first)


def test_the_second_stage_of_jaxfm_begins_with_the_first(tmp_path: Path) -> None:
    one = small(recipe("jaxfm-stage1"), tmp_path / "models")
    two = small(recipe("jaxfm-stage2"), tmp_path / "models")
    train(short(one), tmp_path / "one", CPU)
    train(short(two, 8, start=str(tmp_path / "one"), lr=1e-9, warmup=0), tmp_path / "two", CPU)
    first, second = (weights(tmp_path / run, "ema_0.9999") for run in ("one", "two"))
    name = "blocks.1.attention.qkv.weight"
    assert torch.allclose(first[name], second[name], atol=1e-6)


def test_a_run_that_goes_on_does_not_begin_again(tmp_path: Path) -> None:
    train(short(tiny()), tmp_path / "first", CPU)
    config = short(tiny(), 40, start=str(tmp_path / "first"))
    train(replace(config, watch=replace(config.watch, checkpoint=8)), tmp_path / "whole", CPU)
    half = replace(short(config, 24), watch=replace(config.watch, checkpoint=8))
    train(half, tmp_path / "parts", CPU)
    whole = replace(half, train=replace(half.train, pictures=40))
    train(whole, tmp_path / "parts", CPU, changeable=("train.pictures",))
    one, other = (weights(tmp_path / run, "model") for run in ("whole", "parts"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_another_network_is_refused_by_the_name_of_a_weight(tmp_path: Path) -> None:
    train(short(tiny()), tmp_path / "first", CPU)
    config = short(tiny(), start=str(tmp_path / "first"))
    wider = replace(config, backbone=replace(config.backbone, width=24))
    with pytest.raises(UserError, match=r"train\.start: .* is of another network: blocks\.0"):
        train(wider, tmp_path / "second", CPU)
    assert not (tmp_path / "second" / "checkpoints").exists()
