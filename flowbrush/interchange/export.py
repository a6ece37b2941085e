"""A trained run leaves as a folder for diffusers: whole, checked, or not at all."""

import shutil
from pathlib import Path

from flowbrush.backbones.jit import JiT
from flowbrush.errors import UserError
from flowbrush.hub import quiet
from flowbrush.interchange import jit_folder, to_diffusers
from flowbrush.interchange.to_diffusers import Leaving


def export_run(leaving: Leaving, folder: Path) -> str:
    """Write `folder`; returns the lines of Python that paint with it.

    Raises UserError where it is there already, where the run cannot be said in diffusers' terms, or
    where what was written does not paint what the run paints. Nothing is left behind then.
    """
    if folder.exists():
        raise UserError(f"{folder}: there already; choose another folder")
    aside = folder.parent / f".{folder.name}-aside"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        with quiet():
            lines = _written(leaving, aside)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return lines.replace("FOLDER", repr(str(folder)))


def _written(leaving: Leaving, folder: Path) -> str:
    if not isinstance(leaving.backbone, JiT):
        return to_diffusers.write_folder(leaving, folder)
    config, backbone = leaving.config, leaving.backbone
    jit_folder.write_jit(config, backbone, leaving.shapes, folder)
    jit_folder.check_jit(folder, config, backbone, leaving.encoder)
    return jit_folder.usage(config)
