"""Checkpoints that a thread writes while training goes on, each process its own part of them."""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from flowbrush import checkpoint
from flowbrush.checkpoint import State
from flowbrush.errors import UserError
from flowbrush.processes import Processes

Digests = dict[str, str]


class Saving:
    """The checkpoints of one folder. All processes call each method at the same step.

    Leaving the `with` ends the one that is being written, also where one process alone gives up.
    """

    def __init__(self, folder: Path, keep: int | None, processes: Processes) -> None:
        """keep: of the checkpoints, the newest; None = all."""
        self._folder, self._keep, self._processes = folder, keep, processes
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._aside: Path | None = None  # of the one that is being written
        self._written: Future[Digests] = Future()

    def begin(self, pictures: int, states: Mapping[str, State]) -> None:
        """Copy the states, as they are now, and have them written; first the one before is ended.

        Raises UserError where the disk is full, as the other methods do.
        """
        self.end()
        main, parts = self._processes.is_main, dict[str, State]()
        for name, state in states.items():
            parts |= checkpoint.own_part(name, state, main)
        aside = checkpoint.begin(self._folder, pictures) if main else None
        self._aside = self._processes.gathered(aside)[0]
        assert self._aside is not None
        self._written = self._thread.submit(checkpoint.write, self._aside, parts)

    def is_written(self) -> bool:
        """Whether every process has written its part of one: it is to be ended."""
        return bool(self._aside) and not self._processes.largest(not self._written.done())

    def end(self) -> None:
        """Wait until the checkpoint that is being written is one."""
        if not self._aside:
            return
        aside, self._aside = self._aside, None
        error = self._written.exception()
        parts = self._processes.gathered({} if error else self._written.result())
        failed = [str(one) for one in self._processes.gathered(error) if one]
        if self._processes.is_main and failed:
            checkpoint.abandon(aside)
        elif self._processes.is_main:
            digests = {file: digest for part in parts for file, digest in part.items()}
            checkpoint.finish(aside, digests, self._keep)
        if error:
            raise error
        if failed:
            raise UserError(failed[0])

    def __enter__(self) -> "Saving":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        alone = self._processes.world == 1 and kind is not None and issubclass(kind, UserError)
        if kind is None or alone:
            self.end()
