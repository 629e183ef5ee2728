"""Float32 graph to the precision that ships: one module each."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import onnx

from kd_edge.export.precision.fp16 import to_half
from kd_edge.export.profile import ExportProfile
from kd_edge.export.ranges import Feed


class Converted(NamedTuple):
    """A graph in its precision.

    Attributes:
        proto: The graph; inputs and outputs are float32.
        kept: Nodes that stayed in float32, by name: why.
    """

    proto: onnx.ModelProto
    kept: dict[str, str]


def convert(
    proto: onnx.ModelProto, profile: ExportProfile, feeds: Sequence[Feed], *, keep: Collection[str] = ()
) -> Converted:
    """Convert the arithmetic of a graph.

    Args:
        proto: A float32 graph; not changed.
        profile: Which precision, and which nodes it keeps in float32.
        feeds: Real frames on their way through the float32 graph.
        keep: Names of further nodes to keep.
    """
    if profile.precision == "fp32":
        return Converted(proto, {})
    return Converted(to_half(proto), {})
