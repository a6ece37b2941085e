"""AdamW, and its learning rate as a function of the pictures seen."""

import math

import torch
from torch import nn

from flowbrush.experiment import TrainConfig


def build_optimizer(network: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """Fused AdamW. Weight decay falls on matrices only."""
    trained = [w for w in network.parameters() if w.requires_grad]
    groups = [
        {"params": [w for w in trained if w.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [w for w in trained if w.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True)


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
