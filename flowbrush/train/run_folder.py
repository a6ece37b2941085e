"""A run's folder: one config, one writer at a time."""

import errno
import fcntl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flowbrush import checkpoint, config_io
from flowbrush.autoencoding import Experiment, load_experiment
from flowbrush.data.changes import Change, changed
from flowbrush.data.names import shown
from flowbrush.data.source import Source
from flowbrush.errors import AnotherRun, UserError
from flowbrush.experiment import CONFIG_FILE, is_run

ATTRIBUTION_FILE = "ATTRIBUTION.txt"


@contextmanager
def opened(
    run: Path, config: Experiment, changeable: tuple[str, ...], attribution: str = ""
) -> Iterator[None]:
    """The folder is there, holds this config, and no other process trains in it.

    attribution: whom the pictures are due to; kept in the folder: what the run paints owes it too.
    changeable: dotted names, or beginnings of them, of what may differ from the run's config.
    Raises AnotherRun where something else differs, UserError where another process is at it, or
    where the folder's name is not UTF-8, as safetensors wants it.
    """
    if (name := shown(str(run))) != str(run):
        raise UserError(f"{name}: the name is not UTF-8; choose another folder with --run")
    if is_run(run):
        check_same(run, config, changeable)
    try:
        run.mkdir(parents=True, exist_ok=True)
        with (run / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f"{run}: another process is training in it; wait for it, or choose --run"
                ) from None
            config_io.save(config, run / CONFIG_FILE)
            if attribution:
                (run / ATTRIBUTION_FILE).write_text(attribution + "\n", "utf-8")
            yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"{error.filename or run}: {error.strerror}; free some, then go on with: flowbrush "
                f"train {run}"
            ) from None
        if not isinstance(error, NotADirectoryError | FileExistsError | PermissionError):
            raise
        raise UserError(
            f"{run}: cannot be written ({error.strerror}); choose another folder with --run"
        ) from None


def check_same(run: Path, config: Experiment, changeable: tuple[str, ...]) -> None:
    """Raises AnotherRun where `config` differs from the run's in what is not changeable."""
    begun = load_experiment(run)
    if type(begun) is not type(config):
        raise AnotherRun(
            f"{run}: the run of another kind of model", "choose another folder with --run"
        )
    found = config_io.differences(begun, config)
    other = {name: pair for name, pair in found.items() if not name.startswith(changeable)}
    if other:
        name, (before, now) = next(iter(other.items()))
        more = f" and {len(other) - 1} more" if len(other) > 1 else ""
        raise AnotherRun(
            f"{run}: begun with another config ({name} was {before}, is now {now}{more})",
            f"choose another folder with --run, or go on with: flowbrush train {run}",
        )


def change_since(found: Path, now: Mapping[str, Any], source: Source) -> Change | None:
    """What has changed in the data since a checkpoint; None too where it does not tell.

    now: what `provenance` says of the source.
    """
    if "provenance" not in checkpoint.names(found):
        return None
    return changed(checkpoint.load(found, "provenance"), now, source)


def check_data(
    change: Change | None, held_out: bool, accepted: bool, say: Callable[[str], object]
) -> None:
    """Say what has changed in the data since the last checkpoint.

    accepted: by the user. Raises UserError where, without that, images that were learned would be
    held out now.
    """
    if change is None:
        return
    if held_out and change.moved and not accepted:
        raise UserError(
            f"source: {change.told}; other images would be held out, some of which were learned "
            "already. Put the files back as they were, or resume all the same with --changed-data"
        )
    others = ""
    if held_out and change.moved:
        others = "; the validation loss is of images of which some were learned"
    elif held_out and change.moved is None:
        others = "; if their order is another, images that were learned are held out now"
    say(f"source: {change.told}{others}")
