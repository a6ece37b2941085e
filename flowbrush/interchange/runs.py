"""A published checkpoint becomes a run that can be sampled and trained further."""

from collections.abc import Callable
from pathlib import Path

from flowbrush import checkpoint, config_io
from flowbrush.config_io import to_json
from flowbrush.errors import UserError, nearest
from flowbrush.experiment import CHECKPOINT_FOLDER, CONFIG_FILE
from flowbrush.interchange import dit, flux, jit, pixart, sd3
from flowbrush.interchange.networks import guess_family
from flowbrush.interchange.published import Choices, Imported, Published, read_published

FAMILIES: dict[str, Callable[[Published, Choices], Imported]] = {
    "jit": jit.imported,
    "dit": dit.imported_dit,
    "sit": dit.imported_sit,
    "pixart": pixart.imported,
    "sd3": sd3.imported,
    "flux": flux.imported,
}


def import_run(family: str, path: Path, run: Path, choices: Choices | None = None) -> None:
    """Write the weights at `path` as a run at 0 pictures seen, without an optimizer's state.

    Raises UserError for an unknown family, weights that do not fit it, or a run already there.
    """
    if family not in FAMILIES:
        raise UserError(
            f"'{family}' is not one of {', '.join(FAMILIES)}{nearest(family, FAMILIES)}"
        )
    if run.exists():
        raise UserError(f"{run}: there already; choose another folder with --to")
    published = read_published(path)
    try:
        config, weights = FAMILIES[family](published, choices or Choices())
    except UserError as error:
        guess = guess_family(published.model)
        other = f"; it looks like {guess}" if guess and family not in guess else ""
        raise UserError(f"{error}{other}") from None
    progress = {"pictures": 0, "begins_averaged": True}
    states = {**weights, "progress": progress, "config": to_json(config)}
    checkpoint.save(run / CHECKPOINT_FOLDER, 0, states, keep=1)
    config_io.save(config, run / CONFIG_FILE)
