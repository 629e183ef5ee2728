"""Float32 graph to the precision that ships: one module each."""

from __future__ import annotations

import onnx

from kd_edge.export.precision.fp16 import to_half
from kd_edge.export.profile import Precision


def convert(proto: onnx.ModelProto, precision: Precision) -> onnx.ModelProto:
    """Convert the arithmetic of a graph; inputs and outputs stay float32.

    Args:
        proto: A float32 graph; not changed.
        precision: ``fp32`` returns it as it is, ``fp16`` see ``to_half``.
    """
    return to_half(proto) if precision == "fp16" else proto
