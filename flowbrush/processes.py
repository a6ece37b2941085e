"""The processes that share a run, and the device and precision that this one computes with."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from flowbrush.errors import UserError

Precision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True)
class Processes:
    """This process among its peers."""

    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def mean(self, value: Tensor) -> Tensor:
        """The mean of `value` over all processes."""
        return value  # one process: its own mean

    def wait(self) -> None:
        """Until every process is here."""
        if self.world > 1:
            torch.distributed.barrier()


@contextlib.contextmanager
def joined_processes(device: str = "auto") -> Iterator[Processes]:
    """This process among those that torchrun started; alone without it.

    Raises UserError as `own_device` does.
    """
    own = own_device(device)
    rank, world = (int(os.environ.get(name, n)) for name, n in (("RANK", 0), ("WORLD_SIZE", 1)))
    if world == 1:
        yield Processes(own)
        return
    torch.distributed.init_process_group("gloo")
    try:
        yield Processes(own, rank, world)
    finally:
        torch.distributed.destroy_process_group()


def own_device(wanted: str = "auto") -> torch.device:
    """As `choose_device`; of torchrun's processes each has a GPU of its own."""
    device, place = choose_device(wanted), os.environ.get("LOCAL_RANK")
    own = device.type == "cuda" and device.index is None and place is not None
    return torch.device("cuda", int(place)) if own and place else device


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
    """The dtype of computing; `auto` = bf16 where it pays: CUDA, a CPU with AMX or AVX512-BF16."""
    if wanted == "fp32":
        return torch.float32
    if wanted == "bf16":
        return torch.bfloat16
    if device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.bfloat16
    if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported():  # so has every CPU with AMX
        return torch.bfloat16
    return torch.float32


def autocast(dtype: torch.dtype, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Autocast to `dtype`; nothing at all for fp32."""
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype)
