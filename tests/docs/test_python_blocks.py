"""The Python in README, docs/ and CONTRIBUTING compiles, and what it imports is there."""

import ast
import importlib
from pathlib import Path

import pytest
from docs.pages import NAMES, PAGES, blocks


@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_python_compiles_and_its_imports_are_there(path: Path) -> None:
    for block in blocks(path):
        if block.language != "python":
            continue
        for node in ast.walk(ast.parse(block.body)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("flowbrush"):
                module = importlib.import_module(str(node.module))
                missing = [alias.name for alias in node.names if not hasattr(module, alias.name)]
                assert not missing, f"{node.module} has no {missing}"
