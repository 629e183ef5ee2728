"""Losses on feature maps: hints (FitNet) and attention transfer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_edge.errors import TrainingError
from kd_edge.train.losses.checks import check_batch, check_choice, check_maps, check_taps
from kd_edge.train.losses.geometry import to_smaller, unit
from kd_edge.train.losses.precision import as_float, full_precision
from kd_edge.train.options import AttentionVariant


def hint_mse(student_feature: Tensor, teacher_feature: Tensor) -> Tensor:
    """FitNet's hint: mean of ``(student - teacher)^2`` over all elements; the usual weight is 100.

    Args:
        student_feature: (b, ...), the output of ``HintRegressor`` where sizes differ. Segments are averaged before.
        teacher_feature: (b, ...), the student's shape; no gradient flows into it.

    Returns:
        Scalar >= 0.

    Raises:
        TrainingError: The shapes differ.

    Source: Romero et al., "FitNets: Hints for Thin Deep Nets", 2015; the mean instead of half the sum is the public
    repositories' form.
    """
    check_batch(student_feature, teacher_feature)
    if student_feature.shape != teacher_feature.shape:
        raise TrainingError(
            f"a student feature {tuple(student_feature.shape)} and a teacher feature {tuple(teacher_feature.shape)}",
            "the same shape",
            "pass the student's through HintRegressor(student_shape, teacher_shape)",
        )
    with full_precision(student_feature):
        return F.mse_loss(as_float(student_feature), as_float(teacher_feature.detach()))


class HintRegressor(nn.Module):
    """Convolution, batch norm and ReLU from the student's map to the teacher's size; dropped at export.

    Three cases: a student map twice the teacher's size: 3x3 with stride 2; half its size: transposed 4x4 with stride 2;
    otherwise at least its size: one kernel of ``1 + h_S - h_T`` by ``1 + w_S - w_T`` without padding. The convolution
    has no bias: the batch norm's replaces it.

    Args:
        student_shape: (c, h, w) of the student's map.
        teacher_shape: (c, h, w) of the teacher's map.
        rectify: End in the ReLU. False if the teacher's layer has negative values (the linear ends of inverted residual
            blocks), which a ReLU could not reach.

    Raises:
        TrainingError: A student map smaller than the teacher's and not half its size.

    Source: the FitNet regressor of RepDistiller and mdistiller.
    """

    def __init__(
        self, student_shape: tuple[int, int, int], teacher_shape: tuple[int, int, int], *, rectify: bool = True
    ) -> None:
        super().__init__()
        self.rectify = rectify
        (c_s, *size_s), (c_t, *size_t) = student_shape, teacher_shape
        self.convolution: nn.Conv2d | nn.ConvTranspose2d
        if size_s == [2 * n for n in size_t]:
            self.convolution = nn.Conv2d(c_s, c_t, 3, stride=2, padding=1, bias=False)
        elif size_t == [2 * n for n in size_s]:
            self.convolution = nn.ConvTranspose2d(c_s, c_t, 4, stride=2, padding=1, bias=False)
        elif size_s[0] >= size_t[0] and size_s[1] >= size_t[1]:
            kernel = (1 + size_s[0] - size_t[0], 1 + size_s[1] - size_t[1])
            self.convolution = nn.Conv2d(c_s, c_t, kernel, bias=False)
        else:
            raise TrainingError(
                f"a student map {student_shape} smaller than the teacher's {teacher_shape} and not half its size",
                "a student map of at least the teacher's height and width, or exactly half of both",
                "tap an earlier layer of the student or a later one of the teacher",
            )
        self.norm = nn.BatchNorm2d(c_t)

    def forward(self, feature: Tensor) -> Tensor:
        """Project (b, c_S, h_S, w_S) to (b, c_T, h_T, w_T), float32 or float64; >= 0 with ``rectify``.

        Raises:
            TrainingError: In training, a single value per channel, for which batch norm has no variance.
        """
        with full_precision(feature):
            result = normalized(self.norm, self.convolution(as_float(feature)))
            return F.relu(result) if self.rectify else result


def normalized(norm: nn.BatchNorm2d, feature: Tensor) -> Tensor:
    """Apply batch norm to (b, c, h, w), with a clear error if there is no variance.

    Raises:
        TrainingError: In training, b = h = w = 1.
    """
    if norm.training and feature[:, :1].numel() == 1:
        raise TrainingError(
            f"a map {tuple(feature.shape)} in front of a batch norm in training",
            "more than one value per channel",
            "train with a batch of at least 2, or tap a layer with a larger map",
        )
    result: Tensor = norm(feature)
    return result


def attention_transfer(
    student_features: Sequence[Tensor], teacher_features: Sequence[Tensor], *, variant: AttentionVariant = "squared"
) -> Tensor:
    """Attention transfer: compare where two networks are active, sum over the layers; the usual weight is 1000.

    Per layer the attention map is ``Q = normalize(mean over c of F^2)``, one unit vector of h * w elements per sample.

    * ``squared`` (the public repositories): mean of ``(Q_S - Q_T)^2`` over samples and the h * w elements.
    * ``paper`` (Eq. 2 of the source): mean over samples of ``||Q_S - Q_T||_2``, not squared and not divided by h * w.
    * ``sakdn``: as ``squared`` with ``sum over c of F^2`` divided by its length plus 1e-6 instead of by its length.

    Mean and sum over c are equal after the normalisation. If heights or widths differ, both feature maps are
    average-pooled to the smaller size before they are squared. A map of zeros has Q = 0.

    Args:
        student_features: Maps (b, c, h, w), one per layer. Segments are averaged before.
        teacher_features: As many maps (b, c', h', w'), matched in order; no gradient flows into them.
        variant: One of the three forms.

    Returns:
        Scalar >= 0.

    Raises:
        TrainingError: Batches or numbers of taps differ, features are not maps, or the variant is unknown.

    Source: Zagoruyko and Komodakis, "Paying More Attention to Attention", 2017.
    """
    check_taps(student_features, teacher_features)
    check_choice("variant", variant, AttentionVariant)
    terms = []
    for student, teacher in zip(student_features, teacher_features, strict=True):
        check_maps(student, teacher)
        with full_precision(student):
            maps = to_smaller(as_float(student), as_float(teacher.detach()))
            difference = _attention_map(maps[0], variant) - _attention_map(maps[1], variant)
            if variant == "paper":
                terms.append(torch.linalg.vector_norm(difference, dim=1).mean())
            else:
                terms.append(difference.square().mean())
    return torch.stack(terms).sum()


def _attention_map(feature: Tensor, variant: AttentionVariant) -> Tensor:
    """(b, c, h, w) -> (b, h * w)."""
    energy = feature.square().mean(dim=1).flatten(1)
    if variant != "sakdn":
        return unit(energy)
    total = energy * feature.shape[1]
    length: Tensor = torch.linalg.vector_norm(total, dim=1, keepdim=True)
    return total / (length + 1e-6)
