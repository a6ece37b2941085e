"""A run's page: whole in one file, true to the record, and made of whatever there is."""

import json
import math
import re
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny import tiny

from flowbrush import checkpoint, config_io
from flowbrush.autoencoding import AutoencoderExperiment
from flowbrush.cli.report import report
from flowbrush.errors import UserError
from flowbrush.evaluate import report as page
from flowbrush.evaluate.charts import Curve, curves, plain, short, smoothed, thinned
from flowbrush.evaluate.intervals import Measured
from flowbrush.evaluate.record import evaluation, record
from flowbrush.evaluate.report import write_report
from flowbrush.experiment import ExperimentConfig
from flowbrush.train import journal, rejects, run_folder

EVIL = "<script>alert('赤')</script> & \"co\""
VOID = {"meta", "img", "br", "input", "link"}


class Page(HTMLParser):
    """What a browser would see; asserts that every element is closed by its own end."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(path.read_text("utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.words.append(data.strip())

    @property
    def text(self) -> str:
        return " ".join(word for word in self.words if word).replace("\N{NO-BREAK SPACE}", " ")

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def measured(name: str, value: float, half: float = 0.02, **changes: object) -> Measured:
    known = {"pictures": 400, "by": "by hand", "better": "lower", "bias": "none"} | changes
    return Measured(name, value, value - half, value + half, **known)  # type: ignore[arg-type]


def bare(folder: Path, config: ExperimentConfig | None = None) -> Path:
    """A run that has just begun."""
    folder.mkdir(parents=True)
    config_io.save(config or tiny(), folder / "config.json")
    return folder


def full(folder: Path, better: float = 1.0) -> Path:
    """A run with everything that a page shows."""
    config = tiny()
    prompts = replace(config.watch, prompts=("a large red circle", EVIL))
    run = bare(folder, replace(config, watch=prompts))
    lines = [
        {"pictures": 16 * i, "loss": 1 / i, "gradient_norm": 2 / i, "lr": 1e-3, "extra": None}
        for i in range(1, 11)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (run / "journal.jsonl").write_text(text + '{"pictures": 176, "lo', "utf-8")
    for seen in (80, 160):
        figures = [
            measured("KID", 0.5 / seen * better, 0.0011),
            measured("right first, en", 0.6, better="higher"),
            measured("right first, ja", 0.5, better="higher"),
            measured("FID", 80.0, 4.0, bias="upwards"),
            measured("validation loss", 20 / seen * better),
            measured("unknown", math.nan, math.nan),
        ]
        by_time = tuple(20 / seen * better for _ in range(8))
        record(run, evaluation(seen, "ema_0.9", config.sampling, figures, validation=by_time))
    with (run / "evaluations.jsonl").open("a") as file:
        file.write('{"pictures": 160, "weights": "em')
    previews = run / "previews"
    previews.mkdir()
    for seen in range(8, 161, 8):
        Image.new("RGB", (40, 20), (seen, 0, 0)).save(previews / f"{seen:012d}.png")
    Image.new("RGB", (2 * page.WIDEST, 90)).save(run / "painted.png")
    weights = {"a": torch.zeros(3, 4), "b": torch.zeros(5)}
    checkpoint.save(run / "checkpoints", 160, {"model": weights}, keep=1)
    (run / "ATTRIBUTION.txt").write_text(f"drawn by {EVIL}\n", "utf-8")
    reasons = ["cut short", EVIL, "cut short"]
    broken = [json.dumps({"picture": f"{i}.png", "reason": r}) for i, r in enumerate(reasons)]
    (run / "rejected.jsonl").write_text("\n".join(broken) + '\n{"pict', "utf-8")
    rows = [
        {"choices": {"scale": s, "steps": n}, "measured": [asdict(measured("KID", s * n, 0.15))]}
        for s in (1.0, 2.0)
        for n in (4, 8)
    ]
    sweep = {"axes": {"scale": [1.0, 2.0], "steps": [4, 8]}, "rows": rows, "metric": "KID"}
    (run / "sweep.json").write_text(json.dumps(sweep), "utf-8")
    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(write_report(full(tmp_path_factory.mktemp("runs") / "tiny")))


def test_the_files_are_those_that_training_writes() -> None:
    assert journal.JOURNAL_FILE == page.JOURNAL_FILE
    assert run_folder.ATTRIBUTION_FILE == page.ATTRIBUTION_FILE
    assert rejects.REJECTS_FILE == page.REJECTS_FILE


def test_nothing_is_fetched_from_elsewhere(whole: Page) -> None:
    for _, attributes in whole.found:
        for name in ("src", "href", "xlink:href", "srcset", "poster", "action"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/"))
    assert not {"link", "iframe", "object", "base"} & {tag for tag, _ in whole.found}


def test_every_reference_inside_the_page_is_there_once(whole: Page) -> None:
    names = [attributes["id"] for _, attributes in whole.found if "id" in attributes]
    assert len(set(names)) == len(names)
    asked = {
        name
        for _, attributes in whole.found
        for value in attributes.values()
        for name in re.findall(r"^#(.+)|url\(#(.+?)\)", value or "")
    }
    assert {a or b for a, b in asked} <= set(names)


def test_what_others_wrote_is_text_and_no_page(whole: Page) -> None:
    assert len(whole.all("script")) == 1
    assert whole.text.count(EVIL) == 4  # prompt, the same in the config, attribution, reason


def test_the_figures_are_those_of_the_record(whole: Page) -> None:
    assert "KID ↓ 0.0031 0.0020 to 0.0042 400 by hand" in whole.text
    assert "right first, en ↑ 0.600 0.580 to 0.620 400 by hand" in whole.text
    assert "FID of 400 pictures is biased upwards" in whole.text
    assert "unknown ↓ –" in whole.text
    assert "all 2 evaluations" in whole.text
    assert "0.0063" in whole.text, "the first evaluation"


def test_the_run_is_summed_up_in_a_line(whole: Page) -> None:
    said = "A model of the recipe tiny with 17 parameters, at 16 pixels: 160 of 160 pictures seen"
    assert f"{said}; KID 0.0031 (0.0020 to 0.0042)" in whole.text


def test_curves_name_their_axes_and_end_before_a_line_that_was_cut_short(whole: Page) -> None:
    assert "training loss, now 0.1 " in whole.text
    assert "t, from noise (0) to data (1)" in whole.text
    assert "right first (higher is better)" in whole.text
    titles = [attributes.get("aria-label") for attributes in whole.all("svg")]
    assert "gradient norm, now 0.2: gradient norm over pictures seen" in titles


def test_previews_are_spread_over_the_run_and_wide_pictures_are_made_smaller(whole: Page) -> None:
    pictures = whole.all("img")
    names = [one["alt"] for one in pictures[:-1]]
    assert len(names) == page.MOST_PREVIEWS
    assert (names[0], names[-1]) == ("8 pictures seen", "160 pictures seen")
    assert pictures[-1]["width"] == str(page.WIDEST)


def test_a_sweep_is_a_map_and_a_table(whole: Page) -> None:
    assert "all 4 ways of painting" in whole.text
    titles = [attributes.get("aria-label") for attributes in whole.all("svg")]
    assert "KID (lower is better)" in titles
    assert "1 8 8.00 7.85 to 8.15" in whole.text


def test_the_way_that_a_sweep_tried_last_does_not_speak_for_the_run(tmp_path: Path) -> None:
    run = bare(tmp_path / "run")
    for sampling in (tiny().sampling, replace(tiny().sampling, scale=9.0)):
        record(run, evaluation(160, "ema_0.9", sampling, [measured("KID", 0.9)]))
    text = Page(write_report(run)).text
    assert "Measured at 160 pictures seen; ema_0.9; heun, 2 steps, scale 2.5" in text
    assert "scale 9" in text, "in the table of all"


def test_choices_environment_and_broken_pictures_are_told(whole: Page) -> None:
    assert "backbone JiTConfig" in whole.text
    assert "train.ema 0.9, 0.5" in whole.text
    assert "flowbrush" in whole.text
    assert "3 pictures could not be read" in whole.text
    assert "cut short 2" in whole.text


def test_the_same_folder_gives_the_same_bytes(tmp_path: Path) -> None:
    run = full(tmp_path / "run")
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first
    assert not list(run.glob(".*"))


def test_a_run_that_has_just_begun_says_what_is_missing(tmp_path: Path) -> None:
    run = bare(tmp_path / "new")
    text = Page(write_report(run)).text
    for said in (
        f"No evaluations yet: flowbrush evaluate {run}",
        "No previews yet",
        f"Nothing in the journal yet: flowbrush train {run}",
        "No picture is known to have been rejected",
        "The source names nobody",
        "0 of 160 pictures seen",
        "Nothing is recorded of the machine",
    ):
        assert said in text
    assert "Sweep" not in text


@pytest.mark.parametrize(
    "name",
    [
        "journal.jsonl",
        "evaluations.jsonl",
        "sweep.json",
        "painted.png",
        "rejected.jsonl",
        "previews/000000000160.png",
        "checkpoints/000000000160/model.safetensors",
    ],
)
def test_a_broken_file_costs_no_more_than_its_part(name: str, tmp_path: Path) -> None:
    run = full(tmp_path / "run")
    (run / name).write_bytes(b"\x00{[")
    Page(write_report(run))


@pytest.mark.parametrize(
    "sweep", [{"axes": {}, "rows": []}, {"axes": {"scale": [1]}, "rows": []}, [], {"rows": 3}]
)
def test_a_sweep_without_results_draws_no_map(sweep: object, tmp_path: Path) -> None:
    run = bare(tmp_path / "run")
    (run / "sweep.json").write_text(json.dumps(sweep), "utf-8")
    assert Page(write_report(run)).all("svg") == []


def test_a_sweep_over_many_axes_has_a_map_for_each_choice_of_the_rest(tmp_path: Path) -> None:
    run = bare(tmp_path / "run")
    rows = [
        {
            "choices": {"scale": s, "interval": [0.1, e], "weights": w},
            "measured": [asdict(measured("KID", s + e))],
        }
        for s in (1.0, 2.0)
        for e in (0.8, 1.0)
        for w in ("ema", EVIL)
    ]
    axes = {"scale": [1.0, 2.0], "interval": [[0.1, 0.8], [0.1, 1.0]], "weights": ["ema", EVIL]}
    (run / "sweep.json").write_text(json.dumps({"axes": axes, "rows": rows}), "utf-8")
    found = Page(write_report(run))
    titles = [attributes.get("aria-label") for attributes in found.all("svg")]
    expected = [f"KID: weights {w} (lower is better)" for w in ("ema", EVIL)]
    assert titles == expected


def test_an_autoencoders_run_has_a_page_too(tmp_path: Path) -> None:
    run = tmp_path / "autoencoder"
    run.mkdir()
    config_io.save(AutoencoderExperiment(), run / "config.json")
    assert "An autoencoder's run is not evaluated" in Page(write_report(run)).text


def test_the_command_prints_where_the_page_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = bare(tmp_path / "run")
    assert report([str(run)]) == 0
    assert capsys.readouterr().out == f"{run / 'report.html'}\n"
    with pytest.raises(UserError, match="not a run's folder"):
        report([str(tmp_path)])
    with pytest.raises(UserError, match="a run's folder is missing"):
        report([])


def test_a_long_curve_is_drawn_by_its_means() -> None:
    points = [(float(i), float(i % 2)) for i in range(100_000)]
    few = thinned(points)
    assert len(few) == 400
    assert all(y == pytest.approx(0.5) for _, y in few)
    assert all(y == pytest.approx(0.5, abs=1e-6) for _, y in smoothed(points))
    assert thinned(points[:400]) == points[:400]
    assert smoothed(points[:10]) == points[:10]


def test_a_drawing_takes_its_colours_from_the_page_and_its_letters_too() -> None:
    drawn = curves("a $b$ <c>", [Curve("", [(0.0, 1.0), (1.0, 100.0)])], "x", "赤い $y$").svg
    assert "var(--series-0)" in drawn
    assert "var(--ink)" in drawn
    assert "#0" not in drawn.replace('href="#', "").replace("url(#", "")
    assert "font-family" not in drawn
    assert "赤い $y$" in drawn
    assert 'aria-label="a $b$ &lt;c>: 赤い $y$ over x"' in drawn


def test_numbers_are_short() -> None:
    assert [short(v) for v in (0, 640, 64_000, 1_250_000, 2e9)] == [
        "0",
        "640",
        "64k",
        "1.25M",
        "2G",
    ]
    assert [plain(v) for v in (0.1 + 0.2, 1e-5, 1e20, 0.0)] == ["0.3", "1e-5", "1e20", "0"]
