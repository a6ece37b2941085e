"""Tensors whose rows are shared out over processes, as FSDP2 does: each process holds its own."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor


class Rows(NamedTuple):
    """Which of a tensor's rows a process holds: from row `first` on, part `part` of `parts`."""

    first: int = 0
    part: int = 0
    parts: int = 1
    copy: int = 0  # number of the group of processes that hold all parts once (hybrid sharding)


@torch.no_grad()
def own(tensor: Tensor) -> Tensor:
    """The rows that this process holds, in the same memory; all of a tensor that is not shared."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def rows(tensor: Tensor) -> Rows:
    """Where `own` lies in the whole tensor; FSDP2 cuts as `torch.chunk` does."""
    if not isinstance(tensor, DTensor):
        return Rows()
    mesh, last = tensor.device_mesh, tensor.device_mesh.ndim - 1
    part, parts = mesh.get_local_rank(last), mesh.size(last)
    each = -(-len(tensor) // parts)
    return Rows(min(part * each, len(tensor)), part, parts, mesh.get_local_rank(0) if last else 0)
