"""Convert a graph to half precision."""

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
"""Operators whose sums of exponentials or squares overflow half precision; current students contain none of them."""

LARGEST = float(np.finfo(np.float16).max)
SMALLEST = float(np.finfo(np.float16).smallest_normal)
MARGIN = 2.0
"""Factor by which values on other frames may exceed those on training frames."""
MOST_WEIGHT_ERROR = 1e-3
"""Largest relative rounding error of a weight tensor (ratio of norms); it is 2e-4 if all weights are normal numbers."""


def to_half(proto: onnx.ModelProto, keep: Collection[str] = ()) -> onnx.ModelProto:
    """Store weights and compute in half precision, with casts after the inputs and before the outputs.

    CPUs run the result at float32 speed, because ONNX Runtime widens it at load time. The conversion is onnxruntime's
    ``transformers.float16`` (see docs/adr/004-fp16.md for the reasons).

    Args:
        proto: A float32 graph; not changed.
        keep: Names of nodes that stay in float32; tensors between two of them stay in float32, too.
    """
    load_onnxruntime()  # must be imported first, with telemetry disabled
    float16 = import_extra("onnxruntime.transformers.float16", "cpu")
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    blocked = [*float16.DEFAULT_OP_BLOCK_LIST, *KEPT_IN_FLOAT32]
    half: onnx.ModelProto = float16.convert_float_to_float16(
        copy, keep_io_types=True, op_block_list=blocked, node_block_list=list(keep)
    )
    _remove_round_trips(half.graph)
    return sort_nodes(half)


def sort_nodes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Sort the nodes of a graph topologically in place, as ONNX requires: converters append their nodes at the end."""
    onnx_model = import_extra("onnxruntime.transformers.onnx_model", "cpu")
    onnx_model.OnnxModel.graph_topological_sort(proto.graph, is_deterministic=True)
    del proto.graph.value_info[:]  # outdated types; every engine infers its own
    onnx.checker.check_model(proto)
    return proto


def _remove_round_trips(graph: onnx.GraphProto) -> None:
    """Remove every pair of casts to half precision and back, which would turn 70,000 into infinity."""
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
    """Rename a tensor in all nodes that compute or read it."""
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [new if name == old else name for name in names]


def unfit_for_half(proto: onnx.ModelProto, extremes: Mapping[str, Range]) -> dict[str, str]:
    """Return the nodes that half precision cannot compute, with the reason for each, by name.

    Args:
        proto: A float32 graph.
        extremes: Smallest and largest values of its tensors on real frames.
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
