"""The pages that people read, cut into what is typed, linked and named in them."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [path.relative_to(ROOT).as_posix() for path in PAGES]

FENCE = re.compile(
    r"^(?P<mark><!-- run -->\n)?(?P<fence>`{3,})(?P<words>[^\n`]*)\n(?P<body>.*?)^(?P=fence)$",
    re.MULTILINE | re.DOTALL,
)
CALLED = re.compile(  # up to a verb
    r"^(?:\.venv/bin/)?flowbrush |^torchrun .*-m -- +flowbrush "
    r"|^(?:[A-Z]+=\S+ )*(?:sbatch )?launch/(?:torchrun\.sh|slurm\.sbatch) "
)


@dataclass(frozen=True)
class Block:
    """What stands between two fences. runs: whether a reader is meant to run it as it is."""

    page: str
    language: str
    body: str
    runs: bool

    @property
    def commands(self) -> Iterator[list[str]]:
        """The words behind `flowbrush` in each line that calls it."""
        for line in self.body.replace("\\\n", "").splitlines():
            if called := CALLED.match(line):
                verb = ["train"] if "launch/" in called[0] else []
                command = re.split(r"\s{3,}|\s+#", line[called.end() :])[0]
                yield [*verb, *shlex.split(command)]


def blocks(path: Path) -> list[Block]:
    page = path.relative_to(ROOT).as_posix()
    return [
        Block(page, found["words"].strip(), found["body"], bool(found["mark"]))
        for found in FENCE.finditer(path.read_text("utf-8"))
    ]


def prose(path: Path) -> str:
    """A page without what is between fences."""
    return FENCE.sub("", path.read_text("utf-8"))
