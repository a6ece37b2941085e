"""Free cores are counted where the system tells, and a user's own thread settings stay."""

import os
import subprocess
import sys

import pytest

from flowbrush import cpu


def ticks(*cores: tuple[int, int]) -> str:
    """/proc/stat of a machine whose cores were busy and idle for so many ticks."""
    total = "cpu  0 0 0 0 0 0 0 0 0 0\n"
    return total + "".join(f"cpu{i} {b} 0 0 {n} 0 0 0 0 0 0\n" for i, (b, n) in enumerate(cores))


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A function: the states of /proc/stat that the next looks at the cores meet."""
    stat = tmp_path / "stat"
    monkeypatch.setattr(cpu, "_STAT", stat)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    cpu.free_cores.cache_clear()

    monkeypatch.setattr(cpu, "LOOKS", 1)

    def states(*states: str) -> None:
        first, *others = states
        stat.write_text(first, "ascii")
        later = iter(others)
        monkeypatch.setattr(cpu.time, "sleep", lambda _: stat.write_text(next(later), "ascii"))

    yield states
    cpu.free_cores.cache_clear()


QUIET = ticks((5, 100), (5, 100), (5, 100), (5, 100))


@pytest.mark.parametrize(
    ("after", "free"),
    [
        (ticks((5, 120), (5, 120), (5, 120), (5, 120)), 4),
        (ticks((25, 100), (5, 120), (5, 120), (5, 120)), 3),
        (ticks((25, 100), (25, 100), (25, 100), (24, 101)), 1),
        (QUIET, 4),  # no tick passed
    ],
)
def test_free_cores_are_those_that_others_left_idle(machine, after, free):
    machine(QUIET, after)
    assert cpu.free_cores() == free


def test_a_short_burst_of_work_does_not_count(machine, monkeypatch):
    monkeypatch.setattr(cpu, "LOOKS", 2)
    busy = ticks((25, 100), (25, 100), (25, 100), (25, 100))
    machine(QUIET, busy, ticks((25, 120), (25, 120), (25, 120), (25, 120)))
    assert cpu.free_cores() == 4


def test_cores_that_this_process_may_not_use_do_not_count(machine):
    machine(QUIET + "cpu9 0 0 0 0 0 0 0 0\n", QUIET + "cpu9 500 0 0 0 0 0 0 0\n")
    assert cpu.free_cores() == 4


def test_where_the_system_does_not_tell_all_cores_are_free(machine, tmp_path, monkeypatch):
    monkeypatch.setattr(cpu, "_STAT", tmp_path / "nothing")
    monkeypatch.setattr(cpu.time, "sleep", lambda _: None)
    assert cpu.free_cores() == 4


def test_threads_sleep_on_a_busy_machine_and_spin_on_an_idle_one(machine):
    machine(QUIET, ticks((5, 120), (5, 120), (5, 120), (5, 120)))
    cpu.set_wait_policy()
    assert "OMP_WAIT_POLICY" not in os.environ
    cpu.free_cores.cache_clear()
    machine(QUIET, ticks((25, 100), (5, 120), (5, 120), (5, 120)))
    cpu.set_wait_policy()
    assert os.environ.pop("OMP_WAIT_POLICY") == "passive"


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS"])
def test_a_users_own_thread_settings_stay(machine, monkeypatch, name):
    machine(QUIET, ticks((25, 100), (25, 100), (25, 100), (25, 100)))
    monkeypatch.setenv(name, "1")
    before = dict(os.environ)
    cpu.set_wait_policy()
    assert dict(os.environ) == before


def test_the_command_line_is_loaded_without_torch():
    """OpenMP reads its environment when torch loads it: too late for a wait policy."""
    code = "import sys, flowbrush.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
