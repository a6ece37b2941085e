"""`flowbrush import` and `flowbrush export`: published weights in, a run's out."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from flowbrush.cli.options import Weights, first_word, parse


@dataclass(frozen=True)
class ImportOptions:
    """Where the run goes."""

    to: Path = Path("runs/imported")
    """folder of the new run"""


def import_weights(arguments: list[str]) -> int:
    family, rest = first_word(arguments, "import FAMILY FILE --to RUN", "a family, such as jit,")
    path, rest = first_word(rest, f"import {family} FILE --to RUN", "the file or folder of weights")
    from flowbrush.interchange.published import Choices
    from flowbrush.interchange.runs import import_run

    @dataclass(frozen=True)
    class Import:
        options: Annotated[ImportOptions, tyro.conf.arg(name="")]
        choices: Annotated[Choices, tyro.conf.arg(name="")]

    program = f"flowbrush import {family or 'FAMILY'} {path or 'FILE'}"
    chosen = parse(Import, Import(ImportOptions(), Choices()), rest, program)
    to = chosen.options.to
    for line in import_run(family, Path(path), to, chosen.choices):
        print(line)
    print(f"{to}: imported; paint with: flowbrush sample {to} ...")
    return 0


@dataclass(frozen=True)
class ExportOptions:
    """What leaves, and where to."""

    to: tuple[Literal["diffusers"], Path] = ("diffusers", Path("exported"))
    """format and folder: --to diffusers DIR"""
    weights: Weights = "ema"


def export(arguments: list[str]) -> int:
    run, rest = first_word(arguments, "export RUN --to diffusers DIR", "a run's folder")
    options = parse(ExportOptions, ExportOptions(), rest, f"flowbrush export {run or 'RUN'}")
    from flowbrush.experiment import build_shapes
    from flowbrush.interchange.export import Leaving, export_run
    from flowbrush.text_to_image import TextToImage

    painter = TextToImage.load(run, options.weights, "cpu", frozen=False)
    shapes = build_shapes(painter.config, painter.space, painter.encoder)
    leaving = Leaving(painter.config, shapes, painter.denoiser.backbone, painter.encoder)
    folder = options.to[1]
    print(f"{export_run(leaving, folder)}\n{folder}: exported and checked; the lines above paint")
    return 0
