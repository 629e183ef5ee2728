"""Channel-correlation-based selective knowledge distillation (CCSKD).

Source: Gou et al., "Channel Correlation-Based Selective Knowledge Distillation", IEEE TCDS 2022, in the form of the
authors' code (gjplab/CCSKD, CIFAR-100). The weights given in the paper differ from the code; every weight is a field of
``CcskdSchedule``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_edge.errors import TrainingError
from kd_edge.train.losses.checks import check_choice, check_labels, check_maps, check_taps
from kd_edge.train.losses.features import normalized
from kd_edge.train.losses.geometry import project
from kd_edge.train.losses.logits import check_logits, soft_target
from kd_edge.train.losses.precision import as_float, full_precision
from kd_edge.train.losses.relations import rkd_angle, rkd_distance
from kd_edge.train.options import CcskdVariant

_PUBLISHED_EPOCHS = 200
_PUBLISHED_START = 61
_ANGLE = 2.0
"""Weight of the angles relative to the distances."""


class CcskdRates(NamedTuple):
    """Weights of one epoch.

    Attributes:
        channel: Weight of the channel vectors' mean squared error.
        relation: Weight of distances + 2 * angles among the channel vectors.
        selective: Weight of the selective soft targets; 0 before the start epoch.
        soft: Weight of the plain soft targets.
        selective_decay: Factor inside the selective term's mask.
    """

    channel: float
    relation: float
    selective: float
    soft: float
    selective_decay: float


@dataclasses.dataclass(frozen=True)
class CcskdSchedule:
    """Weights by epoch. Epochs are counted from 1; marks refer to a run of 200 epochs.

    Attributes:
        channel_rate: Weight of the channel term, multiplied by ``channel_decay`` at every mark.
        channel_decay: Factor at a mark, > 0.
        channel_marks: Epochs at which the factor is applied once more.
        relation_rate: Weight of the relation term, constant.
        selective_rate: Weight of the selective term from ``start_epoch`` on, 0 before.
        soft_rate: Weight of the plain soft targets, constant.
        selective_decay: The selective mask contains the factor ``selective_decay ** (epoch // selective_epochs)``, > 0.
        selective_epochs: Epochs between two steps of ``selective_decay``, >= 1.
        start_epoch: First epoch of the selective term; 1 is always on, the authors' configuration has 61.
    """

    channel_rate: float = 6.0
    channel_decay: float = 0.9
    channel_marks: tuple[int, ...] = (60, 160)
    relation_rate: float = 6.0
    selective_rate: float = 0.1
    soft_rate: float = 0.1
    selective_decay: float = 0.9
    selective_epochs: int = 30
    start_epoch: int = 1

    def __post_init__(self) -> None:
        if min(self.channel_decay, self.selective_decay) <= 0 or min(self.selective_epochs, self.start_epoch) < 1:
            raise TrainingError(str(self), "decays above 0, selective_epochs and start_epoch from 1", "change them")

    def rates(self, epoch: int) -> CcskdRates:
        """Weights of an epoch, counted from 1.

        Raises:
            TrainingError: An epoch below 1.
        """
        if epoch < 1:
            raise TrainingError(f"epoch {epoch}", "epochs counted from 1", "pass the first epoch as 1")
        reached = sum(epoch >= mark for mark in self.channel_marks)
        return CcskdRates(
            channel=self.channel_rate * self.channel_decay**reached,
            relation=self.relation_rate,
            selective=self.selective_rate if epoch >= self.start_epoch else 0.0,
            soft=self.soft_rate,
            selective_decay=self.selective_decay ** (epoch // self.selective_epochs),
        )

    def scaled(self, epochs: int) -> CcskdSchedule:
        """Scale the schedule to a run of another length: every mark times ``epochs / 200``, rounded, at least 1."""

        def mark(epoch: int) -> int:
            return max(1, round(epoch * epochs / _PUBLISHED_EPOCHS))

        return dataclasses.replace(
            self,
            channel_marks=tuple(mark(m) for m in self.channel_marks),
            selective_epochs=mark(self.selective_epochs),
            start_epoch=1 + round((self.start_epoch - 1) * epochs / _PUBLISHED_EPOCHS),
        )

    def check(self, epochs: int) -> None:
        """Check that the selective term starts before the run ends.

        Raises:
            TrainingError: ``start_epoch`` is after the last epoch although the term has a weight.
        """
        if self.selective_rate and self.start_epoch > epochs:
            raise TrainingError(
                f"a run of {epochs} epochs whose selective distillation starts at epoch {self.start_epoch}",
                "a start within the run, because the term would otherwise never be used",
                f"set start_epoch to at most {epochs}, scale the schedule to the run, or set selective_rate to 0",
            )


def ccskd_schedule(variant: CcskdVariant = "always", *, epochs: int | None = None) -> CcskdSchedule:
    """Return a named schedule.

    Args:
        variant: ``always``: the authors' rates with the selective term on from epoch 1. ``cifar``: their configuration,
            with the selective term on from epoch 61 of 200. Their code also switches the cross-entropy off before epoch
            61; here the cross-entropy belongs to the trainer and stays on.
        epochs: Length of the run to which the marks are scaled, so that the selective term always starts within it.
            None keeps the marks of a run of 200 epochs; see ``CcskdSchedule.check`` for shorter runs.

    Returns:
        The schedule.

    Raises:
        TrainingError: An unknown variant.
    """
    check_choice("variant", variant, CcskdVariant)
    schedule = CcskdSchedule(start_epoch=_PUBLISHED_START if variant == "cifar" else 1)
    return schedule if epochs is None else schedule.scaled(epochs)


class CcskdConnectors(nn.Module):
    """1x1 convolution, batch norm and ReLU per layer, from student to teacher channels; dropped at export.

    Every layer has them, even if the channels are equal.

    Args:
        student_channels: Channels of the student's taps.
        teacher_channels: Channels of the teacher's taps.
        rectify: Whether each layer ends in the ReLU; None means all do. See ``HintRegressor``.

    Raises:
        TrainingError: Different numbers of taps.
    """

    def __init__(
        self,
        student_channels: Sequence[int],
        teacher_channels: Sequence[int],
        *,
        rectify: Sequence[bool] | None = None,
    ) -> None:
        super().__init__()
        self.rectify = [True] * len(teacher_channels) if rectify is None else list(rectify)
        if len(student_channels) != len(teacher_channels):
            raise TrainingError(
                f"{len(student_channels)} student and {len(teacher_channels)} teacher taps",
                "the same number",
                "tap as many layers of the teacher as of the student",
            )
        pairs = list(zip(student_channels, teacher_channels, strict=True))
        self.convolutions = nn.ModuleList(nn.Conv2d(c_s, c_t, 1, bias=False) for c_s, c_t in pairs)
        self.norms = nn.ModuleList(nn.BatchNorm2d(c_t) for _, c_t in pairs)

    def forward(self, feature: Tensor, layer: int) -> Tensor:
        """Project a student's tap (b, c_S, h, w) to (b, c_T, h, w); >= 0 if the layer is rectified.

        Raises:
            TrainingError: In training, a single value per channel.
        """
        norm = self.norms[layer]
        assert isinstance(norm, nn.BatchNorm2d)
        convolution = self.convolutions[layer]
        assert isinstance(convolution, nn.Conv2d)
        result = normalized(norm, project(convolution, feature))
        return F.relu(result) if self.rectify[layer] else result


def ccskd(
    student_features: Sequence[Tensor],
    teacher_features: Sequence[Tensor],
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    epoch: int,
    connectors: Callable[[Tensor, int], Tensor] | None,
    schedule: CcskdSchedule | None = None,
    temperature: float = 1.0,
    chunk: int = 8,
) -> Tensor:
    """Compute the complete CCSKD term of one batch, with weights by epoch.

    Per layer, with v the means over (h, w) of the connected student map and of the teacher map:
    ``channel * mean((v_S - v_T)^2) + relation * (rkd_distance(v_S, v_T) + 2 * rkd_angle(v_S, v_T))``, summed over the
    layers; plus ``selective * selective_soft_target`` plus ``soft * soft_target``.

    The authors' code also switches its cross-entropy off for the first 60 of 200 epochs. This function has no
    cross-entropy and does not touch the trainer's.

    Args:
        student_features: Maps (b, c_S, h, w), one per layer. Segments are averaged before.
        teacher_features: As many maps (b, c_T, h', w'), matched in order; no gradient flows into them.
        student_logits: (b, C).
        teacher_logits: (b, C); no gradient flows into it.
        labels: (b,) int64.
        epoch: Number of the epoch, counted from 1.
        connectors: ``connectors(feature, layer)`` projects to the teacher's channels, see ``CcskdConnectors``. None
            compares channels directly, which needs equal channels and is not the published method.
        schedule: Weights by epoch; ``ccskd_schedule()`` if None.
        temperature: Softening T > 0 of both soft-target terms; 1 leaves the logits as they are.
        chunk: Vertices per chunk of the angles, see ``rkd_angle``.

    Returns:
        Scalar. It may be negative, see ``selective_soft_target``. With a batch of 1 the relation terms are 0.

    Raises:
        TrainingError: Unequal batches, classes or numbers of taps, labels out of range, an epoch below 1.
    """
    check_taps(student_features, teacher_features)
    rates = (schedule or CcskdSchedule()).rates(epoch)
    total = rates.soft * soft_target(student_logits, teacher_logits, temperature=temperature)
    total = total + rates.selective * selective_soft_target(
        student_logits, teacher_logits, labels, decay=rates.selective_decay, temperature=temperature
    )
    for layer, (student, teacher) in enumerate(zip(student_features, teacher_features, strict=True)):
        check_maps(student, teacher)
        with full_precision(student):
            student = as_float(student)
            connected = student if connectors is None else connectors(student, layer)
            check_maps(connected, teacher, channels=True)
            v_s, v_t = connected.mean(dim=(2, 3)), as_float(teacher.detach()).mean(dim=(2, 3))  # (b, c_T)
            relation = rkd_distance(v_s, v_t) + _ANGLE * rkd_angle(v_s, v_t, chunk=chunk)
            total = total + rates.channel * F.mse_loss(v_s, v_t) + rates.relation * relation
    return total


def selective_soft_target(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, *, decay: float = 1.0, temperature: float = 1.0
) -> Tensor:
    """Soft targets with a larger weight on samples that the teacher classifies correctly.

    With ``m = decay * (2 if argmax(teacher) is the label else 1)`` per sample:
    ``T^2 * sum over c of m p_T * (log(m p_T) - m log p_S)``, mean over the batch. This is the authors' code read
    literally: m multiplies both the teacher's probability and the student's log-probability, so for m != 1 neither is a
    distribution. The minimum over the student is still at ``p_S = p_T``, but its value is not 0, and negative for
    m < 1.

    Args:
        student_logits: (N, C).
        teacher_logits: (N, C); no gradient flows into it.
        labels: (N,) int64.
        decay: Factor of the mask m, > 0.
        temperature: Softening T > 0 of both distributions; 1 leaves the logits as they are.

    Returns:
        Scalar.

    Raises:
        TrainingError: Shapes that differ, labels out of range, a decay or temperature of 0 or below.
    """
    check_logits(student_logits, teacher_logits, temperature)
    check_labels(labels, *student_logits.shape)
    if not decay > 0:
        raise TrainingError(f"decay {decay}", "a positive number", "change decay")
    with full_precision(student_logits):
        log_s = F.log_softmax(as_float(student_logits) / temperature, dim=1)
        log_t = F.log_softmax(as_float(teacher_logits.detach()) / temperature, dim=1)
        right = (log_t.argmax(dim=1) == labels).to(log_t.dtype)
        mask = (decay * (1 + right))[:, None]  # (N, 1)
        cost = mask * log_t.exp() * (torch.log(mask) + log_t - mask * log_s)
        return cost.sum(dim=1).mean() * temperature**2
