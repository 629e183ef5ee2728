"""Correct the average shift of features caused by quantisation, in float32 after the backbone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from kd_edge.engines.onnxruntime import load_onnxruntime
from kd_edge.export.ranges import Feed
from kd_edge.export.recordings import evenly
from kd_edge.types import Float32

Float64 = npt.NDArray[np.float64]

FEATURE = "feature"
MOST_FEEDS = 128
"""Upper limit for the runs that the correction is fitted on."""
LARGEST_SLOPE = 2.0
"""Largest factor by which a feature is scaled up or down; a larger one would indicate a fault, not rounding."""


def correct_features(proto: onnx.ModelProto, features: Sequence[Float32], feeds: Sequence[Feed]) -> onnx.ModelProto:
    """Scale and shift each feature of a quantised step so that it equals the float32 graph's on average.

    Rounding shifts features in one direction: a picture's background has one value, which rounds one way, and ReLU
    turns noise into a positive mean. The head is in float32 and sees this shift in all T segments. Two operations on D
    numbers undo it. Source: bias correction as in Nagel et al., "Data-Free Quantization Through Weight Equalization and
    Bias Correction", ICCV 2019, section 4.2, at the last layer only, with a slope.

    Args:
        proto: A quantised step; not changed.
        features: (1, D) float32 features of the float32 graph, one entry per run.
        feeds: Inputs of the same runs.
    """
    chosen = evenly(range(len(feeds)), MOST_FEEDS)
    found = _features(proto, [feeds[i] for i in chosen])
    expected = np.concatenate([features[i] for i in chosen]).astype(np.float64)
    return _insert_scaling(proto, *fit_line(found, expected))


def fit_line(found: Float64, expected: Float64) -> tuple[Float64, Float64]:
    """Fit slope and shift (D,) by least squares, both arrays (N, D); slope 1 and the mean difference for a constant."""
    centred = found - found.mean(axis=0)
    variance = np.mean(centred**2, axis=0)
    varies = variance > 1e-12
    slope = np.ones(found.shape[1])
    np.divide(np.mean(centred * (expected - expected.mean(axis=0)), axis=0), variance, out=slope, where=varies)
    slope = np.clip(slope, 1 / LARGEST_SLOPE, LARGEST_SLOPE)
    return slope, expected.mean(axis=0) - slope * found.mean(axis=0)


def _features(proto: onnx.ModelProto, feeds: Sequence[Feed]) -> Float64:
    """Compute the features (N, D) of a step's runs."""
    ort = load_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run([FEATURE], feed)[0] for feed in feeds]).astype(np.float64)


def _insert_scaling(proto: onnx.ModelProto, slope: Float64, shift: Float64) -> onnx.ModelProto:
    """Return a copy of the graph with a multiplication and an addition on the feature output."""
    scaled = onnx.ModelProto()
    scaled.CopyFrom(proto)
    nodes = scaled.graph.node
    last = next(i for i, node in enumerate(nodes) if FEATURE in node.output)
    nodes[last].output[list(nodes[last].output).index(FEATURE)] = f"{FEATURE}_uncorrected"
    scaled.graph.initializer.extend(
        numpy_helper.from_array(values.astype(np.float32), f"correction.{name}")
        for name, values in (("slope", slope), ("shift", shift))
    )
    product = [f"{FEATURE}_uncorrected", "correction.slope"]
    nodes.insert(last + 1, helper.make_node("Mul", product, [f"{FEATURE}_scaled"], name="correction/Mul"))
    total = [f"{FEATURE}_scaled", "correction.shift"]
    nodes.insert(last + 2, helper.make_node("Add", total, [FEATURE], name="correction/Add"))
    return scaled
