"""The files of launch/: several machines, as several agents of torchrun on this one."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).parents[1]
LAUNCH, TESTS = ROOT / "launch", ROOT / "tests"
RECIPE = f"{TESTS / 'tiny.py'}:tiny"
SMALL = ["--device", "cpu", "--watch.checkpoint", "400", "--watch.preview", "100000"]


@pytest.mark.parametrize("script", ["torchrun.sh", "slurm.sbatch"])
def test_a_script_is_well_formed(script: str) -> None:
    assert subprocess.run(["bash", "-n", LAUNCH / script]).returncode == 0
    assert os.access(LAUNCH / "torchrun.sh", os.X_OK)


def test_slurm_signals_the_script_alone_and_queues_again() -> None:
    lines = (LAUNCH / "slurm.sbatch").read_text().splitlines()
    asked = {line.split()[1] for line in lines if line.startswith("#SBATCH")}
    assert {"--requeue", "--signal=B:USR1@600", "--ntasks-per-node=1"} <= asked


def test_the_job_of_kubernetes_fits_together() -> None:
    service, job = documents("kubernetes.yaml")
    pod, name = job["spec"]["template"]["spec"], job["metadata"]["name"]
    container = pod["containers"][0]
    given = {one["name"]: one["value"] for one in container["env"]}
    assert (service["spec"]["clusterIP"], job["spec"]["completionMode"]) == ("None", "Indexed")
    assert service["spec"]["selector"] == {"job-name": name}
    assert pod["subdomain"] == service["metadata"]["name"]
    assert given["HEAD"] == f"{name}-0.{pod['subdomain']}"
    assert int(given["NODES"]) == job["spec"]["completions"] == job["spec"]["parallelism"]
    assert pod["terminationGracePeriodSeconds"] > int(given["GRACE"])
    mounted = {one["mountPath"]: one["name"] for one in container["volumeMounts"]}
    assert {"/shared", "/dev/shm"} == mounted.keys()
    assert set(mounted.values()) == {volume["name"] for volume in pod["volumes"]}
    assert (ROOT / container["command"][-1]).is_file()


def test_the_task_of_skypilot_names_what_is_there() -> None:
    (task,) = documents("skypilot.yaml")
    assert task["num_nodes"] == 2 and "accelerators" in task["resources"]
    assert "launch/torchrun.sh" in task["run"] and "SKYPILOT_NODE_IPS" in task["run"]
    assert task["envs"]["RECIPE"] == "coyo"


def documents(name: str) -> list[Any]:
    return list(pytest.importorskip("yaml").safe_load_all((LAUNCH / name).read_text()))


# -- runs


def environment(**more: str) -> dict[str, str]:
    given = {"PYTHON": sys.executable, "PROCESSES": "1", "OMP_NUM_THREADS": "1"}
    paths = {"PYTHONPATH": f"{TESTS}:{ROOT}"}
    return {**os.environ, **given, **paths, **more}


def free_port() -> str:
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return str(one.getsockname()[1])


@contextmanager
def started(command: list[str], log: Path, **more: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as file:
        child = subprocess.Popen(
            command, stdout=file, stderr=file, env=environment(**more), start_new_session=True
        )
    try:
        yield child
    finally:
        below = psutil.Process(child.pid).children(recursive=True) if child.poll() is None else []
        for one in (*below, child):
            one.kill()
        child.wait()


@contextmanager
def machines(folder: Path, *options: str, **more: str) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Two of them, one process each, which share the run."""
    command = ["bash", str(LAUNCH / "torchrun.sh"), *options, *SMALL]
    more = {"NODES": "2", "HEAD": "localhost", "PORT": free_port(), **more}
    with (
        started(command, folder / "first", **more) as first,
        started(command, folder / "second", **more) as second,
    ):
        yield [first, second]


def worker(agent: subprocess.Popen[bytes]) -> psutil.Process:
    """The process that an agent has started, once it is there."""
    while agent.poll() is None:
        for child in psutil.Process(agent.pid).children():
            if "flowbrush" in child.cmdline():
                return child
        time.sleep(0.05)
    raise AssertionError(f"the agent ended with {agent.returncode} before it had a process")


def wait_for(
    children: list[subprocess.Popen[bytes]], logs: Path, ready: Callable[[], bool]
) -> None:
    while not ready():
        ended = any(child.poll() is not None for child in children)
        assert not ended, "\n".join(log.read_text() for log in logs.iterdir() if log.is_file())
        time.sleep(0.05)


