"""Gramian angular fields: a signal over time as an image of the angles between its samples.

Source: Wang and Oates, "Imaging time-series to improve classification and imputation", IJCAI 2015; Eq. 1-3 of Liu et
al., "Semantics-aware adaptive knowledge distillation for sensor-to-vision action recognition", IEEE TIP 2021.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from kd_edge.errors import TrainingError
from kd_edge.train.losses.checks import check_choice
from kd_edge.train.losses.precision import as_float, full_precision

GafMethod = Literal["summation", "difference"]


def gramian_angular_field(
    signal: Tensor, *, method: GafMethod = "summation", value_range: tuple[float, float] | None = None
) -> Tensor:
    """Scale a signal to [-1, 1], interpret it as cosines of angles phi, and compare every sample with every other.

    ``summation`` is cos(phi_i + phi_j) = x_i x_j - s_i s_j with s = sqrt(1 - x^2); ``difference`` is
    sin(phi_i - phi_j) = s_i x_j - x_i s_j, phi = arccos(x): the sign of pyts, the opposite of the arcsin form.

    Without ``value_range`` each signal is scaled by its own minimum and maximum (Eq. 1), which loses its level and
    amplitude; a constant signal gives x = 1 everywhere. A signal with a non-finite value then becomes NaN completely;
    such values have to be detected when the signal is read.

    Differentiable in the signal. Where x is -1 or 1 the slope of s is infinite, and s is treated as constant.

    Args:
        signal: (..., n), n >= 1, of a floating type; half precision is converted to float32 first.
        method: Kind of field.
        value_range: Lowest and highest value of the sensor. The signal is scaled by them and clipped, which keeps its
            level (gravity) and amplitude. A NaN affects only its own row and column.

    Returns:
        (..., n, n) float32, in [-1, 1].

    Raises:
        TrainingError: There are no values, they are integers, the method is unknown, or the range is invalid.
    """
    check_choice("method", method, GafMethod)
    _check_signal(signal)
    with full_precision(signal):
        cosine, sine = _angles(as_float(signal), value_range)
        right = (cosine, -sine) if method == "summation" else (-sine, cosine)
        # (..., n, 2) x (..., 2, n): both products in one pass over the result
        return torch.matmul(torch.stack([cosine, sine], dim=-1), torch.stack(right, dim=-2))


def _angles(signal: Tensor, value_range: tuple[float, float] | None) -> tuple[Tensor, Tensor]:
    """Cosine x and sine s >= 0 of every sample's angle, float32.

    Computed from u = (1 + x) / 2 and v = (1 - x) / 2, both directly from the signal: 1 - x^2 would lose half of the
    digits of s near -1 and 1.
    """
    if value_range is None:
        low, high = signal.amin(-1, keepdim=True), signal.amax(-1, keepdim=True)
        half = high / 2 - low / 2  # halved first, because the span of large values overflows
        constant = half == 0
        span = torch.where(constant, torch.ones_like(half), half)
        # a constant signal: u = 1, v = 0
        u = torch.where(constant, torch.ones_like(signal), (signal / 2 - low / 2) / span)
        v = torch.where(constant, torch.zeros_like(signal), (high / 2 - signal / 2) / span)
    else:
        lowest, highest = value_range
        if not (math.isfinite(lowest) and math.isfinite(highest) and lowest < highest):
            raise TrainingError(
                f"value_range={value_range}", "lowest and highest value, finite", "give the sensor's own range"
            )
        held = signal.clamp(lowest, highest)
        u, v = (held - lowest) / (highest - lowest), (highest - held) / (highest - lowest)
    product = u * v
    inside = product > 0
    sine = 2 * torch.where(inside, product, torch.ones_like(product)).sqrt() * inside
    return (u - v).float(), sine.float()


def _check_signal(signal: Tensor) -> None:
    if not signal.is_floating_point() or signal.ndim < 1 or signal.shape[-1] < 1:
        raise TrainingError(
            f"a signal {tuple(signal.shape)} of {signal.dtype}",
            "(..., n) values of a floating type, n >= 1",
            "give the values in the sensor's unit as float32",
        )
