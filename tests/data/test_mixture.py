"""Each part of a mixture has its share, in its own order, from any place on."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import tyro
from hypothesis import given, settings
from hypothesis import strategies as st
from numbered import Plain, in_shards, loaded, numbers, unchecked

from flowbrush import config_io
from flowbrush.data import FolderConfig, MixtureConfig, PreparedConfig, ShapesWorldConfig
from flowbrush.data.batches import BatchConfig, batches
from flowbrush.data.mixture import Mixture, ShareConfig, configs_of, sources_of
from flowbrush.data.order import BLOCK, Order, order_of
from flowbrush.data.source import Source
from flowbrush.data.split import split
from flowbrush.errors import UserError
from flowbrush.experiment import ExperimentConfig
from flowbrush.prepare.prepare import PrepareConfig, prepare

SMALL = in_shards((30, 1, 0, 12, 40, 7, 0, 9))
HALVES = Mixture((Plain(5_000), Plain(5_000)), (0.5, 0.5))
TWO = MixtureConfig(
    parts=(
        ShareConfig(share=3.0, source=ShapesWorldConfig(scenes=20)),
        ShareConfig(source=FolderConfig(path=Path("mine"))),
    )
)


def parts_of(mixture: Mixture, order: Order, places: range) -> np.ndarray:
    return np.searchsorted(mixture.starts, numbers(order, places), side="right") - 1


# -- shares and orders


@pytest.mark.parametrize("shares", [(0.7, 0.3), (1.0, 1.0, 1.0), (5.0, 0.01), (1 / 3, 0.5, 0.2)])
def test_each_part_has_its_share(shares: tuple[float, ...]) -> None:
    mixture = Mixture(tuple(Plain(5_000 + n) for n in range(len(shares))), shares)
    turns = 20 * BLOCK
    parts = parts_of(mixture, order_of(mixture, 0, 0), range(turns))
    expected = np.array(shares) / sum(shares) * turns
    assert np.abs(np.bincount(parts, minlength=len(shares)) - expected).max() <= len(shares)


def test_a_share_is_exact_after_any_number_of_turns() -> None:
    order = order_of(Mixture((Plain(5), Plain(5)), (0.7, 0.3)), 0, 0)
    block = 10**12
    with unchecked():
        turns = [order.turn(place) for place in range(block * BLOCK, (block + 1) * BLOCK)]
    assert min(turn for part, turn in turns if part == 0) == block * BLOCK * 7 // 10
    assert sum(part == 0 for part, _ in turns) in (716, 717)


def test_every_part_goes_through_its_own_epochs() -> None:
    mixture = Mixture((in_shards((13, 0, 20, 30)), in_shards((9, 8))), (0.75, 0.25))
    found = numbers(order_of(mixture, 1, 3), range(4 * BLOCK))
    for first, end in ((0, 63), (63, 80)):
        own = found[(found >= first) & (found < end)] - first
        counts = np.bincount(own, minlength=end - first)
        assert counts.max() - counts.min() <= 1


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 7), st.floats(0.001, 1e6)), min_size=1, max_size=5),
    st.integers(0, 2**63),
)
def test_every_turn_of_every_part_falls_to_one_place(parts: list, seed: int) -> None:
    mixture = Mixture(tuple(Plain(n) for n, _ in parts), tuple(share for _, share in parts))
    with unchecked():
        order = order_of(mixture, 0, seed)
        turns = [order.turn(place) for place in range(BLOCK)]
    for part in range(len(parts)):
        own = sorted(turn for of, turn in turns if of == part)
        assert own == list(range(len(own)))


def test_processes_do_not_each_have_one_part() -> None:
    parts = parts_of(HALVES, order_of(HALVES, 0, 0), range(2 * BLOCK))
    assert all(0.4 < parts[rank::world].mean() < 0.6 for world in (2, 4) for rank in range(world))


def test_what_a_part_is_mixed_with_does_not_change_its_own_order() -> None:
    found = []
    for other in (Plain(5), in_shards((9, 9))):
        order = order_of(Mixture((Plain(4_000), other), (0.5, 0.5)), 1, 0)
        found.append([i for i in numbers(order, range(500)).tolist() if i < 4_000])
    assert found[0] == found[1]


def test_two_parts_alike_are_shuffled_differently() -> None:
    order = numbers(order_of(HALVES, 0, 0), range(200))
    first, second = order[order < 5_000], order[order >= 5_000] - 5_000
    assert (first[:50] != second[:50]).any()


def test_a_mixture_goes_on_in_the_middle_and_is_shared_out() -> None:
    mixture = Mixture((SMALL, in_shards((40, 2))), (0.6, 0.4))
    whole = loaded(mixture, 40, size=6, window=2)
    assert loaded(mixture, 15, start=150, size=6, window=2) == whole[25:]
    for rank in range(3):
        share = loaded(mixture, 15, 150, rank, 3, size=6, window=2)
        assert share == [batch[rank::3] for batch in whole[25:]]


def test_a_mixture_within_a_mixture_has_its_share_of_the_share() -> None:
    mixture = Mixture((HALVES, Plain(5_000)), (0.5, 0.5))
    parts = numbers(order_of(mixture, 0, 0), range(4 * BLOCK)) // 5_000
    assert np.abs(np.bincount(parts) / (4 * BLOCK) - (0.25, 0.25, 0.5)).max() < 0.02


def test_a_broken_picture_is_replaced_out_of_its_own_part() -> None:
    order = order_of(Mixture((Plain(9), SMALL), (0.5, 0.5)), 2, 0)
    for place in range(100):
        assert (order[place] < 9) == (order.instead(place, 0) < 9) == (order.instead(place, 99) < 9)


# -- what a mixture is to the others


def test_a_mixture_is_a_source() -> None:
    drawn = Plain(3, classes=("a", "b"), attribution="by me")
    mixture = Mixture(
        (drawn, Plain(4, classes=("b", "c"), attribution="by you"), drawn), (1.0, 1.0, 1.0)
    )
    assert isinstance(mixture, Source)
    assert len(mixture) == 10
    assert [mixture[i].captions["en"] for i in range(10)] == list("0120123012")
    assert (mixture.classes, mixture.attribution) == (("a", "b", "c"), "by me; by you")
    assert Mixture((drawn, Plain(4)), (1.0, 1.0)).classes == ()


def test_captions_of_every_kind_come_through() -> None:
    mixture = Mixture((Plain(50, ("en", "ja")), Plain(50, ("short",))), (0.5, 0.5))
    shares = (("en", 1.0), ("ja", 1.0), ("short", 1.0))
    for captions in ((), shares):
        assert loaded(mixture, 4, size=50, captions=captions)
    with (
        closing(batches(mixture, BatchConfig(size=50, captions=shares[:2]), 0, 0)) as loader,
        pytest.raises(UserError, match=r"no caption en or ja; there is short .*batch\.captions"),
    ):
        next(loader)


def test_the_parts_are_split_one_by_one() -> None:
    first, second = Plain(40), SMALL
    for half in (0, 1):
        mixed = split(Mixture((first, second), (0.7, 0.3)), 0.2)[half]
        assert mixed == Mixture((split(first, 0.2)[half], split(second, 0.2)[half]), (0.7, 0.3))


def test_a_part_of_which_nothing_is_held_out_is_left_out_there() -> None:
    learned, held_out = split(Mixture((Plain(1), Plain(1_000)), (0.7, 0.3)), 0.1)
    assert (len(learned.parts), len(held_out.parts)) == (2, 1)
    assert held_out.shares == (0.3,)


# -- its config


def test_a_mixture_survives_its_file(tmp_path: Path) -> None:
    config = ExperimentConfig(source=MixtureConfig(parts=(*TWO.parts, ShareConfig(source=TWO))))
    config_io.save(config, tmp_path / "config.json")
    assert config_io.load(ExperimentConfig, tmp_path / "config.json") == config
    assert len(configs_of(config.source)) == 4


def test_a_mistake_in_a_part_is_named_with_its_path() -> None:
    data = config_io.to_json(TWO)
    data["parts"][1]["source"]["pth"] = data["parts"][1]["source"].pop("path")
    with pytest.raises(UserError, match=r"parts\[1\]: source: unknown field 'pth'.*path"):
        config_io.from_json(MixtureConfig, data, "config.json")


def test_a_part_is_changed_on_the_command_line() -> None:
    options = ["--source.parts.0.share", "2", "--source.parts.1.source.path", "yours"]
    config = tyro.cli(
        ExperimentConfig,
        args=options,
        default=ExperimentConfig(source=TWO),
        config=(tyro.conf.AvoidSubcommands,),
    )
    assert config.source.parts[0] == ShareConfig(share=2.0, source=ShapesWorldConfig(scenes=20))
    assert config.source.parts[1].source == FolderConfig(path=Path("yours"))


@pytest.mark.parametrize("share", [0.0, -1.0, float("nan"), float("inf")])
def test_a_share_of_nothing_is_refused(share: float) -> None:
    with pytest.raises(UserError, match=r"source\.parts: a share of"):
        ShareConfig(share=share, source=ShapesWorldConfig())


def test_a_mixture_of_nothing_is_refused() -> None:
    with pytest.raises(UserError, match=r"source\.parts"):
        MixtureConfig().build(8)


def test_a_mixture_is_built_of_its_parts() -> None:
    drawn = ShareConfig(source=ShapesWorldConfig(scenes=20))
    mixture = MixtureConfig(parts=(drawn, ShareConfig(source=MixtureConfig(parts=(drawn,))))).build(
        8
    )
    assert [len(source) for source in sources_of(mixture)] == [20, 20]
    assert mixture[3].captions == mixture[23].captions


def test_a_mixture_is_not_prepared_as_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="prepare its parts"):
        prepare(ExperimentConfig(source=TWO), PrepareConfig(to=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_an_autoencoder_does_not_learn_from_what_is_prepared() -> None:
    from flowbrush.autoencoding import AutoencoderExperiment

    with pytest.raises(UserError, match="prepared for a network"):
        AutoencoderExperiment(source=MixtureConfig(parts=(ShareConfig(source=PreparedConfig()),)))
