"""Cross-entropy on the labels, with class weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from kd_edge.errors import TrainingError


def cross_entropy(
    logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0, class_weights: Tensor | None = None
) -> Tensor:
    """Cross-entropy, weighted by class; the mean is over samples.

    The sum is divided by the number of samples, not by the sum of their weights, so that the loss does not depend on
    how clips are distributed over batches and devices. The weight of a sample's class applies to its whole value,
    including the part that label smoothing spreads over other classes.

    Args:
        logits: (N, C); computed in float32.
        labels: (N,) int64.
        label_smoothing: Fraction of a label that is spread over all classes.
        class_weights: (C,) > 0; None means 1.

    Returns:
        Scalar >= 0.

    Raises:
        TrainingError: The number of weights is not the number of classes.
    """
    if class_weights is None:
        return F.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)
    if class_weights.shape != logits.shape[1:]:
        raise TrainingError(
            f"{tuple(class_weights.shape)} class weights for logits {tuple(logits.shape)}",
            "one weight per class",
            "correct class_weights",
        )
    each = F.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing, reduction="none")
    return (class_weights[labels] * each).mean()


def class_weights(counts: Sequence[float], factors: Mapping[int, float] | None = None) -> Tensor:
    """Compute class weights for ``cross_entropy``; their mean over the samples is 1.

    Args:
        counts: Number of training samples n_k of each class.
        factors: Relative weight by class; classes that are not named have 1. None balances the classes with
            n / (K n_k), so that each contributes equally to the loss.

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
