"""Signals are heard between two steps, however often they come."""

import os
import signal

import pytest
import torch

from flowbrush.processes import Processes
from flowbrush.train.interruption import Interruption, leave_terminal

CPU = Processes(torch.device("cpu"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_heard_when_it_is_asked_for(number: int) -> None:
    with Interruption() as stop:
        assert not stop.asked(CPU)
        signal.raise_signal(number)
        assert stop.asked(CPU)
    assert stop.exit_status == 128 + number


def test_sigterm_may_come_from_a_launcher_and_again_from_its_parent() -> None:
    with Interruption() as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert stop.asked(CPU)


def test_what_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interruption() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop.asked(CPU)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_nothing_more_is_written_to_a_terminal_that_is_closed() -> None:
    ours, terminal = os.openpty()
    read, write = os.pipe()
    leave_terminal(terminal, write)
    os.close(ours)
    assert os.write(terminal, b"saved") == 5  # an error, were it the terminal still
    os.write(write, b"saved")
    assert os.read(read, 9) == b"saved"
    for end in (terminal, read, write):
        os.close(end)


def test_a_second_ctrl_c_ends_at_once() -> None:
    with Interruption():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