def done(run: Path) -> int:
    """Pictures of the newest finished checkpoint."""
    found = (run / "checkpoints").glob("[0-9]*")
    return max((int(path.name) for path in found), default=0)


def said(logs: Path) -> str:
    return "".join(log.read_text() for log in sorted(logs.iterdir()) if log.is_file())


def test_one_machine_trains_by_two_processes(tmp_path: Path) -> None:
    run, logs = tmp_path / "run", tmp_path / "logs"
    logs.mkdir()
    command = ["bash", str(LAUNCH / "torchrun.sh"), RECIPE, "--run", str(run), *SMALL]
    with started(command, logs / "one", PROCESSES="2") as child:
        assert child.wait() == 0, said(logs)
    assert done(run) == 160
    assert said(logs).count("trained on 160 pictures") == 1


def test_two_machines_make_up_for_a_lost_process_and_stop_at_a_signal_and_go_on(
    tmp_path: Path,
) -> None:
    run, logs = tmp_path / "run", tmp_path / "logs"
    logs.mkdir()
    long = [RECIPE, "--run", str(run), "--train.pictures", "1000000"]
    with machines(logs, *long, RESTARTS="1") as both:
        wait_for(both, logs, lambda: done(run) > 0)
        lost = worker(both[1])
        lost.kill()
        before = done(run)
        wait_for(both, logs, lambda: done(run) > before + 400)  # more than was being written
        assert worker(both[1]).pid != lost.pid
        worker(both[0]).send_signal(signal.SIGTERM)
        worker(both[0]).send_signal(signal.SIGTERM)  # as from a launcher, and from its parent
        wait_for([], logs, lambda: f"stopped after {done(run):,} pictures" in said(logs))
    before = done(run)
    with machines(logs, str(run), "--train.pictures", str(before + 400)) as both:
        assert [child.wait() for child in both] == [0, 0], said(logs)
    assert done(run) == before + 400
    assert said(logs).count("another process of the run has ended") == 1


# -- Slurm, as far as a script can tell

SRUN = """#!/usr/bin/env bash
# A task a node, here; as slurmstepd does, every process of the step can be signalled.
[[ $1 == --* ]] && shift
for ((i = 0; i < SLURM_JOB_NUM_NODES; i++)); do "$@" & echo $! >> "$STATE/tasks"; done
status=0
for task in $(jobs -p); do wait "$task" || status=$?; done
exit $status
"""
SCONTROL = """#!/usr/bin/env bash
[[ $1 == show ]] && printf '%s\\n' localhost localhost
[[ $1 == requeue ]] && echo "$2" >> "$STATE/requeued"
exit 0
"""
SCANCEL = """#!/usr/bin/env bash
below() { for one in $(pgrep -P "$1"); do echo "$one"; below "$one"; done; }
all=$(while read -r task; do echo "$task"; below "$task"; done < "$STATE/tasks")
kill -TERM $all
"""


def test_slurm_saves_ahead_of_the_limit_and_is_queued_again(tmp_path: Path) -> None:
    run, logs, state = (tmp_path / name for name in ("run", "logs", "state"))
    commands = tmp_path / "bin"
    for folder in (logs, state, commands):
        folder.mkdir()
    for name, text in {"srun": SRUN, "scontrol": SCONTROL, "scancel": SCANCEL}.items():
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    given = {"PATH": f"{commands}:{os.environ['PATH']}", "STATE": str(state)}
    job = str(int(free_port()) % 10_000)  # which the script makes a port of
    given |= {"SLURM_JOB_ID": job, "SLURM_JOB_NODELIST": "n[0-1]", "SLURM_JOB_NUM_NODES": "2"}
    script = ["bash", str(LAUNCH / "slurm.sbatch")]
    given["LAUNCH"] = str(LAUNCH)
    long = [RECIPE, "--run", str(run), "--train.pictures", "1000000", *SMALL]
    with started([*script, *long], logs / "job", **given) as batch:
        wait_for([batch], logs, lambda: done(run) > 0)
        batch.send_signal(signal.SIGUSR1)
        assert batch.wait() != 0
    assert f"stopped after {done(run):,} pictures" in said(logs)
    assert (state / "requeued").read_text().split() == [job]
    (state / "tasks").unlink()
    more = [str(run), "--train.pictures", str(done(run) + 400), *SMALL]
    with started([*script, *more], logs / "job", **given) as batch:
        assert batch.wait() == 0, said(logs)
    assert (state / "requeued").read_text().split() == [job]
