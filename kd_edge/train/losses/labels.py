"""Cross-entropy on the labels, with classes that count for more or less."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from kd_edge.errors import TrainingError


def cross_entropy(
    logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0, class_weights: Tensor | None = None
) -> Tensor:
    """Cross-entropy, mean over the batch of each sample's value times the weight of its class.

    The mean is over the samples, not over their weights: a batch of rare classes counts for more than one of frequent
    classes, however the clips were dealt out to batches and devices. A sample's weight is that of its own class for all
    of its value, the part that label smoothing spreads over the other classes included.

    Args:
        logits: (N, C); computed in float32.
        labels: (N,) int64.
        label_smoothing: Share of a label that is spread over all classes.
        class_weights: (C,) > 0; None takes 1.

    Returns:
        Scalar >= 0.

    Raises:
        TrainingError: Weights of another number of classes.
    """
    if class_weights is None:
        return F.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)
    if class_weights.shape != logits.shape[1:]:
        raise TrainingError(
            f"{tuple(class_weights.shape)} class weights for logits {tuple(logits.shape)}",
            "one weight a class",
            "correct class_weights",
        )
    each = F.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing, reduction="none")
    return (class_weights[labels] * each).mean()


def class_weights(counts: Sequence[float], factors: Mapping[int, float] | None = None) -> Tensor:
    """Weights of the classes for ``cross_entropy``, whose mean over the samples is 1.

    Args:
        counts: Number of samples n_k of each class that training draws.
        factors: Class -> how much more than the others it counts for; a class that is not named has 1. None balances:
            n / (K n_k), with which every class adds as much to the loss.

    Returns:
        (C,) float32; 1 for a class without a sample.
    """
    drawn = torch.tensor(list(counts), dtype=torch.float64)
    total, present = drawn.sum(), drawn > 0
    if factors is None:
        weights = torch.where(present, total / (present.sum() * drawn.clamp(min=1e-9)), 1.0)
    else:
        raw = torch.tensor([factors.get(label, 1.0) for label in range(len(drawn))], dtype=torch.float64)
        weights = torch.where(present, raw * total / (raw * drawn).sum(), 1.0)
    return weights.float()
