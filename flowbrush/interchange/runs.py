"""A published checkpoint becomes a run that can be sampled and trained further."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from flowbrush import checkpoint, config_io
from flowbrush.config_io import to_json
from flowbrush.errors import UserError, nearest
from flowbrush.experiment import CHECKPOINT_FOLDER, CONFIG_FILE, ExperimentConfig
from flowbrush.interchange import jit
from flowbrush.interchange.files import read_weights
from flowbrush.interchange.rules import Weights

FAMILIES: dict[str, Callable[..., tuple[ExperimentConfig, dict[str, Weights]]]] = {
    "jit": jit.imported,
}

# A key that only this family's published weights have.
_SIGNS = {
    "x_embedder.proj1.weight": "jit",
    "y_embedder.embedding_table.weight": "dit or sit",
    "adaln_single.linear.weight": "pixart",
    "double_blocks.0.img_attn.qkv.weight": "flux, in its authors' layout",
    "single_transformer_blocks.0.norm.linear.weight": "flux",
    "transformer_blocks.0.norm1_context.linear.weight": "sd3",
}


def class_names(folder: Path | None, count: int) -> tuple[str, ...]:
    """The folders of a data set, in order; the classes' numbers where no folder is given.

    Raises UserError where they are not as many as the weights have.
    """
    if folder is None:
        return tuple(map(str, range(count)))
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give one with a folder a class")
    found = tuple(sorted(p.name for p in folder.iterdir() if p.is_dir()))
    if len(found) != count:
        raise UserError(f"{folder}: {len(found)} class folders, the weights have {count} classes")
    return found


def import_run(family: str, file: Path, run: Path, classes: Path | None = None) -> None:
    """Write the weights in `file` as a run at 0 pictures seen, without an optimizer's state.

    Raises UserError for an unknown family, a file that does not fit it, or a folder already there.
    """
    if family not in FAMILIES:
        raise UserError(
            f"'{family}' is not one of {', '.join(FAMILIES)}{nearest(family, FAMILIES)}"
        )
    if run.exists():
        raise UserError(f"{run}: there already; choose another folder with --to")
    published = read_weights(file)
    try:
        config, weights = FAMILIES[family](published, str(file), partial(class_names, classes))
    except UserError as error:
        guess = guess_family(jit.flat_names(published))
        other = f"; it looks like {guess}" if guess and guess != family else ""
        raise UserError(f"{error}{other}") from None
    states = {**weights, "progress": {"pictures": 0}, "config": to_json(config)}
    checkpoint.save(run / CHECKPOINT_FOLDER, 0, states, keep=1)
    config_io.save(config, run / CONFIG_FILE)


def guess_family(keys: Iterable[str]) -> str | None:
    """The family whose published weights have such keys."""
    present = set(keys)
    return next((family for sign, family in _SIGNS.items() if sign in present), None)
