"""Half precision."""

from __future__ import annotations

import onnx

from kd_edge.engines.onnxruntime import load_onnxruntime
from kd_edge.errors import import_extra

KEPT_IN_FLOAT32 = ["LayerNormalization", "InstanceNormalization", "Softmax", "LogSoftmax"]
"""Sums of exponentials and squares overflow half precision; today's students contain none of them."""


def to_half(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Store weights and compute in half precision, with casts behind the inputs and before the outputs.

    CPUs run it at float32 speed: ONNX Runtime widens it at load. Source of the conversion: onnxruntime's own
    ``transformers.float16`` (docs/adr/004-fp16.md says why).

    Args:
        proto: A float32 graph; not changed.
    """
    load_onnxruntime()  # first, with its telemetry off
    float16 = import_extra("onnxruntime.transformers.float16", "cpu")
    onnx_model = import_extra("onnxruntime.transformers.onnx_model", "cpu")
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    blocked = [*float16.DEFAULT_OP_BLOCK_LIST, *KEPT_IN_FLOAT32]
    half: onnx.ModelProto = float16.convert_float_to_float16(copy, keep_io_types=True, op_block_list=blocked)
    # The converter appends its casts at the end; ONNX wants every node behind those it reads from.
    onnx_model.OnnxModel.graph_topological_sort(half.graph, is_deterministic=True)
    del half.graph.value_info[:]  # the types of before; every engine infers its own
    onnx.checker.check_model(half)
    return half
