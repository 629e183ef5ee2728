"""Losses on the relations among the samples of a batch: SP, CC and RKD.

Student and teacher features may differ in size, since only b x b (or b x b x b) relations are compared. With a batch of
1 there are no relations, and every function here is 0 with gradient 0, so that a last batch of one clip does not end a
run. A run with batches of one clip learns nothing from these losses.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from kd_edge.errors import TrainingError
from kd_edge.train.losses.checks import check_batch, check_choice
from kd_edge.train.losses.geometry import unit
from kd_edge.train.losses.precision import as_float, full_precision
from kd_edge.train.options import CorrelationVariant

_NEAREST = 1e-6
"""Smallest distance between samples; below it the gradient is 0."""


def similarity_preserving(student_feature: Tensor, teacher_feature: Tensor) -> Tensor:
    """Similarity preserving: ``||G_T - G_S||_F^2 / b^2``, G the rows of ``F F^T`` at length 1.

    The usual weight is 3000.

    Args:
        student_feature: (b, ...) of the last stage. Segments are averaged before.
        teacher_feature: (b, ...), any other size; no gradient flows into it.

    Returns:
        Scalar >= 0; 0 for a batch of 1. The row of a sample whose feature is 0 is 0.

    Raises:
        TrainingError: Unequal batches.

    Source: Tung and Mori, "Similarity-Preserving Knowledge Distillation", ICCV 2019, Eq. 2-4.
    """
    student, teacher = _vectors(student_feature, teacher_feature)
    if len(student) == 1:
        return _nothing(student)
    with full_precision(student):
        return (unit(student @ student.T) - unit(teacher @ teacher.T)).square().mean()


def correlation_congruence(
    student: Tensor,
    teacher: Tensor,
    *,
    variant: CorrelationVariant = "rbf",
    gamma: float = 0.4,
    order: int = 2,
    embedding: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
) -> Tensor:
    """Correlation congruence. Three incompatible forms are in use; two are implemented.

    * ``rbf``: mean over b^2 of ``(K_S - K_T)^2``, K the Gaussian kernel of features at length 1 by its Taylor series,
      ``K = exp(-2 gamma) * sum over p = 0..order of (2 gamma)^p / p! * (f f^T)^p``: the paper's kernel, SAKDN's code
      and the one it comes from (AberHu's Knowledge-Distillation-Zoo), usual weight 100.
    * ``delta``: ``mean over n of sum over d of |D[n, d]| * |D[n + 1, d]|`` with D the difference of the embeddings:
      RepDistiller's code, usual weight 0.02. It depends on the order of the samples, and both embeddings can lower it
      by shrinking. ``gamma`` and ``order`` have no meaning there.

    The third (torchdistill: the same kernel without the scaling, its norm over b^2) is not offered.

    Args:
        student: (b, ...).
        teacher: (b, ...); no gradient flows into it.
        variant: One of the two forms.
        gamma: Width of the kernel, > 0.
        order: Last power of the series, >= 1.
        embedding: Applied to (student, teacher) before the comparison, see ``CorrelationEmbedding``. Its parameters
            are trained on both sides, the teacher is not. Features embedded before the call would not train the
            teacher's embedding.

    Returns:
        Scalar >= 0; 0 for a batch of 1.

    Raises:
        TrainingError: Unequal batches; ``delta`` on features of different sizes; options out of range.

    Source: Peng et al., "Correlation Congruence for Knowledge Distillation", ICCV 2019.
    """
    check_choice("variant", variant, CorrelationVariant)
    if not gamma > 0 or order < 1:
        raise TrainingError(f"gamma {gamma}, order {order}", "gamma > 0 and order >= 1", "change them")
    student, teacher = _vectors(student, teacher)
    if len(student) == 1:
        return _nothing(student)
    with full_precision(student):
        if embedding is not None:
            student, teacher = embedding(student, teacher)
        if variant == "rbf":
            return (_kernel(student, gamma, order) - _kernel(teacher, gamma, order)).square().mean()
        if student.shape != teacher.shape:
            raise TrainingError(
                f"variant='delta' on {student.shape[1]} student and {teacher.shape[1]} teacher elements",
                "embeddings of equal size",
                "pass embedding=CorrelationEmbedding(student_size, teacher_size), or use variant='rbf'",
            )
        delta = (student - teacher).abs()
        return (delta[:-1] * delta[1:]).sum(dim=1).mean()


class CorrelationEmbedding(nn.Module):
    """Linear maps of both features to a common size, trained with the student and dropped at export.

    Args:
        student_size: Elements of the student's feature, c * h * w for a map.
        teacher_size: Elements of the teacher's feature.
        size: Elements of the embeddings.
    """

    def __init__(self, student_size: int, teacher_size: int, size: int = 128) -> None:
        super().__init__()
        self.student = nn.Linear(student_size, size)
        self.teacher = nn.Linear(teacher_size, size)

    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Embed both features as (b, size); no gradient flows into the teacher's."""
        student, teacher = _vectors(student, teacher)
        for name, features, layer in (("student", student, self.student), ("teacher", teacher, self.teacher)):
            if features.shape[1:] != (layer.in_features,):
                raise TrainingError(
                    f"{name} features {tuple(features.shape)}",
                    f"(b, {layer.in_features}), for which this embedding was made",
                    "flatten them, and give CorrelationEmbedding their size",
                )
        return self.student(student), self.teacher(teacher)


def rkd_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Relational distances: smooth L1 between pairwise distances, each relative to its network's mean distance.

    ``d[m, n] = max(||x_m - x_n||, 1e-6)``, 0 for m = n, over the mean of the b (b - 1) others; mean over b^2 entries.
    The usual weight is 25 (mdistiller, RepDistiller) or 1 (the authors, CCSKD). Features are not scaled to length 1
    before (mmrazor does).

    Args:
        student: (b, ...).
        teacher: (b, ...), any other size; no gradient flows into it.

    Returns:
        Scalar >= 0; 0 for a batch of 1. Duplicates count as 1e-6 apart, with gradient 0.

    Raises:
        TrainingError: Unequal batches.

    Source: Park et al., "Relational Knowledge Distillation", CVPR 2019, Eq. 5-8.
    """
    student, teacher = _vectors(student, teacher)
    if len(student) == 1:
        return _nothing(student)
    with full_precision(student):
        return F.smooth_l1_loss(_relative_distances(student), _relative_distances(teacher))


def rkd_angle(student: Tensor, teacher: Tensor, *, chunk: int = 8) -> Tensor:
    """Relational angles: smooth L1 between the cosines at every sample m towards every pair (n, k), mean over b^3.

    ``cos[m, n, k] = <e[m, n], e[m, k]>`` with ``e[m, n]`` the direction from x_m to x_n; a sample has no direction to
    itself or to a duplicate (e = 0, gradient 0). The usual weight is 50 (mdistiller, RepDistiller) or 2 (the authors,
    CCSKD).

    The b^3 cosines are computed for ``chunk`` vertices m at a time, and again in the backward pass: memory is
    O(chunk * b * (b + d)) for features of d elements, and the gradient is exact.

    Args:
        student: (b, ...).
        teacher: (b, ...), any other size; no gradient flows into it.
        chunk: Vertices per chunk, >= 1; does not change the value.

    Returns:
        Scalar >= 0; 0 for a batch of 1.

    Raises:
        TrainingError: Unequal batches, or a chunk below 1.

    Source: Park et al., "Relational Knowledge Distillation", CVPR 2019, Eq. 9-11.
    """
    if chunk < 1:
        raise TrainingError(f"chunk {chunk}", "at least 1", "change chunk")
    student, teacher = _vectors(student, teacher)
    if len(student) == 1:
        return _nothing(student)
    total = student.new_zeros(())
    with full_precision(student):
        for first in range(0, len(student), chunk):
            rows = slice(first, first + chunk)
            # summed immediately, because each scalar of smooth_l1_loss keeps its (chunk, b, b) buffer alive
            total = total + checkpoint(
                _angle_cost, student, teacher, rows, use_reentrant=False, preserve_rng_state=False
            )
        return total / len(student) ** 3


def _vectors(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """(b, d_S) and (b, d_T) in full precision, the teacher's without gradient."""
    check_batch(student, teacher)
    return as_float(student).flatten(1), as_float(teacher.detach()).flatten(1)


def _nothing(student: Tensor) -> Tensor:
    """A differentiable 0, whatever the values."""
    return student[:0].sum()


def _kernel(features: Tensor, gamma: float, order: int) -> Tensor:
    """Taylor series of the Gaussian kernel, (b, b)."""
    directions = unit(features)
    cosine = directions @ directions.T
    total = torch.full_like(cosine, (2 * gamma) ** order / math.factorial(order))
    for power in reversed(range(order)):
        total = total * cosine + (2 * gamma) ** power / math.factorial(power)
    return math.exp(-2 * gamma) * total


def _relative_distances(features: Tensor) -> Tensor:
    """(b, d) -> (b, b) distances over their mean."""
    # by differences: with a Gram matrix in float32, equal samples would be far apart
    apart = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist").clamp(min=_NEAREST)
    apart = apart * (1 - torch.eye(len(apart), dtype=apart.dtype, device=apart.device))
    return apart / (apart.sum() / (len(apart) * (len(apart) - 1)))


def _angle_cost(student: Tensor, teacher: Tensor, rows: slice) -> Tensor:
    return F.smooth_l1_loss(_cosines(student, rows), _cosines(teacher, rows), reduction="sum")


def _cosines(features: Tensor, rows: slice) -> Tensor:
    """(b, d) -> (chunk, b, b), the cosines at the vertices ``rows``."""
    directions = unit(features[None] - features[rows, None], dim=2)  # (chunk, b, d)
    return directions @ directions.mT
