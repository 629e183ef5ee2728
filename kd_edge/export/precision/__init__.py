"""Convert a float32 graph to the precision of the export, one module per precision."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

import onnx

from kd_edge.errors import ConfigError, ExportError, did_you_mean
from kd_edge.export.precision.activations import Activations, observe
from kd_edge.export.precision.correction import correct_features
from kd_edge.export.precision.fp16 import to_half, unfit_for_half
from kd_edge.export.precision.int8 import BACKBONE, is_quantised, quantise, quantise_for_tensorrt
from kd_edge.export.profile import ExportProfile
from kd_edge.export.ranges import Feed

__all__ = ["Activations", "Converted", "convert", "observe"]

HALF_SCALES_OPSET = 19
"""The first operator set whose QuantizeLinear accepts half precision."""


class Converted(NamedTuple):
    """A graph in its precision.

    Attributes:
        proto: The graph; inputs and outputs are float32.
        kept: Nodes that stayed in float32, with the reason for each, by name.
    """

    proto: onnx.ModelProto
    kept: dict[str, str]


def convert(
    proto: onnx.ModelProto,
    profile: ExportProfile,
    feeds: Sequence[Feed],
    *,
    keep: Collection[str] = (),
    seen: Activations | None = None,
) -> Converted:
    """Convert the arithmetic of a graph.

    Args:
        proto: A float32 graph; not changed.
        profile: The profile with the precision and the nodes to keep in float32.
        feeds: Inputs of the float32 graph for real frames.
        keep: Names of further nodes to keep in float32.
        seen: Result of ``observe`` on the feeds, to avoid computing it for every conversion.

    Raises:
        ExportError: There is no feed, a value is not finite, or the operator set does not support the precision.
    """
    if profile.precision == "fp32":
        return Converted(proto, {})
    _check_opset(proto, profile)
    seen = seen or observe(proto, profile, feeds)
    check_patterns(proto, profile)
    kept = {}
    for node in proto.graph.node:
        if any(fnmatchcase(node.name, pattern) for pattern in profile.keep_float32):
            kept[node.name] = f"kept by profile '{profile.name}'"
        elif node.name in keep:
            kept[node.name] = "kept on request"
    if profile.precision == "int8":
        kept = _not_quantised(proto) | kept
        return Converted(_correct(quantise(proto, seen.ranges, kept), seen, feeds), kept)
    kept = unfit_for_half(proto, seen.extremes) | kept
    if profile.precision == "int8-tensorrt":
        proto = _correct(quantise_for_tensorrt(proto, seen.ranges, kept), seen, feeds)
    return Converted(to_half(proto, kept), kept)


def check_patterns(proto: onnx.ModelProto, profile: ExportProfile) -> None:
    """Check that every pattern of ``keep_float32`` matches a node.

    Raises:
        ConfigError: A pattern matches no node.
    """
    names = [node.name for node in proto.graph.node]
    for pattern in profile.keep_float32:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(
                f"keep_float32 '{pattern}'{did_you_mean(pattern, names)}",
                f"a pattern of names such as {names[0]}",
                "correct keep_float32 in the profile",
            )


def _correct(proto: onnx.ModelProto, seen: Activations, feeds: Sequence[Feed]) -> onnx.ModelProto:
    """Correct the features of a step; a clip graph, which does not output its features, stays unchanged."""
    return correct_features(proto, seen.features, feeds) if seen.features else proto


def _not_quantised(proto: onnx.ModelProto) -> dict[str, str]:
    """Return the nodes that the 8-bit graph for CPUs computes in float32, with the reason for each, by name."""
    nodes = [node for node in proto.graph.node if not is_quantised(node)]
    reasons = ("mean over time and classifier stay in float32", "no 8-bit kernel")
    return {node.name: reasons[node.name.startswith(BACKBONE)] for node in nodes}


def _check_opset(proto: onnx.ModelProto, profile: ExportProfile) -> None:
    opset = next(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
    if profile.precision == "int8-tensorrt" and opset < HALF_SCALES_OPSET:
        raise ExportError(
            f"opset {opset} in profile '{profile.name}'",
            f"opset {HALF_SCALES_OPSET} or later, whose 8-bit values may have half-precision scales",
            "set opset = 20",
        )
