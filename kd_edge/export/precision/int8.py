"""Convert a graph to 8-bit integers: static quantisation with QuantizeLinear and DequantizeLinear nodes (QDQ)."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import onnx

from kd_edge.engines.onnxruntime import load_onnxruntime
from kd_edge.export.onnx import HEAD
from kd_edge.export.precision.activations import Range
from kd_edge.export.precision.fp16 import sort_nodes
from kd_edge.packages import import_extra

BACKBONE = "backbone."
"""Prefix of the names of the nodes that are quantised; see docs/adr/022-int8-two-profiles.md for the reasons."""

CPU_OPERATORS = ("Conv", "Gemm", "Add", "Relu", "Clip", "MaxPool", "AveragePool", "Concat", "Pad")
"""Operators with 8-bit kernels in CPU engines that are worth quantising; a backbone's only ``MatMul``, a mean over a
grid, is not."""
TENSORRT_OPERATORS = ("Conv", "Gemm", "Add")
TEMPORAL_OPERATORS = ("Conv", "Relu")
"""Operators of a temporal head quantised for CPUs: in float32, its convolutions were a sixth of a ResNet18's file."""


def quantise(proto: onnx.ModelProto, ranges: Mapping[str, Range], keep: Collection[str] = ()) -> onnx.ModelProto:
    """Quantise a graph for CPUs: unsigned activations, signed weights per channel.

    Args:
        proto: A float32 graph; not changed.
        ranges: Range of every tensor.
        keep: Names of nodes that stay in float32.
    """
    return _quantise(proto, ranges, keep, CPU_OPERATORS, "QUInt8", {})


def quantise_for_tensorrt(
    proto: onnx.ModelProto, ranges: Mapping[str, Range], keep: Collection[str] = ()
) -> onnx.ModelProto:
    """Quantise a graph for TensorRT: signed activations symmetric around zero, no quantised bias or outputs.

    A node's inputs are quantised, not its outputs. Temporal head and first convolution stay in higher precision:
    pictures are one-sided, and half of the levels symmetric around zero would be unused.

    Args:
        proto: A float32 graph; not changed.
        ranges: Range of every tensor.
        keep: Names of nodes that stay in float32.
    """
    options = {
        "ActivationSymmetric": True,
        "QuantizeBias": False,
        "OpTypesToExcludeOutputQuantization": list(TENSORRT_OPERATORS),
    }
    heads = [node.name for node in proto.graph.node if node.name.startswith(HEAD)]
    keep = {*keep, *heads, first_convolution(proto)}
    return _quantise(proto, ranges, keep, TENSORRT_OPERATORS, "QInt8", options)


def _quantise(
    proto: onnx.ModelProto,
    ranges: Mapping[str, Range],
    keep: Collection[str],
    operators: tuple[str, ...],
    activations: str,
    options: Mapping[str, object],
) -> onnx.ModelProto:
    load_onnxruntime()  # first, with its telemetry off
    calibrate = import_extra("onnxruntime.quantization.calibrate", "cpu")
    utilities = import_extra("onnxruntime.quantization.quant_utils", "cpu")
    quantizer = import_extra("onnxruntime.quantization.qdq_quantizer", "cpu")
    typed = onnx.shape_inference.infer_shapes(proto)  # a copy
    utilities.add_infer_metadata(typed)  # otherwise the quantizer writes the model to a file for this
    chosen = [node.name for node in proto.graph.node if is_quantised(node, operators) and node.name not in keep]
    if not chosen:
        return proto
    data = {
        name: calibrate.TensorData(lowest=np.float32(low), highest=np.float32(high))
        for name, (low, high) in ranges.items()
    }
    with _silenced_logging():
        qdq = quantizer.QDQQuantizer(
            typed,
            per_channel=True,
            reduce_range=False,
            weight_qType=utilities.QuantType.QInt8,
            activation_qType=utilities.QuantType[activations],
            tensors_range=calibrate.TensorsData(calibrate.CalibrationMethod.MinMax, data),
            nodes_to_quantize=chosen,
            nodes_to_exclude=[],
            op_types_to_quantize=list(operators),
            extra_options=dict(options),
        )
        qdq.quantize_model()
    graph: onnx.ModelProto = qdq.model.model
    del graph.metadata_props[:]
    graph.producer_name, graph.producer_version = proto.producer_name, proto.producer_version
    return sort_nodes(graph)


def is_quantised(node: onnx.NodeProto, operators: Collection[str] = CPU_OPERATORS) -> bool:
    """Whether a node is one of these operators in the backbone, or a temporal convolution."""
    is_temporal = node.name.startswith(HEAD) and node.op_type in TEMPORAL_OPERATORS
    return node.op_type in operators and (node.name.startswith(BACKBONE) or is_temporal)


def first_convolution(proto: onnx.ModelProto) -> str:
    """Name of the convolution that reads the pictures; empty if there is none."""
    return next((node.name for node in proto.graph.node if node.op_type == "Conv"), "")


@contextmanager
def _silenced_logging() -> Iterator[None]:
    """Suppress the quantizer's advice on the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
