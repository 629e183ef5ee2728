"""Full precision for losses: the 8 significant bits of bfloat16 are too few for distances and divergences."""

from __future__ import annotations

import torch
from torch import Tensor


def as_float(values: Tensor) -> Tensor:
    """Convert float16 and bfloat16 to float32; float32 and float64 are returned unchanged."""
    return values if values.dtype is torch.float64 else values.float()


def full_precision(values: Tensor) -> torch.autocast:
    """Return a context that disables autocast on the tensor's device."""
    return torch.autocast(device_type=values.device.type, enabled=False)
