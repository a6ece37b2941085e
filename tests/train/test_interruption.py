"""Signals are heard between two steps, however often they come."""

import signal

import pytest
import torch

from flowbrush.processes import Processes
from flowbrush.train.interruption import Interruption

CPU = Processes(torch.device("cpu"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
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


def test_a_second_ctrl_c_ends_at_once() -> None:
    with Interruption():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
