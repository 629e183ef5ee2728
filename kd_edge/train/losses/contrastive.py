"""Contrastive distillation: a clip's student embedding should be nearest to the teacher embedding of the same clip."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kd_edge.errors import TrainingError
from kd_edge.train.losses.checks import check_batch
from kd_edge.train.losses.geometry import unit
from kd_edge.train.losses.precision import as_float, full_precision


def contrastive(
    student_feature: Tensor, teacher_feature: Tensor, *, temperature: float = 0.07, symmetric: bool = False
) -> Tensor:
    """Global contrastive loss (InfoNCE) with a frozen teacher: ``mean over n of -log softmax_m(t_n . s_m / T)[n]``.

    Features are scaled to length 1. Each teacher embedding is classified among the student embeddings of the batch;
    with ``symmetric`` each student embedding is also classified among the teacher embeddings, and both are averaged
    (CLIP). All other clips are negatives, whatever their class.

    Args:
        student_feature: (b, d), projected to the teacher's size. Segments are averaged before, or each is a sample.
        teacher_feature: (b, d); no gradient flows into it.
        temperature: T > 0; 0.07 as in the source.
        symmetric: Classify in both directions; the source does not.

    Returns:
        Scalar >= 0; at most about log(b) + 2 / T. A batch of 1 has no negatives: 0 with gradient 0.

    Raises:
        TrainingError: Shapes that differ, or a temperature that is not above 0.

    Source: the code of AnyThermal (ICRA 2026, arXiv 2602.06203; ``losses/global_contrastive.py``, on class tokens); van
    den Oord et al., "Representation Learning with Contrastive Predictive Coding", 2018, Eq. 4; Radford et al., CLIP,
    ICML 2021, for both directions.
    """
    check_batch(student_feature, teacher_feature)
    if not temperature > 0:
        raise TrainingError(f"temperature {temperature}", "above 0", "change temperature")
    student, teacher = as_float(student_feature).flatten(1), as_float(teacher_feature.detach()).flatten(1)
    if student.shape != teacher.shape:
        raise TrainingError(
            f"a student feature {tuple(student.shape)} and a teacher feature {tuple(teacher.shape)}",
            "the same shape",
            "project the student's to the teacher's size, for example with nn.Linear",
        )
    if len(student) == 1:
        return student[:0].sum()
    with full_precision(student):
        similarity = unit(teacher) @ unit(student).T / temperature  # (b teachers, b students)
        own = torch.arange(len(similarity), device=similarity.device)
        value = F.cross_entropy(similarity, own)
        return (value + F.cross_entropy(similarity.T, own)) / 2 if symmetric else value
