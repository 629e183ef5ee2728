"""Dense regression: a target from another modality for every frame instead of one per clip."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kd_edge.errors import TrainingError
from kd_edge.train.losses.precision import as_float, full_precision


def dense_regression(prediction: Tensor, target: Tensor, *, weights: Tensor | None = None) -> Tensor:
    """Smooth L1 (quadratic below an error of 1, linear above), mean over the targets that are present.

    Targets should have a standard deviation of about 1; large errors, such as a joint lost for a moment, then count
    linearly. Missing targets are NaN and are ignored.

    Args:
        prediction: (..., M).
        target: (..., M); NaN where missing.
        weights: (M,) >= 0, weight of each target; None means 1.

    Returns:
        Scalar: the weighted sum of smooth L1 over the targets that are present, divided by their number; 0 if there are
        none.

    Raises:
        TrainingError: Shapes that differ.
    """
    if prediction.shape != target.shape or (weights is not None and weights.shape != target.shape[-1:]):
        raise TrainingError(
            f"a prediction {tuple(prediction.shape)} and a target {tuple(target.shape)}",
            "the same shape, and a weight for each of its last axis",
            "regress as many numbers as the target has",
        )
    with full_precision(prediction):
        found, wanted = as_float(prediction), as_float(target.detach())
        present = ~wanted.isnan()
        each = F.smooth_l1_loss(found, torch.where(present, wanted, 0.0), reduction="none") * present
        if weights is not None:
            each = each * as_float(weights)
        return each.sum() / present.sum().clamp(min=1)
