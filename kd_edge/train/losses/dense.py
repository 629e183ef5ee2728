"""Regression of what another modality says of the very moment: a target for every frame instead of one a clip."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kd_edge.errors import TrainingError
from kd_edge.train.losses.precision import as_float, full_precision


def dense_regression(prediction: Tensor, target: Tensor, *, weights: Tensor | None = None) -> Tensor:
    """Smooth L1 with its corner at 1, mean over the numbers that are there.

    Targets are meant to have a spread of about 1: small errors count as squares, large ones, a joint that was lost for
    a moment, by their size. What a clip lacks is NaN in the target and counts for nothing.

    Args:
        prediction: (..., M).
        target: (..., M); NaN where there is none.
        weights: (M,) >= 0 of the numbers; None takes 1.

    Returns:
        Scalar: sum of weight times smooth L1 over the numbers that are there, by how many they are; 0 if none is.

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
        there = ~wanted.isnan()
        each = F.smooth_l1_loss(found, torch.where(there, wanted, 0.0), reduction="none") * there
        if weights is not None:
            each = each * as_float(weights)
        return each.sum() / there.sum().clamp(min=1)
