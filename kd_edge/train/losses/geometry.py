"""Unit vectors and common map sizes for all losses, with finite gradients."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SHORTEST = 1e-12
_LARGEST = 1e15
"""Sums of squares of larger numbers may overflow float32."""


def unit(vectors: Tensor, dim: int = 1) -> Tensor:
    """Scale vectors to length 1; a vector shorter than 1e-12 has no direction and becomes 0 with gradient 0.

    Dividing such a vector by 1e-12 would give the same value but a gradient of 1e12, which a single dead sample, or two
    equal ones, would propagate into the whole network.
    """
    largest = vectors.detach().abs().amax(dim=dim, keepdim=True)
    vectors = vectors / torch.where(largest > _LARGEST, largest, 1.0)
    length = torch.linalg.vector_norm(vectors, dim=dim, keepdim=True)
    return vectors / torch.where(length > _SHORTEST, length, torch.inf)


def project(convolution: nn.Conv2d, feature: Tensor) -> Tensor:
    """Apply a 1x1 convolution without bias to (b, c, h, w), as one matrix product.

    The mean of a clip over its segments has strides for which torch's CPU convolution uses a slow path; that took a
    tenth of the whole training step.
    """
    return torch.einsum("oc,bchw->bohw", convolution.weight.flatten(1), feature)


def to_smaller(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Average-pool both maps (b, c, h, w) to the smaller height and width of the two."""
    size = (min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3]))
    return _pooled(student, size), _pooled(teacher, size)


def _pooled(feature: Tensor, size: tuple[int, int]) -> Tensor:
    return feature if tuple(feature.shape[2:]) == size else F.adaptive_avg_pool2d(feature, size)
