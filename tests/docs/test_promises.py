"""Every promise of the documentation names a test that there is."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "promises.md"
ROWS = [line.split("|") for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ")]
PROMISES = [(row[1].strip(), row[2]) for row in ROWS if row[1].strip() != "promise"]


@pytest.mark.parametrize(("promise", "cell"), PROMISES, ids=[promise for promise, _ in PROMISES])
def test_a_promise_names_tests_that_exist(promise, cell):
    names = re.findall(r"`([^`]+)`", cell)
    assert names
    for name in names:
        path, _, function = name.partition("::")
        tree = ast.parse((TESTS / path).read_text("utf-8"))
        there = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert function.startswith("test_"), name
        assert function in there, name
