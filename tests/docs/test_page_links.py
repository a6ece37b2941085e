"""Links between files of the repository lead to files, and to headings that are there."""

import re
from pathlib import Path

import pytest
from docs.pages import NAMES, PAGES, ROOT, prose

LINK = re.compile(r"\]\(([^()\s]+)\)")


def anchors(path: Path) -> set[str]:
    """Of its headings, as code-hosting sites and the documentation site make them."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    words = (re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()) for heading in headings)
    return {said.strip().replace(" ", "-") for said in words}


@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_links_lead_somewhere(path: Path) -> None:
    for link in LINK.findall(re.sub(r"`[^`\n]+`", "", prose(path))):
        target, _, anchor = link.partition("#")
        if "://" in link:
            continue
        there = path if not target else path.parent / target
        assert there.exists(), f"{link}: no such file"
        assert there.resolve().is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors(there), f"{link}: no such heading"
