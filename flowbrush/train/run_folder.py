"""A run's folder: one config, one writer at a time."""

import errno
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flowbrush import config_io
from flowbrush.autoencoding import Experiment, load_experiment
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
    Raises AnotherRun where something else differs, UserError where another process is at it.
    """
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
