"""The probe finds a line where there is one, and on real emoji does better than chance."""

from functools import partial

import pytest
import torch

from flowbrush.data import EmojiConfig
from flowbrush.evaluate import probe
from flowbrush.evaluate.probe import FILE, Probe, emoji_probe, fitted, is_held_out, recall

CPU = torch.device("cpu")
CONCEPTS = 300


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


# -- the line


def test_without_a_penalty_an_exact_line_is_found():
    x, matrix = normal(50, 8).float(), normal(8, 4).float()
    line = fitted(x, x @ matrix + 3, ridge=0.0)
    torch.testing.assert_close(line.matrix, matrix, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(line.of_x(x), line.of_y(x @ matrix + 3), atol=1e-5, rtol=1e-5)


def test_the_penalty_is_a_share_of_the_mean_squared_norm():
    x = torch.tensor([[1.0], [-1.0], [2.0], [-2.0]])  # x'x = 10, mean square 2.5
    line = fitted(x, 3 * x, ridge=2.0)
    torch.testing.assert_close(line.matrix, torch.tensor([[3 * 10 / 15]]))


def test_recall_counts_own_columns_among_the_highest():
    cosines = torch.tensor([[0.9, 0.1, 0.2], [0.5, 0.4, 0.1], [0.3, 0.2, 0.1]])
    assert [recall(cosines, first) for first in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 1])


def test_a_tie_counts_as_wrong():
    assert recall(torch.ones(4, 4), 3) == 0.0
    assert recall(torch.ones(4, 4), 4) == 1.0


def test_an_emoji_is_held_out_by_its_code_point_alone():
    every = [chr(c) for c in range(0x1F300, 0x1F600)]
    held = is_held_out(every)
    assert held.double().mean().item() == pytest.approx(0.2, abs=0.05)
    assert torch.equal(is_held_out(every[100:300]), held[100:300])


# -- on emoji


@pytest.fixture(scope="module")
def fit(tmp_path_factory):
    """The probe of some emoji, its folder, and what was said."""
    cache, said = tmp_path_factory.mktemp("cache") / "probe", []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe, "EmojiConfig", partial(EmojiConfig, concepts=CONCEPTS))
        return emoji_probe(cache, CPU, said.append), cache, said


def unseen(count: int) -> tuple[torch.Tensor, list[str]]:
    source = EmojiConfig(concepts=CONCEPTS).build(64)
    held = is_held_out(source.characters).nonzero().flatten().tolist()[:count]
    examples = [source[i] for i in held]
    pictures = torch.stack([torch.tensor(e.picture).permute(2, 0, 1) for e in examples])
    return pictures, [e.captions["en"] for e in examples]


def test_unseen_names_are_found_more_often_than_by_chance(fit):
    found: Probe = fit[0]
    assert found.held_out > 40
    assert found.in_first_ten > 2 * 10 / found.held_out
    assert found.right_first <= found.in_first_ten


def test_its_worth_is_told_in_one_line(fit):
    assert f"on {fit[0].held_out} unseen emoji the probe is right first" in fit[0].worth


def test_shuffled_captions_score_lower(fit):
    pictures, captions = unseen(24)
    own = fit[0].score(pictures, captions)
    others = fit[0].score(pictures, captions[1:] + captions[:1])
    assert own.shape == (24,) and own.abs().max() <= 1
    assert own.mean() > others.mean() + 0.05


def test_a_picture_and_a_caption_score_the_same_in_any_batch(fit):
    pictures, captions = unseen(5)
    alone = [fit[0].score(pictures[i : i + 1], captions[i : i + 1]) for i in range(5)]
    together = fit[0].score(pictures, captions)
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-6, rtol=1e-6)


def test_it_is_fitted_once(fit):
    found, cache, said = fit
    assert said == [f"fitting the probe on {CONCEPTS:,} emoji, once"]
    again = emoji_probe(cache, CPU, said.append)
    assert len(said) == 1
    assert torch.equal(again.line.matrix, found.line.matrix)
    assert again.worth == found.worth


@pytest.mark.parametrize("change", ["settings", "damage"])
def test_what_was_kept_with_other_settings_or_is_damaged_is_fitted_again(
    fit, change, tmp_path, monkeypatch
):
    kept = (fit[1] / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(kept if change == "settings" else kept[:100])
    if change == "settings":
        monkeypatch.setattr(probe, "RIDGE", 1.0)
    monkeypatch.setattr(probe, "EmojiConfig", partial(EmojiConfig, concepts=20))
    said = []
    assert emoji_probe(tmp_path, CPU, said.append).held_out < 20
    assert said == ["fitting the probe on 20 emoji, once"]
