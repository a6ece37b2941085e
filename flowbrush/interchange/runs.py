"""A published checkpoint becomes a run that can be sampled and trained further."""

import json
from collections.abc import Callable
from pathlib import Path

from flowbrush import checkpoint, config_io
from flowbrush.config_io import to_json
from flowbrush.errors import UserError, nearest
from flowbrush.experiment import CHECKPOINT_FOLDER, CONFIG_FILE
from flowbrush.interchange import dit, flux, jit, pixart, sd3
from flowbrush.interchange.networks import guess_family
from flowbrush.interchange.published import Choices, Imported, Published, read_published
from flowbrush.interchange.settings import ORIGINS_FILE, told
from flowbrush.whole_files import written_whole

FAMILIES: dict[str, Callable[[Published, Choices], Imported]] = {
    "jit": jit.imported,
    "dit": dit.imported_dit,
    "sit": dit.imported_sit,
    "pixart": pixart.imported,
    "sd3": sd3.imported,
    "flux": flux.imported,
}


def import_run(family: str, path: Path, run: Path, choices: Choices | None = None) -> list[str]:
    """Write the weights at `path` as a run at 0 pictures seen, without an optimizer's state.

    Returns lines for the user: where its settings are from, which its folder keeps as well.
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
        found = FAMILIES[family](published, choices or Choices())
    except UserError as error:
        guess = guess_family(published.model)
        other = f"; it looks like {guess}" if guess and family not in guess else ""
        raise UserError(f"{error}{other}") from None
    progress = {"pictures": 0, "begins_averaged": True}
    states = {**found.weights, "progress": progress, "config": to_json(found.config)}
    checkpoint.save(run / CHECKPOINT_FOLDER, 0, states, keep=1)
    with written_whole(run / ORIGINS_FILE) as aside:
        aside.write_text(json.dumps(found.origins, indent=2) + "\n", "utf-8")
    config_io.save(found.config, run / CONFIG_FILE)
    return [*told(found.config, found.origins), *found.notes, *_of_averages(published, found)]


def _of_averages(published: Published, found: Imported) -> list[str]:
    """What is said of averages in the file that the run has not."""
    taken = sum(name.startswith("ema_") for name in found.weights)
    places, unread = list(published.networks.averages), published.networks.unread
    lines = []
    if len(places) > taken:
        lines.append(f"averages under {', '.join(places)}; read: {', '.join(places[:taken])}")
    if unread:
        instead = "the other average" if places else "the model's own weights"
        lines.append(
            f"an average under {', '.join(unread)} was not read, as its names and shapes are not "
            f"the model's; {instead} stand for it"
        )
    return lines
