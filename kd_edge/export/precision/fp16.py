"""Half precision."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import numpy as np
import onnx
from onnx import numpy_helper

from kd_edge.engines.onnxruntime import load_onnxruntime
from kd_edge.export.precision.activations import Range
from kd_edge.packages import import_extra
from kd_edge.types import Float32

KEPT_IN_FLOAT32 = ["LayerNormalization", "InstanceNormalization", "Softmax", "LogSoftmax"]
"""Sums of exponentials and squares overflow half precision; today's students contain none of them."""

LARGEST = float(np.finfo(np.float16).max)
SMALLEST = float(np.finfo(np.float16).smallest_normal)
MARGIN = 2.0
"""How much further than on training frames a value may reach on others."""
MOST_WEIGHT_ERROR = 1e-3
"""Norm of the rounding errors of a tensor of weights by the norm of the weights; 2e-4 where all are normal numbers."""


def to_half(proto: onnx.ModelProto, keep: Collection[str] = ()) -> onnx.ModelProto:
    """Store weights and compute in half precision, with casts behind the inputs and before the outputs.

    CPUs run it at float32 speed: ONNX Runtime widens it at load. Source of the conversion: onnxruntime's own
    ``transformers.float16`` (docs/adr/004-fp16.md says why).

    Args:
        proto: A float32 graph; not changed.
        keep: Names of nodes that stay in float32; what they hand to one another stays so too.
    """
    load_onnxruntime()  # first, with its telemetry off
    float16 = import_extra("onnxruntime.transformers.float16", "cpu")
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    blocked = [*float16.DEFAULT_OP_BLOCK_LIST, *KEPT_IN_FLOAT32]
    half: onnx.ModelProto = float16.convert_float_to_float16(
        copy, keep_io_types=True, op_block_list=blocked, node_block_list=list(keep)
    )
    _stay_wide(half.graph)
    return tidied(half)


def tidied(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Sort the nodes of a graph in place: converters append theirs, ONNX wants each behind those it reads from."""
    onnx_model = import_extra("onnxruntime.transformers.onnx_model", "cpu")
    onnx_model.OnnxModel.graph_topological_sort(proto.graph, is_deterministic=True)
    del proto.graph.value_info[:]  # the types of before; every engine infers its own
    onnx.checker.check_model(proto)
    return proto


def _stay_wide(graph: onnx.GraphProto) -> None:
    """Take out every cast to half precision and straight back: 70,000 would come back as infinity."""
    casts = {node.output[0]: node for node in graph.node if node.op_type == "Cast"}
    outputs = {value.name for value in graph.output}
    inputs = {value.name for value in graph.input}
    for node in list(graph.node):
        narrow = casts.get(node.input[0]) if node.op_type == "Cast" else None
        if narrow is None or (_type(narrow), _type(node)) != (onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT):
            continue
        wide, back = narrow.input[0], node.output[0]
        if back not in outputs:
            _rename(graph, back, wide)
        elif wide not in inputs | outputs:
            _rename(graph, wide, back)
        else:
            continue
        graph.node.remove(node)
    read = {name for node in graph.node for name in node.input} | outputs
    for node in casts.values():
        if node.output[0] not in read and node in graph.node:
            graph.node.remove(node)


def _type(cast: onnx.NodeProto) -> int:
    return int(next(attribute.i for attribute in cast.attribute if attribute.name == "to"))


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Call a tensor by another name, where it is computed and where it is read."""
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [new if name == old else name for name in names]


def unfit_for_half(proto: onnx.ModelProto, extremes: Mapping[str, Range]) -> dict[str, str]:
    """Nodes that half precision cannot compute, by name: why.

    Args:
        proto: A float32 graph.
        extremes: What its tensors reach on real frames.
    """
    weights = {initializer.name: initializer for initializer in proto.graph.initializer}
    reaches = {name: max(-low, high) for name, (low, high) in extremes.items()}
    faults = ((node.name, [*_range_faults(node, reaches), *_weight_faults(node, weights)]) for node in proto.graph.node)
    return {name: reasons[0] for name, reasons in faults if reasons}


def _range_faults(node: onnx.NodeProto, reaches: Mapping[str, float]) -> Iterator[str]:
    seen = [reaches[name] for name in (*node.input, *node.output) if name in reaches]
    if max(seen, default=0.0) > LARGEST / MARGIN:
        yield f"reaches {max(seen):.3g} on training frames, half precision ends at {LARGEST:.3g}"
    if any(0 < reach < SMALLEST for reach in seen):
        smallest = min(reach for reach in seen if reach > 0)
        yield f"stays below {smallest:.3g} on training frames, half precision loses digits below {SMALLEST:.3g}"


def _weight_faults(node: onnx.NodeProto, weights: Mapping[str, onnx.TensorProto]) -> Iterator[str]:
    for name in node.input:
        if name not in weights or weights[name].data_type != onnx.TensorProto.FLOAT:
            continue
        values: Float32 = numpy_helper.to_array(weights[name])
        largest, norm = float(np.abs(values).max(initial=0.0)), float(np.linalg.norm(values))
        if largest > LARGEST:
            yield f"has weights of {largest:.3g}, half precision ends at {LARGEST:.3g}"
        elif np.linalg.norm(values - values.astype(np.float16)) > MOST_WEIGHT_ERROR * norm:
            yield f"has weights of at most {largest:.3g}, half precision loses digits below {SMALLEST:.3g}"
