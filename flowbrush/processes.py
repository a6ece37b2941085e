"""The processes that share a run, and the device and precision that this one computes with."""

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, NoReturn, TypeVar, cast
from uuid import uuid4

import torch
from torch import Tensor, distributed

from flowbrush.errors import FirstError, LostProcess, UserError

Precision = Literal["auto", "fp32", "bf16"]
Thing = TypeVar("Thing")
# For one another, where no other is given. One that has ended is noticed at once: its connections
# are closed.
PATIENCE = timedelta(days=1)


@dataclass(frozen=True)
class Processes:
    """This process among its peers.

    What it does with them raises LostProcess once one of them has ended.
    """

    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def mean(self, value: Tensor) -> Tensor:
        """The mean of `value` over all processes."""
        if self.world == 1:
            return value
        total = value / self.world
        with together():
            distributed.all_reduce(total)
        return total

    def largest(self, number: int) -> int:
        """The largest `number` of all processes."""
        if self.world == 1:
            return number
        numbers = torch.tensor(number)
        with together():
            distributed.all_reduce(numbers, distributed.ReduceOp.MAX)
        return int(numbers)

    def gathered(self, thing: Thing) -> list[Thing]:
        """What each process gives, a small thing that can be pickled, by rank."""
        if self.world == 1:
            return [thing]
        things: list[Thing | None] = [None] * self.world
        with together():
            distributed.all_gather_object(things, thing)
        return cast(list[Thing], things)

    def wait(self) -> None:
        """Until every process is here."""
        self.largest(0)

    def say(self, line: str) -> None:
        """Print it once, not once a process."""
        if self.is_main:
            print(line)


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Around what several processes do at once. Raises LostProcess where one of them has ended."""
    try:
        yield
    except RuntimeError as error:
        place, _, reason = str(error).splitlines()[0].rpartition(".cc:")  # of gloo's line
        if not place and not isinstance(error, distributed.DistError):
            raise  # an error of what is computed in between
        said = reason.partition("] ")[2].partition(". ")[0] if place else reason
        raise LostProcess(
            f"another process of the run has ended ({said}); start it again, and it goes on from "
            "what was saved"
        ) from error


@contextlib.contextmanager
def joined_processes(device: str = "auto", patience: timedelta = PATIENCE) -> Iterator[Processes]:
    """This process among those that torchrun started; alone without it.

    patience: how long they wait for one that lives and does not answer; then that is an error.
    An error ends all of them. The process that met it first raises it, a UserError as FirstError;
    the others exit without a word. Raises UserError as `own_device` does.
    """
    rank, world = rank_and_world()
    if world == 1:
        yield Processes(own_device(device))
        return
    store, _, _ = next(distributed.rendezvous("env://", timeout=PATIENCE))
    with together():
        store = _of_this_start(store, rank, world)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        with together():
            distributed.init_process_group(
                backend, store=store, rank=rank, world_size=world, timeout=patience
            )
        own = own_device(device)
        if own.type == "cuda":
            torch.cuda.set_device(own)
        yield Processes(own, rank, world)
    except Exception as error:
        # torchrun ends all when one has ended: first what there is to say is said.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if lost := isinstance(error, LostProcess):
            with contextlib.suppress(RuntimeError):  # the store has ended as well
                store.set(f"{rank} waited", "")
        if not _is_first_error(store):
            raise SystemExit(2) from None
        if lost and "imed out" in str(error):
            raise FirstError(_who_hangs(store, rank, world, patience)) from error
        if isinstance(error, UserError):
            raise FirstError(str(error)) from error
        raise
    finally:  # after the claim to be first: the others notice it, and raise
        if distributed.is_initialized():
            distributed.destroy_process_group()


def _who_hangs(store: distributed.Store, rank: int, world: int, patience: timedelta) -> str:
    """A line that names the processes for which all others have waited in vain."""
    time.sleep(2)  # until the others have said that they waited as well
    others = [one for one in range(world) if one != rank]
    silent = list[int]()
    with contextlib.suppress(RuntimeError):
        silent = [one for one in others if not store.check([f"{one} waited"])]
    names = ", ".join(map(str, silent)) or "unknown"
    return (
        f"process of rank {names}: no answer for {patience.total_seconds() / 60:g} minutes; where "
        "it does not hang but measures for longer, raise --peer-timeout. Start again, and the run "
        "goes on from what was saved"
    )


def leave(status: int) -> NoReturn:
    """End this process with that exit status, at once where it had peers.

    Python's own way would end the threads of gloo first, for which a group that something still
    holds now and then aborts it.
    """
    if rank_and_world()[1] == 1:
        sys.exit(status)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def end_with_parent() -> None:
    """In a child of multiprocessing: end when its parent has, however that ended.

    Signals are the parent's to act on: a terminal and some launchers send them to its children too.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def rank_and_world() -> tuple[int, int]:
    """Which of how many processes torchrun says that this is; 0 of 1 without it."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def _of_this_start(store: distributed.Store, rank: int, world: int) -> distributed.Store:
    """The part of torchrun's store that is of these processes alone.

    torchrun hands the store of lost processes to those it starts instead, which would look for each
    other at the old addresses; and its machines do not agree on how often that was. So the main
    process makes up a name, and tells it whoever asks by a word of its own, until all have heard.
    """
    name = uuid4().hex
    if rank:
        store.set(f"asked by {rank}", name)
        name = store.get(f"answer to {name}").decode()
        store.set(f"{name} heard by {rank}", "")
    waiting = set() if rank else set(range(1, world))
    while waiting:
        for other in tuple(waiting):
            if store.check([f"{name} heard by {other}"]):
                waiting.remove(other)
            elif store.check([f"asked by {other}"]):  # now, or before it was lost
                store.set(f"answer to {store.get(f'asked by {other}').decode()}", name)
        time.sleep(0.02)
    return distributed.PrefixStore(name, store)


def _is_first_error(store: distributed.Store) -> bool:
    try:
        return store.add("errors", 1) == 1
    except RuntimeError:  # the store has ended as well
        return True


def own_device(wanted: str = "auto") -> torch.device:
    """As `choose_device`; of torchrun's processes each has a GPU of its own.

    Raises UserError where there are fewer GPUs than processes, too.
    """
    device, place = choose_device(wanted), int(os.environ.get("LOCAL_RANK", -1))
    if device.type != "cuda" or device.index is not None or place < 0:
        return device
    if place >= torch.cuda.device_count():
        raise UserError(
            f"--device {wanted}: more processes than the {torch.cuda.device_count()} GPUs here; "
            "start fewer, or give --device cpu"
        )
    return torch.device("cuda", place)


def choose_device(wanted: str = "auto") -> torch.device:
    """The device of that name; `auto` takes CUDA, else MPS, else the CPU.

    Raises UserError where the name is unknown or the device is not there.
    """
    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"--device {wanted}: not usable here ({reason}); use cpu, or leave it out"
        ) from None
    return device


def choose_dtype(wanted: Precision, device: torch.device) -> torch.dtype:
    """The dtype of computing; `auto` = bf16 where the device has instructions for it.

    CUDA from compute capability 8.0 on, a CPU with AMX or AVX512-BF16.
    """
    if wanted == "fp32":
        return torch.float32
    if wanted == "bf16":
        return torch.bfloat16
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported():  # so has every CPU with AMX
        return torch.bfloat16
    return torch.float32


def use_deterministic_algorithms() -> None:
    """From now on this process computes the same bits from the same numbers, also on a GPU.

    Before it has multiplied anything there: cuBLAS reads its setting once.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # Nothing here reads memory before it is written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False


@contextlib.contextmanager
def deterministic_errors() -> Iterator[None]:
    """Raises UserError for what has no deterministic algorithm, and is not to do without one."""
    try:
        yield
    except RuntimeError as error:
        what, _, rest = str(error).partition(" does not have a deterministic implementation")
        if not rest:
            raise
        raise UserError(
            f"train.deterministic: {what} has no deterministic algorithm on this device; leave "
            "the option out, or train on the CPU"
        ) from error


def synchronize(device: torch.device) -> None:
    """Wait until the device has computed what it was given, to look at the clock."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def autocast(dtype: torch.dtype, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Autocast to `dtype`; nothing at all for fp32."""
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype)
