"""A trained run leaves as a folder for diffusers: whole, checked, or not at all."""

import shutil
from collections.abc import Callable
from pathlib import Path

from flowbrush.backbones.jit import JiT
from flowbrush.errors import UserError
from flowbrush.interchange import jit_folder, to_diffusers
from flowbrush.interchange.to_diffusers import Leaving


def export_run(leaving: Leaving, folder: Path, say: Callable[[str], None] = print) -> str:
    """Write `folder`; returns the lines of Python that paint with it.

    say: is told of each setting of the run's sampling that is another there, and what that makes.
    Raises UserError where it is there already, where the run cannot be said in diffusers' terms, or
    where what was written does not paint what the run paints. Nothing is left behind then.
    """
    if folder.exists():
        raise UserError(f"{folder}: there already; choose another folder")
    aside = folder.parent / f".{folder.name}-aside"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        with jit_folder.silent():
            lines = _written(leaving, aside, say)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return lines.replace("FOLDER", repr(str(folder)))


def _written(leaving: Leaving, folder: Path, say: Callable[[str], None]) -> str:
    if not isinstance(leaving.backbone, JiT):
        return to_diffusers.write_folder(leaving, folder, say)
    config, backbone = leaving.config, leaving.backbone
    jit_folder.write_jit(config, backbone, leaving.shapes, folder)
    jit_folder.check_jit(folder, config, backbone, leaving.encoder)
    return jit_folder.usage(config)
