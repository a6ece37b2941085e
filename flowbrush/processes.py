"""The processes that share a run, and the device and precision that this one computes with."""

import contextlib
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
