"""How weights are moved."""

import torch
from torch import nn

from glintru_model.config import TrainingConfig


def build_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """Build AdamW that decays matrices, item embeddings among them, but no bias, norm or single scalar."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Return the rate of a step (from 1): a linear rise over `warmup_steps`, then constant."""
    return config.learning_rate * min(1.0, step / max(1, config.warmup_steps))


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group of weights one rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate
