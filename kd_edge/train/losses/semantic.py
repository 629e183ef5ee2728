"""Semantic preserving: a feature is pulled to the word vector of its class."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from kd_edge.errors import TrainingError
from kd_edge.train.losses.checks import check_batch, check_choice
from kd_edge.train.losses.precision import as_float, full_precision
from kd_edge.train.options import Reduction


def semantic_preserving(features: Tensor, targets: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Squared distance of features to class embeddings or to a teacher's features (Eq. 19 and 24 for one teacher).

    For a teacher, ``targets`` are the word vectors of the labels; for a student, the teacher's last feature before its
    class layer. The mean over m teachers is left to the caller.

    Args:
        features: (b, D). Segments are averaged before.
        targets: (b, D); no gradient flows into them.
        reduction: ``mean`` over b and D is the public code's (one of its scripts uses the absolute difference
            instead); ``sum`` over D, mean over b, is the paper's squared L2 norm, D times as large.

    Returns:
        Scalar >= 0.

    Raises:
        TrainingError: Shapes that do not fit, an unknown reduction.

    Source: Liu et al., "Semantics-aware Adaptive Knowledge Distillation for Sensor-to-Vision Action Recognition".
    """
    check_choice("reduction", reduction, Reduction)
    check_batch(features, targets)
    if features.ndim != 2 or features.shape != targets.shape:
        raise TrainingError(
            f"features {tuple(features.shape)} and targets {tuple(targets.shape)}",
            "(b, D) both, D the length of a class vector",
            "give the network's last feature the width of the class vectors, or project it to that width",
        )
    with full_precision(features):
        distance = F.mse_loss(as_float(features), as_float(targets.detach()))
        return distance * features.shape[1] if reduction == "sum" else distance
