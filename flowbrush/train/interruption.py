"""Ctrl-C, SIGTERM and SIGHUP, received between two steps."""

import os
import signal
from types import FrameType

from flowbrush.processes import Processes


class Interruption:
    """After one signal `asked` is true. A second Ctrl-C ends the process at once, as without this.

    A second SIGTERM does not: launchers send it to all processes, and each parent hands it on.
    SIGHUP, of a terminal that is closed, is as SIGTERM, unless nohup has it ignored.
    """

    def __init__(self) -> None:
        self.signal = 0
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        self._before = {s: signal.signal(s, self._hear) for s in numbers}

    def asked(self, processes: Processes) -> bool:
        """Whether any process has heard a signal: all of them stop after the same step."""
        heard = processes.largest(self.signal)
        if heard:  # otherwise left alone: one may be heard at this moment
            self.signal = heard
        return bool(heard)

    @property
    def exit_status(self) -> int:
        """The shell's convention: 128 and the number of the signal."""
        return 128 + self.signal

    def __enter__(self) -> "Interruption":
        return self

    def __exit__(self, *error: object) -> None:
        self._give_back()

    def _give_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        if number == signal.SIGHUP:
            leave_terminal(1, 2)
        if number == signal.SIGINT:
            self._give_back()


def leave_terminal(*streams: int) -> None:
    """Write no more to one that goes away: the error would end what is to be saved."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in filter(os.isatty, streams):
        os.dup2(nowhere, stream)
    os.close(nowhere)
