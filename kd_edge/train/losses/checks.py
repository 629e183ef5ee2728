"""Checks shared by all losses: tensors that do not match, labels out of range, unknown options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import torch
from torch import Tensor

from kd_edge.errors import TrainingError, did_you_mean


def check_batch(student: Tensor, teacher: Tensor) -> None:
    """Check that features (b, ...) are of the same batch.

    Raises:
        TrainingError: Batches are unequal or empty, or a tensor has only the batch axis.
    """
    if min(student.ndim, teacher.ndim) < 2 or len(student) != len(teacher) or len(student) == 0:
        raise TrainingError(
            f"student features {tuple(student.shape)} and teacher features {tuple(teacher.shape)}",
            "(b, ...) with the same batch b >= 1",
            "show both networks the same samples, and average both over the segments of a clip or neither",
        )


def check_maps(student: Tensor, teacher: Tensor, *, channels: bool = False) -> None:
    """Check that feature maps are (b, c, h, w) with the same b and, with ``channels``, the same c.

    Raises:
        TrainingError: The shapes do not match.
    """
    check_batch(student, teacher)
    if student.ndim != 4 or teacher.ndim != 4 or (channels and student.shape[1] != teacher.shape[1]):
        raise TrainingError(
            f"a student map {tuple(student.shape)} and a teacher map {tuple(teacher.shape)}",
            "maps (b, c, h, w)" + (" with the same channels" if channels else ""),
            "tap layers that return maps"
            + (", and project the student's channels to the teacher's" if channels else ""),
        )


def check_taps(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> None:
    """Check that lists of features can be matched one to one.

    Raises:
        TrainingError: The numbers of taps differ or are 0.
    """
    if len(student) != len(teacher) or not student:
        raise TrainingError(
            f"{len(student)} student and {len(teacher)} teacher taps",
            "the same number, at least one each",
            "tap as many layers of the teacher as of the student",
        )


def check_labels(labels: Tensor, samples: int, classes: int) -> None:
    """Check that labels are classes of the logits; indexing by invalid ones would fail elsewhere, or silently.

    Raises:
        TrainingError: The labels are not int64 (samples,), or one is outside [0, classes).
    """
    if labels.shape != (samples,) or labels.dtype is not torch.int64:
        raise TrainingError(
            f"labels {tuple(labels.shape)} of {labels.dtype}",
            f"({samples},) class numbers of torch.int64",
            "give one class number per sample, not one-hot rows or scores",
        )
    wrong = labels[(labels < 0) | (labels >= classes)]
    if len(wrong):
        raise TrainingError(
            f"label {int(wrong[0])} with {classes} classes",
            f"labels from 0 to {classes - 1}",
            "count classes from 0, and give both networks an output for every class of the data",
        )


def check_choice(what: str, value: str, options: Any) -> None:
    """Check the value of an option.

    Args:
        what: Name of the option.
        value: The given value.
        options: The ``Literal`` of all valid values.

    Raises:
        TrainingError: ``value`` is not one of them.
    """
    names = list(get_args(options))
    if value not in names:
        raise TrainingError(
            f"{what}='{value}'{did_you_mean(value, names)}", f"one of {', '.join(names)}", f"change {what}"
        )
