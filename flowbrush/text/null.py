"""The null caption, written down in a run: the text models that meet it again must be the same."""

from dataclasses import fields
from pathlib import Path

import torch
from safetensors.torch import load_file, save

from flowbrush.condition import Condition
from flowbrush.errors import UserError
from flowbrush.whole_files import write_whole

NULL_FILE = "null.safetensors"
ROUNDING = 0.02  # relative: bf16 here, fp32 there


def record_null(run: Path, null: Condition) -> None:
    """Write it into the run's folder, or, where it is already, check it as `check_null` does."""
    check_null(run, null)
    parts = {f.name: getattr(null, f.name) for f in fields(null)}
    tensors = {
        name: part.cpu().clone().contiguous() for name, part in parts.items() if part is not None
    }
    if not (run / NULL_FILE).exists():
        write_whole(run / NULL_FILE, save(tensors))


def check_null(run: Path, null: Condition) -> None:
    """Raises UserError where the run's null caption was another; a run may have none."""
    if not (run / NULL_FILE).exists():
        return
    for name, was in load_file(run / NULL_FILE).items():
        now = getattr(null, name)
        widths = was.shape[-1], 0 if now is None else now.shape[-1]
        if now is None or now.shape != was.shape or _error(now.cpu(), was) > ROUNDING:
            how = f" (width {widths[0]}, now {widths[1]})" if widths[0] != widths[1] else ""
            raise UserError(
                f"text: another null caption than in {run / NULL_FILE}{how}; the text model is not "
                "the one that the run began with: give that one"
            )


def _error(now: torch.Tensor, was: torch.Tensor) -> float:
    """The length of the difference by that of `was`; infinite for any difference from zeros."""
    difference = (now.double() - was.double()).norm()
    return float(difference / was.double().norm()) if difference else 0.0
