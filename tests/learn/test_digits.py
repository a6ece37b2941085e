import pytest
import torch

from flowbrush.data.idx import Idx, IdxConfig
from flowbrush.learn import digits
from flowbrush.learn.digits import DigitReader, moved, train_reader


@pytest.fixture(scope="module")
def source() -> Idx:
    """600 of the digits, of all classes."""
    idx = IdxConfig().build(28)
    idx.pictures, idx.labels = idx.pictures[::8][:600], idx.labels[::8][:600]
    return idx


@pytest.fixture
def few_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits, "HELD_OUT", 200)


def strokes(b: int) -> torch.Tensor:
    pictures = torch.zeros(b, 3, 28, 28, dtype=torch.uint8)
    pictures[:, :, 6:22, 12:16] = 255
    return pictures


@pytest.mark.usefixtures("few_held_out")
def test_it_learns_to_read_most_digits_from_a_few_hundred(source: Idx) -> None:
    trained = train_reader(source, epochs=3)
    assert trained.accuracy > 0.3  # by chance: 0.1
    assert not trained.reader.training


@pytest.mark.usefixtures("few_held_out")
def test_the_same_seed_gives_the_same_reader_and_leaves_the_global_randomness_alone(
    source: Idx,
) -> None:
    def weights(seed: int) -> torch.Tensor:
        return train_reader(source, epochs=1, seed=seed).reader.output.weight

    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = weights(0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert torch.equal(weights(0), first)
    assert not torch.equal(weights(1), first)


def test_it_reads_a_digit_of_each_picture_from_128_features() -> None:
    reader = DigitReader().eval()
    assert reader.features(strokes(3)).shape == (3, 128)
    assert reader.read(strokes(3)).shape == (3,)


def test_a_moved_digit_keeps_its_ink_and_is_moved_in_its_own_way() -> None:
    torch.manual_seed(0)
    before = strokes(64)
    after = moved(before)
    ink = after.double().sum(dim=(1, 2, 3)) / before.double().sum(dim=(1, 2, 3))
    assert after.dtype == torch.uint8
    assert 0.6 < ink.min() < ink.max() < 1.6  # (1 +- 15 %)^2, slanted
    assert torch.equal(after[:, 0], after[:, 2])  # still grey
    assert len({tuple(one.flatten().tolist()) for one in after}) == 64
