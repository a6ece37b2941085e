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
from flowbrush.train.start import start_from

CPU = Processes(torch.device("cpu"))


def short(config, pictures: int = 16, **changes):
    return replace(config, train=replace(config.train, pictures=pictures, **changes))


def weights(run: Path, name: str) -> dict[str, torch.Tensor]:
    return checkpoint.load(checkpoint.newest(run / "checkpoints", print), name)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 16 images that others begin with."""
    run = tmp_path_factory.mktemp("first")
    train(short(tiny()), run, CPU)
    return run


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


def moved(run: Path, name: str, before: dict[str, torch.Tensor]) -> float:
    """How far from `before` an average is, as a share of how far the weights are."""
    average, model = weights(run, name), weights(run, "model")
    ways = [sum(float((state[k] - before[k]).square().sum()) for k in before) ** 0.5
            for state in (average, model)]  # fmt: skip
    return ways[0] / ways[1]


def far(config, **changes):
    """Two steps that change the weights much, and a long average."""
    return short(config, lr=0.1, warmup=0, schedule="constant", ema=(0.9999,), **changes)


@pytest.mark.parametrize(
    ("warmup", "least", "most"), [(None, 1e-4, 2e-4), (False, 1e-4, 2e-4), (True, 0.5, 1.0)]
)
def test_averages_that_begin_as_averages_keep_them(
    first: Path, tmp_path: Path, warmup: bool | None, least: float, most: float
) -> None:
    train(far(tiny(), start=str(first), ema_warmup=warmup), tmp_path / "second", CPU)
    assert least < moved(tmp_path / "second", "ema_0.9999", weights(first, "ema_0.9")) < most


def test_averages_that_began_as_averages_keep_them_when_the_run_resumes(
    first: Path, tmp_path: Path
) -> None:
    config = far(tiny(), start=str(first))
    train(replace(config, train=replace(config.train, pictures=8)), tmp_path / "second", CPU)
    train(config, tmp_path / "second", CPU, changeable=("train.pictures",))
    assert moved(tmp_path / "second", "ema_0.9999", weights(first, "ema_0.9")) < 2e-4


def test_averages_of_random_weights_warm_up_unless_told_otherwise(tmp_path: Path) -> None:
    kept = {}
    for warmup in (None, True, False):
        train(far(tiny(), ema_warmup=warmup), tmp_path / str(warmup), CPU)
        kept[warmup] = weights(tmp_path / str(warmup), "ema_0.9999")
    assert all(torch.equal(kept[None][name], kept[True][name]) for name in kept[None])
    assert not all(torch.equal(kept[None][name], kept[False][name]) for name in kept[None])


def test_no_text_model_and_no_autoencoder_is_built(tmp_path: Path, monkeypatch) -> None:
    from flowbrush.experiment import build_denoiser, build_shapes
    from flowbrush.spaces import LatentConfig
    from flowbrush.text import T5Config

    stage1 = small(recipe("jaxfm-stage1"), tmp_path / "models")
    stage2 = small(recipe("jaxfm-stage2"), tmp_path / "models")
    train(short(stage1), tmp_path / "one", CPU)
    space, encoder = stage2.space.build(CPU.device), stage2.text.build(CPU.device)
    pixart = build_denoiser(stage2, build_shapes(stage2, space, encoder), CPU.device).backbone

    def build(*_: object) -> None:
        raise AssertionError("built")

    monkeypatch.setattr(LatentConfig, "build", build)
    monkeypatch.setattr(T5Config, "build", build)
    state = torch.get_rng_state()
    assert not start_from(tmp_path / "one", stage2, pixart), "its text layers are random"
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("backbone", {"context_start": 0}),
        ("backbone", {"time_scale": 2.0}),
        ("flow", {"prediction": "noise"}),
    ],
)
def test_weights_that_would_mean_something_else_are_refused(
    first: Path, tmp_path: Path, part: str, change: dict
) -> None:
    config = short(tiny(), start=str(first))
    other = replace(config, **{part: replace(getattr(config, part), **change)})
    with pytest.raises(UserError, match=rf"another network: {part}\.{next(iter(change))} is"):
        train(other, tmp_path / "second", CPU)


def test_another_network_is_refused_by_the_name_of_a_weight(tmp_path: Path) -> None:
    train(short(tiny()), tmp_path / "first", CPU)
    config = short(tiny(), start=str(tmp_path / "first"))
    wider = replace(config, backbone=replace(config.backbone, width=24))
    with pytest.raises(UserError, match=r"train\.start: .* is of another network: blocks\.0"):
        train(wider, tmp_path / "second", CPU)
    assert not (tmp_path / "second" / "checkpoints").exists()
