"""What is done to a network from outside, to the elements of its module lists."""

import torch
from torch import nn

from flowbrush.errors import UserError


def compile_blocks(network: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
    """`torch.compile` each block.

    Raises UserError for bf16 on a CPU: torch 2.13 silently computes gradients that are not finite.
    """
    if device.type == "cpu" and dtype == torch.bfloat16:
        raise UserError(
            "train.compile: with bf16 on a CPU the gradients come out as NaN; add "
            "--train.precision fp32"
        )
    for module in network.modules():
        if isinstance(module, nn.ModuleList):
            for block in module:
                block.compile()
