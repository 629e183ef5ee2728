"""Optimiser and learning rate of a stage."""

from __future__ import annotations

import math

import torch
from torch import nn

from kd_edge.train.recipe import StageConfig


def make_optimiser(module: nn.Module, stage: StageConfig) -> torch.optim.Optimizer:
    """SGD with momentum or AdamW; weight decay on weights only, as in TSN."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": stage.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if stage.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=stage.learning_rate, momentum=stage.momentum)
    return torch.optim.AdamW(groups, lr=stage.learning_rate, betas=(stage.momentum, 0.999))


def learning_rate(stage: StageConfig, step: int, steps: int) -> float:
    """Learning rate of a step, 0-based, of ``steps``: a function of progress alone, so resuming needs no state.

    ``step``: divided by 10 at 50 % and again at 75 % (TSN). ``one_cycle``: a cosine from 1/25 up to the full rate over
    the first 30 %, then a cosine down to 1/10000 (Smith and Topin, "Super-Convergence", 2018).
    """
    done = step / steps
    if stage.schedule == "step":
        return stage.learning_rate * 0.1 ** ((done >= 0.5) + (done >= 0.75))
    rise = 0.3
    if done < rise:
        return _cosine(stage.learning_rate / 25, stage.learning_rate, done / rise)
    return _cosine(stage.learning_rate, stage.learning_rate / 1e4, (done - rise) / (1 - rise))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
