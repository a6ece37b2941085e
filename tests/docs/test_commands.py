"""Every command in README, docs/ and CONTRIBUTING is understood by the command line as it is now,
and those that a reader is told to run do run."""

import ast
import dataclasses
import importlib
import pkgutil
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from docs.pages import NAMES, PAGES, Block, blocks, prose

import flowbrush.cli
from flowbrush import config_io
from flowbrush.autoencoding import AutoencoderExperiment
from flowbrush.cli import HELP, VERBS, main
from flowbrush.errors import UserError
from flowbrush.evaluate.features import FeaturesModels
from flowbrush.evaluate.sweep import SweepConfig
from flowbrush.experiment import CONFIG_FILE, ExperimentConfig
from flowbrush.flow.sampling import SamplingConfig
from flowbrush.interchange.published import Choices
from flowbrush.plan.plan import PlanConfig
from flowbrush.prepare.prepare import PrepareConfig
from flowbrush.recipes import RECIPES

FAMILIES = [
    importlib.import_module(f"flowbrush.cli.{module.name}")
    for module in pkgutil.iter_modules(flowbrush.cli.__path__)
]
DONE_BEFORE_PARSING = {"recipes"}
OTHERS = {"max-restarts", "shutdown-timeout", "shm-size", "signal"}  # torchrun's, Docker's, Slurm's
OPTIONS = [  # of the verbs, beside those in flowbrush/cli
    PrepareConfig,
    PlanConfig,
    Choices,
    SamplingConfig,
    FeaturesModels,
]


class Understood(Exception):
    """The options were parsed; the work would begin."""


def understand(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    """Raises UserError, in the command's own words, where it is not understood."""
    for family in FAMILIES:
        if parse := getattr(family, "parse", None):

            def parse_only(*given: Any, parse: Any = parse) -> None:
                parse(*given)
                raise Understood

            monkeypatch.setattr(family, "parse", parse_only)
    stand_in(words)
    try:
        VERBS[words[0]](words[1:])
    except Understood:
        return
    except SystemExit as end:
        assert "--help" in words and not end.code
        return
    assert words[0] in DONE_BEFORE_PARSING


def stand_in(words: list[str]) -> None:
    """Runs and files of recipes that a command names, so that it finds them."""
    for i, word in enumerate(words):
        words[i] = "emoji" if word in ("RECIPE", "NAME") else word
    for word in words[1:]:
        if match := re.fullmatch(r"(\S+\.py):(\w+)", word):
            written = "from flowbrush import recipe\n\ndef NAME():\n    return recipe('emoji')\n"
            Path(match[1]).write_text(written.replace("NAME", match[2]))
        elif word.startswith("runs/") or word in ("RUN", "DIR"):
            name = next((n for n in sorted(RECIPES, key=len) if word.endswith(n)), "folder")
            config = RECIPES[name]()
            Path(word).mkdir(parents=True, exist_ok=True)
            config_io.save(config, Path(word, CONFIG_FILE))


def commands(path: Path) -> Iterator[list[str]]:
    """Those between fences, and those in a sentence."""
    inline = re.findall(r"`(flowbrush [a-z]+ [^`\n]+)`", prose(path))
    for block in [*blocks(path), Block("", "", "\n".join(inline), False)]:
        yield from block.commands


@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_every_command_is_understood(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in {" ".join(words): words for words in commands(path)}.values():
        assert words[0] in VERBS, words
        try:
            understand(monkeypatch, words)
        except Exception as error:
            pytest.fail(f"flowbrush {' '.join(words)}: {error}")


def test_every_line_of_the_help_is_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = "\n".join(line.strip() for line in HELP.splitlines() if line.startswith("  "))
    found = list(Block("", "", lines, False).commands)
    assert {words[0] for words in found} >= set(VERBS)
    for words in found:
        understand(monkeypatch, words)


def test_a_stale_option_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (["train", "emoji", "--train.rate", "1"], ["sample", "runs/emoji", "a", "--cfg"]):
        with pytest.raises(UserError, match="nrecognized"):
            understand(monkeypatch, words)


RUNNABLE = [path for path in PAGES if any(block.runs for block in blocks(path))]


@pytest.mark.parametrize("path", RUNNABLE, ids=[path.name for path in RUNNABLE])
def test_what_a_reader_is_told_to_run_runs(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for block in filter(lambda block: block.runs, blocks(path)):
        if block.language == "python":
            exec(compile(block.body, block.page, "exec"), {})
        for words in block.commands:
            assert main(words) == 0, f"flowbrush {' '.join(words)}"


def test_options_in_sentences_and_tables_exist() -> None:
    known = {option.replace("-", "_") for option in {*fields(), *verbs_options()}}
    for path in PAGES:
        missing = {
            option
            for option in own_options(path)
            if option.replace("-", "_").replace(".no_", ".") not in known
        }
        assert not missing, f"{path.name}: {sorted(missing)}"


def own_options(path: Path) -> Iterator[str]:
    """Ours in a page's prose; where a table's first column is about other systems, the others'."""
    for line in prose(path).splitlines():
        cells = re.split(r"(?<!\\)\|", line)
        elsewhere = "coming-from/" in str(path) and line.startswith("|") and len(cells) > 3
        for code in re.findall(r"`([^`]+)`", "|".join(cells[2:]) if elsewhere else line):
            yield from {*re.findall(r"(?<![\w-])--([a-z][\w.-]*[a-z])", code)} - OTHERS


def fields(kind: Any = ExperimentConfig, place: str = "") -> Iterator[str]:
    """Every dotted option of a config, whichever of its parts is chosen; and those parts' names."""
    for field, hint in typing.get_type_hints(kind).items():
        name = f"{place}.{field}".lstrip(".")
        yield name
        union = typing.get_origin(hint) in (typing.Union, types.UnionType)
        for part in typing.get_args(hint) if union else (hint,):
            if dataclasses.is_dataclass(part):
                yield from fields(part, name)


def verbs_options() -> Iterator[str]:
    """Of every verb, without its experiment's."""
    yield from fields(AutoencoderExperiment)
    yield from ("help", "tiny")
    yield from fields(SweepConfig, "sweep")
    known = [kind for family in FAMILIES for kind in vars(family).values()]
    for kind in [*known, *OPTIONS]:
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            yield from fields(kind)


PACKAGE = Path(flowbrush.cli.__path__[0]).parent
IN_MESSAGES = re.compile(r"(?<![\w-])--([a-z]\w*(?:[.-]\w+)*)")
ELSEWHERE = {
    *("nproc-per-node", "sort"),  # torchrun's, tar's
    *("url_list", "url_col", "caption_col", "input_format", "output_format", "output_folder"),
    *("grid", "ink", "series"),  # CSS
}


def messages(path: Path) -> Iterator[str]:
    """Every string of a file but its docstrings, and the parts of its f-strings."""
    tree = ast.parse(path.read_text("utf-8"))
    docstrings = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and id(node) not in docstrings:
            yield node.value


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_every_option_that_a_message_names_exists(path: Path) -> None:
    known = {option.replace("-", "_") for option in {*fields(), *verbs_options()}}
    named = {option for text in messages(path) for option in IN_MESSAGES.findall(text)}
    missing = {
        option
        for option in named - ELSEWHERE
        if option.replace("-", "_").replace(".no_", ".") not in known
    }
    assert not missing
