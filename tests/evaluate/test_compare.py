"""Runs beside one another: what is comparable, what is told apart, and what differs."""

from dataclasses import replace
from pathlib import Path

import pytest
from test_report import Page, bare, full, measured
from tiny import tiny

from flowbrush import config_io
from flowbrush.autoencoding import AutoencoderExperiment
from flowbrush.cli.compare import compare
from flowbrush.errors import UserError
from flowbrush.evaluate.compare import comparison_lines, write_comparison
from flowbrush.evaluate.record import evaluation, record


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    return [full(tmp_path / "赤"), full(tmp_path / "b", better=0.1)]


def line(lines: list[str], name: str) -> str:
    return " ".join(next(one for one in lines if one.startswith(name)).split())


def test_a_page_shows_the_runs_side_by_side(two: list[Path], tmp_path: Path) -> None:
    to = tmp_path / "new" / "both.html"
    assert write_comparison(two, to) == to
    found = Page(to)
    assert "figure 赤 b by" in found.text
    assert "KID ↓ 0.0031 (0.0020 to 0.0042) 0.0003 (-0.0008 to 0.0014)" in found.text
    marks = [cell.get("class") for cell in found.all("td")]
    assert (marks.count("best"), marks.count("worse")) == (2, 2), "KID and the validation loss"
    assert "The figures are comparable." in found.text
    assert "The training losses are comparable." in found.text
    assert [one["alt"] for one in found.all("img")] == [
        "赤, 160 pictures seen",
        "b, 160 pictures seen",
    ]
    assert "the configs are the same" in found.text
    first = to.read_bytes()
    assert write_comparison(two, to).read_bytes() == first


def test_lines_for_the_terminal_mark_what_lies_apart(two: list[Path]) -> None:
    lines = comparison_lines(two)
    assert lines[0].split() == ["赤", "b"]
    assert line(lines, "KID").endswith("worse 0.0003 (-0.0008 to 0.0014) best")
    assert not line(lines, "right first, en").endswith(("best", "worse"))
    assert line(lines, "pictures seen").count("160 of 160") == 2


def test_columns_are_as_wide_as_japanese_letters_are(tmp_path: Path) -> None:
    runs = [bare(tmp_path / name) for name in ("赤い丸", "b")]
    first, second = comparison_lines(runs)[:2]
    before = first.index("b")
    assert before + 3 == second.index("0 of 160", second.index("160") + 3)


def test_losses_of_other_objectives_and_pictures_are_not_compared(tmp_path: Path) -> None:
    config = tiny()
    other = replace(config, flow=replace(config.flow, prediction="velocity"))
    bigger = replace(config, size=32)
    runs = [bare(tmp_path / "a", config), bare(tmp_path / "b", other)]
    for run, value in zip([*runs, bare(tmp_path / "c", bigger)], (0.1, 0.9, 0.9), strict=True):
        figures = [measured("validation loss", value)]
        known = evaluation(80, "ema", config.sampling, figures, validation=(value,) * 8)
        record(run, known)
    text = Page(write_comparison(runs, tmp_path / "ab.html")).text
    assert "The training losses are not comparable: flow.prediction differ." in text
    assert "The validation losses are comparable." in text
    assert line(comparison_lines(runs), "validation loss").endswith("worse")
    sizes = [runs[0], tmp_path / "c"]
    lines = comparison_lines(sizes)
    assert lines[-1] == "The figures are not comparable: size differ."
    assert line(lines, "validation loss").endswith("(0.880 to 0.920)")


def test_biased_figures_of_other_numbers_of_pictures_are_not_put_beside(tmp_path: Path) -> None:
    runs = [bare(tmp_path / name) for name in "ab"]
    for run, count in zip(runs, (400, 800), strict=True):
        figures = [measured(name, 9.0, bias=bias, pictures=count) for name, bias in BIASES.items()]
        record(run, evaluation(80, "ema", tiny().sampling, figures))
    lines = comparison_lines(runs)
    assert sum(one.startswith("KID") for one in lines) == 1
    assert sum(one.startswith("FID") for one in lines) == 2


BIASES = {"KID": "none", "FID": "upwards"}


def test_only_what_differs_of_the_configs_is_listed(tmp_path: Path) -> None:
    config = tiny()
    other = replace(config, train=replace(config.train, lr=5e-4))
    runs = [bare(tmp_path / "a", config), bare(tmp_path / "b", other)]
    text = Page(write_comparison(runs, tmp_path / "ab.html")).text
    assert "name a b train.lr 0.001 0.0005" in text
    assert "train.pictures" not in text
    assert line(comparison_lines(runs), "train.lr").split() == ["train.lr", "0.001", "0.0005"]


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    runs = [bare(tmp_path / folder / "run") for folder in "ab"]
    assert comparison_lines(runs)[0].split() == [str(run) for run in runs]


def test_a_model_and_an_autoencoder_are_not_comparable(tmp_path: Path) -> None:
    run = tmp_path / "autoencoder"
    run.mkdir()
    config_io.save(AutoencoderExperiment(), run / "config.json")
    both = [full(tmp_path / "model"), run]
    text = Page(write_comparison(both, tmp_path / "both.html")).text
    assert "The figures are not comparable: experiment, size, source, held_out differ." in text


def test_the_command_prints_the_figures_and_writes_the_page(
    two: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert compare([str(run) for run in two]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == "compare.html"
    assert said[:-1] == comparison_lines(two)
    assert Path("compare.html").exists()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([], "the runs' folders are missing"),
        (["a"], "name two or more runs"),
        (["a", "./a"], "each once"),
        (["a", "nowhere"], "nowhere: not a run's folder"),
        (["a", "b", "--to", "b.png"], "end it in .html"),
        (["a", "b", "--tow", "b.html"], "--tow"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    arguments: list[str], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        bare(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=why) as error:
        compare(arguments)
    assert "\n" not in str(error.value)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}
