"""Unit vectors and common map sizes, the same in every loss, with gradients that stay finite."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SHORTEST = 1e-12
_LARGEST = 1e15
"""Squares of larger numbers may add up to more than float32 holds."""


def unit(vectors: Tensor, dim: int = 1) -> Tensor:
    """Vectors scaled to length 1; one shorter than 1e-12 has no direction and becomes 0 with gradient 0.

    Dividing such a vector by 1e-12 instead gives the same value but a gradient of 1e12, which one dead sample or two
    equal ones then send into the whole network.
    """
    largest = vectors.detach().abs().amax(dim=dim, keepdim=True)
    vectors = vectors / torch.where(largest > _LARGEST, largest, 1.0)
    length = torch.linalg.vector_norm(vectors, dim=dim, keepdim=True)
    return vectors / torch.where(length > _SHORTEST, length, torch.inf)


def project(convolution: nn.Conv2d, feature: Tensor) -> Tensor:
    """What a 1x1 convolution without bias makes of (b, c, h, w), as one matrix product.

    A clip's mean over its segments has strides for which torch's CPU convolution falls back to its slow path, which
    took a tenth of the whole training step.
    """
    return torch.einsum("oc,bchw->bohw", convolution.weight.flatten(1), feature)


def to_smaller(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Maps (b, c, h, w), each average-pooled to the smaller height and width of the two."""
    size = (min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3]))
    return _pooled(student, size), _pooled(teacher, size)


def _pooled(feature: Tensor, size: tuple[int, int]) -> Tensor:
    return feature if tuple(feature.shape[2:]) == size else F.adaptive_avg_pool2d(feature, size)
