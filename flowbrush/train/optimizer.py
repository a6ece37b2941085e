"""AdamW, and its learning rate as a function of the pictures seen."""

import math

import torch
from torch import Tensor, nn

from flowbrush.experiment import TrainConfig


def build_optimizer(network: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """Fused AdamW, its moments there from the start. Weight decay falls on matrices only."""
    trained = [w for w in network.parameters() if w.requires_grad]
    groups = [
        {"params": [w for w in trained if w.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [w for w in trained if w.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True
    )
    for weight in trained:
        optimizer.state[weight] = {
            "step": torch.zeros((), device=weight.device),
            "exp_avg": torch.zeros_like(weight.detach()),
            "exp_avg_sq": torch.zeros_like(weight.detach()),
        }
    return optimizer


def moments(network: nn.Module, optimizer: torch.optim.AdamW) -> dict[str, Tensor]:
    """The optimizer's own tensors, such as `blocks.0.norm1.weight/exp_avg`: filled, it goes on."""
    return {
        f"{name}/{key}": moment
        for name, weight in network.named_parameters()
        for key, moment in optimizer.state.get(weight, {}).items()
    }


def learning_rate(config: TrainConfig, seen: int) -> float:
    """The learning rate of the step that brings the pictures seen to `seen`."""
    if seen < config.warmup:
        return config.lr * seen / config.warmup
    done = min(1.0, (seen - config.warmup) / max(1, config.pictures - config.warmup))
    if config.schedule == "linear":
        return config.lr * (1 - done)
    if config.schedule == "cosine":
        return config.lr * (1 + math.cos(math.pi * done)) / 2
    return config.lr
