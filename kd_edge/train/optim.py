"""Optimiser and learning rate of a stage."""

from __future__ import annotations

import math

import torch
from torch import nn

from kd_edge.models.layers import is_new
from kd_edge.train.recipe.stages import Training


def make_optimiser(module: nn.Module, stage: Training) -> torch.optim.Optimizer:
    """Make SGD with momentum, Adam or AdamW; weight decay applies to weights only.

    Biases, the classifier and new layers of a fine-tuned student have their own learning rates (TSN, TSM). Every group
    has a key ``rate``, its learning rate relative to the stage's.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            decay = stage.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((_rate(module, name, stage), decay), []).append(parameter)
    options = [
        {"params": group, "weight_decay": decay, "rate": rate, "lr": rate * stage.learning_rate}
        for (rate, decay), group in groups.items()
    ]
    if stage.optimiser == "sgd":
        return torch.optim.SGD(options, lr=stage.learning_rate, momentum=stage.momentum)
    kind = torch.optim.Adam if stage.optimiser == "adam" else torch.optim.AdamW
    return kind(options, lr=stage.learning_rate, betas=(stage.momentum, 0.999))


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group, scaled by its ``rate``."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["rate"]


def _rate(module: nn.Module, name: str, stage: Training) -> float:
    """Learning rate of a parameter relative to the stage's."""
    path, _, leaf = name.rpartition(".")
    owner = module.get_submodule(path)
    is_norm = isinstance(owner, nn.modules.batchnorm._BatchNorm)
    rate = stage.bias_rate if leaf == "bias" and not is_norm else 1.0
    return rate * (stage.head_rate if ".head.classifier" in f".{path}" or is_new(owner) else 1.0)


def learning_rate(stage: Training, step: int, steps: int) -> float:
    """Return the learning rate of step ``step`` (0-based) of ``steps``, which depends on progress alone.

    ``step``: multiplied by ``decay`` every ``decay_epochs``, or at 50 % and 75 % (TSN). ``one_cycle``: a cosine from
    1/25 up to the full rate over the first 30 %, then a cosine down to 1/10000 (Smith and Topin, "Super-Convergence",
    2018).
    """
    done = step / steps
    if stage.schedule == "step":
        halves = (done >= 0.5) + (done >= 0.75)
        decays = halves if stage.decay_epochs is None else step * stage.epochs // (steps * stage.decay_epochs)
        return float(stage.learning_rate * stage.decay**decays)
    rise = 0.3
    if done < rise:
        return _cosine(stage.learning_rate / 25, stage.learning_rate, done / rise)
    return _cosine(stage.learning_rate, stage.learning_rate / 1e4, (done - rise) / (1 - rise))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
