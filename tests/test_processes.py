"""The device and the precision that a process computes with."""

import multiprocessing
import os
import select
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import torch
from torch import distributed

from flowbrush.errors import FirstError, UserError
from flowbrush.processes import (
    Processes,
    _of_this_start,
    autocast,
    choose_device,
    choose_dtype,
    end_with_parent,
    joined_processes,
    own_device,
)

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_the_first_process_is_the_main_one():
    assert [Processes(CPU, rank, world=2).is_main for rank in range(2)] == [True, False]


def test_the_mean_over_one_process_is_its_own_value():
    assert Processes(CPU).mean(torch.tensor(3.5)) == 3.5


@pytest.mark.parametrize(
    ("cuda", "mps", "device"),
    [(True, False, "cuda"), (True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto_takes_cuda_else_mps_else_the_cpu(monkeypatch, cuda, mps, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert choose_device("auto") == torch.device(device)


def test_a_device_can_be_chosen_by_name():
    assert choose_device("cpu") == CPU


def test_each_of_torchruns_processes_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert own_device() == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UserError, match="more processes than the 2 GPUs here"):
        own_device()


@pytest.mark.parametrize("name", ["cuda:99", "banana", ""])
def test_a_device_that_is_not_there_is_refused_in_one_line(name):
    with pytest.raises(UserError, match=f"--device {name}: not usable here") as refusal:
        choose_device(name)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("able", [True, False])
@pytest.mark.parametrize(("wanted", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_a_precision_can_be_chosen_by_name_on_any_cpu(monkeypatch, wanted, dtype, able):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: able)
    assert choose_dtype(wanted, CPU) == dtype


@pytest.mark.parametrize(("able", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_takes_bf16_on_a_cpu_that_computes_with_it(monkeypatch, able, dtype):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: able)
    assert choose_dtype("auto", CPU) == dtype


@pytest.mark.parametrize(("able", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_takes_bf16_on_a_gpu_that_computes_with_it(monkeypatch, able, dtype):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: able)
    assert choose_dtype("auto", CUDA) == dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_computes_products_in_the_chosen_dtype(dtype):
    with autocast(dtype, CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


@pytest.mark.parametrize(("world", "late"), [("1", True), ("2", False)])
def test_a_process_with_peers_leaves_at_once_and_has_said_all(world: str, late: bool) -> None:
    code = (
        "import atexit; from flowbrush.processes import leave\n"
        "atexit.register(print, 'late'); print('all'); leave(7)"
    )
    env = {**os.environ, "WORLD_SIZE": world}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.returncode == 7
    assert done.stdout.split() == ["all", *(["late"] if late else [])]


def test_those_that_are_started_instead_do_not_meet_in_the_store_of_the_lost() -> None:
    """The store stays; some of the first start were lost before they had asked, some after."""
    store = distributed.HashStore()

    def start(ranks: range, world: int) -> list[Any]:
        with ThreadPoolExecutor(world) as pool:
            return list(pool.map(lambda rank: _of_this_start(store, rank, world), ranks))

    store.set("asked by 1", "one that was lost")
    store.set("asked by 2", "another")
    for _ in range(2):
        parts = start(range(3), 3)
        assert parts[0].add("errors", 1) == 1
        assert {int(part.add("errors", 0)) for part in parts} == {1}


def test_a_child_ends_with_its_parent_however_that_ends() -> None:
    fork = multiprocessing.get_context("fork")
    read, write = os.pipe()  # at its end when nobody is left to write

    def child() -> None:
        end_with_parent()
        os.kill(os.getpid(), signal.SIGHUP)  # as a closed terminal sends it to all
        os.write(write, b"here")
        time.sleep(600)

    def parent() -> None:
        below = fork.Process(target=child)
        below.start()
        below.join()

    above = fork.Process(target=parent)
    above.start()
    os.close(write)
    assert os.read(read, 4) == b"here"
    above.kill()
    assert select.select([read], [], [], 30)[0], "the child lives"
    assert os.read(read, 4) == b""
    os.close(read)


def test_a_process_that_hangs_is_named_by_those_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    fork = multiprocessing.get_context("fork")
    told = fork.SimpleQueue()

    def start(rank: int) -> None:
        os.environ["RANK"] = str(rank)
        try:
            with joined_processes("cpu", timedelta(seconds=2)) as processes:
                if rank == 1:
                    time.sleep(600)
                processes.wait()
        except FirstError as error:
            told.put(str(error))
            os._exit(2)

    started = [fork.Process(target=start, args=(rank,)) for rank in range(2)]
    for process in started:
        process.start()
    started[0].join(60)
    started[1].kill()
    assert started[0].exitcode == 2
    assert told.get().startswith("process of rank 1: no answer for 0.0333333 minutes")
