"""The house keeps its floors: a part imports from its own folder and from lower floors only, and
files stay short."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[1] / "flowbrush"

FLOORS = [
    {"errors", "whole_files", "cpu"},  # 0: what every floor may raise, write or ask
    {
        "condition",
        "shapes",
        "randomness",
        "processes",
        "config_io",
        "hub",
        "sharding",
        "blocks",
        "finite",
    },
    {
        *("flow", "backbones", "spaces", "text", "data"),
        *("checkpoint", "compute", "contact_sheet", "perceptual"),
    },
    {"experiment"},
    {"autoencoding", "averages"},
    {"text_to_image", "recipes", "interchange"},
    {"evaluate", "prepare", "plan"},
    {"train", "doctor"},
    {"cli", "learn"},
]
OUTSIDE = {"__init__", "__main__"}  # the doors: they may open on any floor
MOST_LINES = {"train/loop.py": 300}


def floor_of(room: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


def room_of(path: str) -> str:
    """`flow/path.py` and `flow` are in `flow`; `condition.py` is in `condition`."""
    return path.split("/")[0].removesuffix(".py")


def imported(source: str) -> Iterator[str]:
    """The rooms that a file imports from, at its top or inside a function."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "flowbrush":
            names = [f"flowbrush.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            names = [node.module or ""]
        else:
            continue
        yield from (n.split(".")[1] for n in names if n.startswith("flowbrush."))


def violations(path: str, source: str) -> list[str]:
    """What a file at `path`, from the house's door, does against the rules."""
    found = []
    lines, most = source.count("\n"), MOST_LINES.get(path, 400)
    if lines > most:
        found.append(f"{path}: {lines} lines, at most {most}")
    here = room_of(path)
    if here in OUTSIDE:
        return found
    for room in imported(source):
        if room != here and floor_of(room) >= floor_of(here):
            found.append(f"{path} (floor {floor_of(here)}) imports {room} (floor {floor_of(room)})")
    if path.startswith("backbones/") and path.count("/") == 1 and not path.endswith("__init__.py"):
        others = {p.stem for p in (HOUSE / "backbones").glob("*.py")} - {
            "__init__",
            Path(path).stem,
        }
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[-1] in others:
                found.append(f"{path} imports another backbone, {node.module}")
    return found


@pytest.mark.parametrize("path", sorted(str(p.relative_to(HOUSE)) for p in HOUSE.rglob("*.py")))
def test_a_file_keeps_to_its_floor_and_its_length(path: str) -> None:
    assert violations(path, (HOUSE / path).read_text("utf-8")) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("flow/path.py", "from flowbrush.train.loop import train\n"),
        ("flow/path.py", "def later():\n    from flowbrush.backbones import DiTConfig\n"),
        ("condition.py", "from flowbrush import checkpoint\n"),
        ("condition.py", "from flowbrush.shapes import Shapes\n"),
        ("evaluate/metrics.py", "import flowbrush.cli\n"),
        ("backbones/dit.py", "from flowbrush.backbones.jit import JiT\n"),
        ("flow/path.py", "pass\n" * 401),
        ("train/loop.py", "pass\n" * 301),
    ],
)
def test_a_planted_violation_is_found(path: str, source: str) -> None:
    assert len(violations(path, source)) == 1


def test_every_room_has_a_floor() -> None:
    rooms = {
        room_of(p.name)
        for p in HOUSE.iterdir()
        if p.suffix == ".py" or (p / "__init__.py").exists()
    }
    assert rooms - OUTSIDE == set().union(*FLOORS)


def test_no_room_is_a_lumber_room() -> None:
    lumber = {"utils", "util", "common", "core", "misc", "helpers", "engine", "manager"}
    assert not lumber & {p.stem for p in HOUSE.rglob("*") if p.suffix in ("", ".py")}
