"""What every loss refuses, in one place: pairs that do not belong together, and labels that are no class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import torch
from torch import Tensor

from kd_edge.errors import TrainingError, did_you_mean


def check_batch(student: Tensor, teacher: Tensor) -> None:
    """Refuse features (b, ...) of different batches.

    Raises:
        TrainingError: Unequal or empty batches, or a tensor without an axis beside the batch.
    """
    if min(student.ndim, teacher.ndim) < 2 or len(student) != len(teacher) or len(student) == 0:
        raise TrainingError(
            f"student features {tuple(student.shape)} and teacher features {tuple(teacher.shape)}",
            "(b, ...) with the same batch b >= 1",
            "show both networks the same samples, and average both over the segments of a clip or neither",
        )


def check_maps(student: Tensor, teacher: Tensor, *, channels: bool = False) -> None:
    """Refuse feature maps that are not (b, c, h, w) with the same b, and with ``channels`` the same c.

    Raises:
        TrainingError: Shapes that do not fit.
    """
    check_batch(student, teacher)
    if student.ndim != 4 or teacher.ndim != 4 or (channels and student.shape[1] != teacher.shape[1]):
        raise TrainingError(
            f"a student map {tuple(student.shape)} and a teacher map {tuple(teacher.shape)}",
            "maps (b, c, h, w)" + (" with the same channels" if channels else ""),
            "tap layers that give maps" + (", and project the student's channels to the teacher's" if channels else ""),
        )


def check_taps(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> None:
    """Refuse lists of features that cannot be matched one to one.

    Raises:
        TrainingError: Different numbers of taps, or none.
    """
    if len(student) != len(teacher) or not student:
        raise TrainingError(
            f"{len(student)} student and {len(teacher)} teacher taps",
            "the same number, at least one each",
            "tap as many layers of the teacher as of the student",
        )


def check_labels(labels: Tensor, samples: int, classes: int) -> None:
    """Refuse labels that are no class of the logits; gathering by them would fail far from here, or not at all.

    Raises:
        TrainingError: Not (samples,) of int64, or a label outside [0, classes).
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
    """Refuse a misspelt option.

    Args:
        what: Name of the option.
        value: What was given.
        options: The ``Literal`` of all that may be.

    Raises:
        TrainingError: ``value`` is none of them.
    """
    names = list(get_args(options))
    if value not in names:
        raise TrainingError(
            f"{what}='{value}'{did_you_mean(value, names)}", f"one of {', '.join(names)}", f"change {what}"
        )
