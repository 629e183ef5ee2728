"""Losses are computed in float32 whatever the network runs in: bfloat16 has 8 bits, too few for distances and KL."""

from __future__ import annotations

import torch
from torch import Tensor


def as_float(values: Tensor) -> Tensor:
    """float16 and bfloat16 become float32; float32 and float64 stay."""
    return values if values.dtype is torch.float64 else values.float()


def full_precision(values: Tensor) -> torch.autocast:
    """Context in which autocast does not lower precision on the tensor's device."""
    return torch.autocast(device_type=values.device.type, enabled=False)
