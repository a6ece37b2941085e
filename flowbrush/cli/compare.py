"""`flowbrush compare`."""

from dataclasses import dataclass
from pathlib import Path

from flowbrush.cli.options import parse
from flowbrush.errors import UserError


@dataclass(frozen=True)
class CompareOptions:
    """Two or more runs: their newest figures, their curves and what differs in their configs."""

    to: Path = Path("compare.html")
    """the page, in one file; the figures are printed as well"""


def compare(arguments: list[str]) -> int:
    split = next((i for i, word in enumerate(arguments) if word.startswith("-")), len(arguments))
    runs, rest = [Path(word) for word in arguments[:split]], arguments[split:]
    usage = "flowbrush compare RUN RUN ... [options]"
    options = parse(CompareOptions, CompareOptions(), rest, usage)
    if options.to.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--to {options.to}: end it in .html")
    if not runs:
        raise UserError(f"compare: the runs' folders are missing; usage: {usage}")
    from flowbrush.evaluate.compare import comparison_lines, write_comparison

    lines = comparison_lines(runs)
    to = write_comparison(runs, options.to)
    print("\n".join(lines))
    print(to)
    return 0
