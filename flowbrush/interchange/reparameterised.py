"""A DiT of labels becomes the start of a PixArt of text, as PixArt-alpha and JaxFM start theirs.

The label that stands for none is kept, in the bias of the time. What each block's own modulation
says at the middle of the time goes into its table; the shared one is the mean of them. So the
PixArt, whose texts have no say yet, says at t = 1/2 what the DiT says without a label.
"""

from typing import Any

import torch
from torch import Tensor

from flowbrush.backbones.dit import DiT
from flowbrush.backbones.pixart import PixArt
from flowbrush.errors import UserError

MIDDLE = 0.5


@torch.no_grad()
def start_pixart(pixart: PixArt, dit: DiT) -> None:
    """Write the DiT's weights into `pixart`, in place; the text's layers stay as they are.

    Raises UserError where the sizes differ.
    """
    if dit.label is None:
        raise UserError("start: that DiT has no labels, so none that stands for none")
    found, wanted = dit.state_dict(), pixart.state_dict()
    shared = {name: w for name, w in found.items() if name in wanted and "modulation" not in name}
    for name, weight in shared.items():
        if wanted[name].shape != weight.shape:
            raise UserError(
                f"start: {name} is {tuple(weight.shape)} there and {tuple(wanted[name].shape)} here"
            )
    if len(dit.blocks) != len(pixart.blocks) or dit.time.scale != pixart.time.scale:
        raise UserError("start: depth or time_scale are others there")
    pixart.load_state_dict(shared, strict=False)
    none = dit.label.weight[-1]
    theirs: list[Any] = list(dit.blocks)  # torch's stubs know no attributes of blocks
    ours: list[Any] = list(pixart.blocks)
    second: Any = pixart.time.mlp[2]
    second.bias.add_(none)

    c = pixart.time(torch.tensor([MIDDLE], device=none.device))[0]  # as the DiT's, without a label
    excited = torch.nn.functional.silu(c)
    weights = torch.stack([block.modulation.linear.weight for block in theirs])
    biases = torch.stack([block.modulation.linear.bias for block in theirs])
    pixart.modulation.linear.weight.copy_(weights.mean(dim=0))
    pixart.modulation.linear.bias.copy_(biases.mean(dim=0))
    own = weights @ excited + biases  # (blocks, 6 d)
    for block, said in zip(ours, own - own.mean(dim=0), strict=True):
        block.table.copy_(said.view_as(block.table))
    final: Tensor = dit.modulation.linear(excited)
    pixart.table.copy_(final.view_as(pixart.table) - c)
