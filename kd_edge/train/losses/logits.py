"""Losses on logits: soft targets, their mean squared error, and decoupled knowledge distillation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kd_edge.errors import TrainingError
from kd_edge.train.losses.checks import check_labels
from kd_edge.train.losses.precision import as_float, full_precision


def soft_target(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 4.0, weights: Tensor | None = None
) -> Tensor:
    """Soft targets: ``T^2 * KL(softmax(t / T) || softmax(s / T))``, mean over the batch.

    Args:
        student_logits: (N, C).
        teacher_logits: (N, C); no gradient flows into it.
        temperature: T > 0; the factor T^2 keeps the size of the gradient independent of it.
        weights: (N,) >= 0, weight of each sample's divergence; None means 1. No gradient flows into it.

    Returns:
        Scalar >= 0.

    Raises:
        TrainingError: The shapes differ.

    Source: Hinton et al., "Distilling the Knowledge in a Neural Network", 2015.
    """
    check_logits(student_logits, teacher_logits, temperature)
    if weights is not None and weights.shape != student_logits.shape[:1]:
        raise TrainingError(
            f"weights {tuple(weights.shape)} of {len(student_logits)} samples",
            "one weight per sample",
            "correct weights",
        )
    with full_precision(student_logits):
        log_s = F.log_softmax(as_float(student_logits) / temperature, dim=1)
        log_t = F.log_softmax(as_float(teacher_logits.detach()) / temperature, dim=1)
        return _kl(log_t, log_s, weights) * temperature**2


def logit_mse(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Mean of ``(student - teacher)^2`` over all N * C logits.

    Args:
        student_logits: (N, C).
        teacher_logits: (N, C); no gradient flows into it.

    Returns:
        Scalar >= 0.

    Raises:
        TrainingError: The shapes differ.

    Source: Ba and Caruana, "Do Deep Nets Really Need to be Deep?", 2014.
    """
    check_logits(student_logits, teacher_logits)
    with full_precision(student_logits):
        return F.mse_loss(as_float(student_logits), as_float(teacher_logits.detach()))


def dkd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    target_weight: float,
    nontarget_weight: float,
    temperature: float = 4.0,
) -> Tensor:
    """Decoupled knowledge distillation: ``target_weight * TCKD + nontarget_weight * NCKD``.

    The weights are the papers' alpha_T and alpha_N (0.7 and 0.35). The weight of the whole term in the total loss
    (alpha, 0.1) is not applied here.

    Args:
        student_logits: (N, C), C >= 2.
        teacher_logits: (N, C); no gradient flows into it.
        labels: (N,) int64.
        target_weight: Weight of the target-class term.
        nontarget_weight: Weight of the term among the other classes.
        temperature: T > 0. The MGCAM paper does not give it; 4 is the reference implementation's value.

    Returns:
        Scalar >= 0.

    Raises:
        TrainingError: There are fewer than two classes, shapes differ, or labels are out of range.

    Source: Zhao et al., "Decoupled Knowledge Distillation", CVPR 2022; Eq. 7-9 of the MGCAM paper.
    """
    target, nontarget = dkd_terms(student_logits, teacher_logits, labels, temperature=temperature)
    return target_weight * target + nontarget_weight * nontarget


def dkd_terms(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, *, temperature: float
) -> tuple[Tensor, Tensor]:
    """Compute the two terms of DKD, each ``T^2 * KL(teacher || student)``, mean over the batch.

    TCKD compares ``b = [p_y, sum of p_c for c != y]``; NCKD compares the softmax over the classes other than y. Both
    stay in log space (``log b`` by logsumexp, NCKD on the C - 1 other logits alone instead of subtracting 1000 from the
    target's), so they are finite for logits up to 1e30. With two classes NCKD is exactly 0.

    Args:
        student_logits: (N, C), C >= 2.
        teacher_logits: (N, C); no gradient flows into it.
        labels: (N,) int64.
        temperature: Softening T > 0 of both distributions; 1 leaves the logits as they are.

    Returns:
        (TCKD, NCKD), scalars >= 0.

    Raises:
        TrainingError: There are fewer than two classes, shapes differ, or labels are out of range.
    """
    check_logits(student_logits, teacher_logits, temperature)
    classes = student_logits.shape[1]
    if classes < 2:
        raise TrainingError(f"DKD with {classes} class", "at least two classes", "remove the dkd loss")
    check_labels(labels, *student_logits.shape)
    columns = torch.arange(classes - 1, device=labels.device)
    others = columns + (columns >= labels[:, None]).long()  # (N, C-1): every column except the label's

    def parts(logits: Tensor) -> tuple[Tensor, Tensor]:
        scaled = as_float(logits) / temperature
        log_p = F.log_softmax(scaled, dim=1)
        log_rest = torch.logsumexp(log_p.gather(1, others), dim=1, keepdim=True)
        binary = torch.cat([log_p.gather(1, labels[:, None]), log_rest], dim=1)  # (N, 2)
        return binary, F.log_softmax(scaled.gather(1, others), dim=1)

    with full_precision(student_logits):
        binary_s, others_s = parts(student_logits)
        binary_t, others_t = parts(teacher_logits.detach())
        return _kl(binary_t, binary_s) * temperature**2, _kl(others_t, others_s) * temperature**2


def _kl(log_teacher: Tensor, log_student: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean KL(teacher || student) of log-probabilities (N, C), optionally weighted by (N,)."""
    each = (log_teacher.exp() * (log_teacher - log_student)).sum(dim=1)
    return each.mean() if weights is None else (as_float(weights.detach()) * each).mean()


def check_logits(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> None:
    """Check that logits can be compared.

    Raises:
        TrainingError: They are not both (N, C) with N >= 1, or the temperature is not positive.
    """
    if student.shape != teacher.shape or student.ndim != 2 or student.numel() == 0:
        raise TrainingError(
            f"student logits {tuple(student.shape)} and teacher logits {tuple(teacher.shape)}",
            "the same shape (N, C)",
            "give both networks the same classes and the same batch",
        )
    if not temperature > 0:
        raise TrainingError(f"temperature {temperature}", "a positive number", "change temperature")
