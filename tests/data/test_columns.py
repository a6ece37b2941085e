"""Which files a path stands for; the columns themselves are tested with the sources."""

from pathlib import Path

import pytest

from flowbrush.data.columns import files_of
from flowbrush.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / ".hidden above/data"
    for name in ("b.x", "a.x", "sub/c.x", ".trash/d.x", "sub/.e.x", "f.x.part", "g.y"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def names(path: Path, *patterns: str) -> list[str]:
    return [found.name for found in files_of(path, patterns or ("*.x",))]


def test_a_folder_stands_for_its_files_in_the_order_of_their_names(folder):
    assert names(folder) == ["a.x", "b.x", "c.x"]


def test_several_patterns_find_no_file_twice(folder):
    assert names(folder, "*.x", "a.*", "*.y") == ["a.x", "b.x", "g.y", "c.x"]


def test_a_file_is_taken_whatever_its_name(folder):
    assert names(folder / "g.y") == ["g.y"]


def test_a_glob_says_which(folder):
    assert names(folder / "[ab].*") == ["a.x", "b.x"]
    assert names(folder / "**/c.x") == ["c.x"]


@pytest.mark.parametrize("path", ["nowhere", "*.z", "sub/*.y"])
def test_where_there_is_none_it_is_told(folder, path):
    with pytest.raises(UserError, match=r"no \*\.x there; give a file, a folder or a pattern"):
        files_of(folder / path, ("*.x",))
