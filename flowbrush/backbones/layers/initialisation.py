"""How linear layers start."""

from torch import nn


def xavier_linears(network: nn.Module) -> None:
    """Xavier-uniform weights, zero biases in all linear layers; call it before the exceptions."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def zero(*layers: nn.Linear | nn.Conv2d) -> None:
    """Zero weights and biases: a network whose last layer this is starts by saying nothing."""
    for layer in layers:
        for weight in layer.parameters():
            nn.init.zeros_(weight)
