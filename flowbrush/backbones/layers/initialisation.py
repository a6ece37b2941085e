"""How linear layers start."""

import math
from collections.abc import Iterable

import torch
from torch import nn


def xavier_linears(network: nn.Module) -> None:
    """Xavier-uniform weights, zero biases in all linear layers; call it before the exceptions."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


@torch.no_grad()
def xavier_in_flax(patches: nn.Linear, patch: int, joined: Iterable[nn.Linear]) -> None:
    """Xavier-uniform weights as Flax draws them where a network has other layers than here.

    patches: a convolution there, whose positions count in its fan-out. joined: queries, keys and
    values in one layer, which are three there.
    """
    outputs, inputs = patches.weight.shape
    limit = math.sqrt(6 / (inputs + outputs * patch**2))
    nn.init.uniform_(patches.weight, -limit, limit)
    for layer in joined:
        for part in layer.weight.chunk(3):
            nn.init.xavier_uniform_(part)


def zero(*layers: nn.Linear | nn.Conv2d) -> None:
    """Zero weights and biases: a network whose last layer this is starts by saying nothing."""
    for layer in layers:
        for weight in layer.parameters():
            nn.init.zeros_(weight)
