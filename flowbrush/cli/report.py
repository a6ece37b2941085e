"""`flowbrush evaluate report`: a run as one page."""

from dataclasses import dataclass
from pathlib import Path

from flowbrush.cli.options import first_word, parse


@dataclass(frozen=True)
class ReportOptions:
    """RUN/report.html: figures, curves and pictures of a run in one file, from its folder alone."""


def report(arguments: list[str]) -> int:
    run, rest = first_word(arguments, "evaluate report RUN", "a run's folder")
    parse(ReportOptions, ReportOptions(), rest, "flowbrush evaluate report RUN")
    from flowbrush.evaluate.report import write_report

    print(write_report(Path(run)))
    return 0
