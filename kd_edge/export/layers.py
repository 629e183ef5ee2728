"""How far a graph in its precision is from the float32 one, layer by layer on real frames."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from kd_edge.engines.onnxruntime import load_onnxruntime
from kd_edge.export.ranges import Feed
from kd_edge.export.recordings import evenly

MOST_FEEDS = 8
"""Runs that are compared; of more, these many are taken evenly spread."""

MERGED = ("Relu", "Clip")
"""Activations that quantisers let vanish: the range of the quantised value does their work."""


@dataclass(frozen=True, slots=True)
class LayerError:
    """What a node writes in two graphs.

    Attributes:
        name: Of the node of the float32 graph.
        operator: What it does.
        error: Norm of the difference by the norm of the float32 value, over all runs; infinite where the other value is
            not finite.
        inherited: The largest such error of what the node reads.
        largest: Largest absolute value in the float32 graph.
    """

    name: str
    operator: str
    error: float
    inherited: float
    largest: float

    @property
    def added(self) -> float:
        """How much larger the error leaves the node than it came."""
        return 0.0 if self.error <= self.inherited else self.error - self.inherited


def layer_errors(
    exact: onnx.ModelProto, shipped: onnx.ModelProto, feeds: Sequence[Feed], *, most_feeds: int = MOST_FEEDS
) -> list[LayerError]:
    """Errors of all nodes whose output both graphs have, in the order of the float32 graph.

    Both graphs run in ONNX Runtime as they are written, without fusion, so that every value can be looked at: integer
    kernels are replaced by the arithmetic that the Q/DQ nodes stand for. Where a graph quantises a value, the
    dequantised one is compared, for it is what the next layer reads; where a quantiser has merged an activation into
    the layer before, that layer is judged behind its activation. What one run writes in both graphs is held at once.

    Args:
        exact: The float32 graph; its nodes have names.
        shipped: The same in its precision, with the same tensor names.
        feeds: Runs with a batch axis of 1.
        most_feeds: How many of them are taken at most.
    """
    judged_by = _judged_by(exact.graph, {name for node in shipped.graph.node for name in node.output})
    read_back = _dequantised(shipped.graph)
    pairs = {name: read_back.get(name, name) for name in judged_by.values()}
    exact_session, shipped_session = _exposing(exact, pairs), _exposing(shipped, pairs.values())
    sums = {name: _Sums() for name in pairs}
    for feed in evenly(feeds, most_feeds):
        expected = exact_session.run(list(pairs), feed)
        given = shipped_session.run(list(pairs.values()), feed)
        for own, x, y in zip(sums.values(), expected, given, strict=True):
            own.add(x, y)
    found = {name: sums[judge] for name, judge in judged_by.items() if sums[judge].is_number}
    return _in_order(exact.graph, found)


def likeliest(layers: Iterable[LayerError]) -> list[str]:
    """Names of the nodes, the one that adds most error first: whom ``kd_edge.export.culprits`` should suspect."""
    return [layer.name for layer in sorted(layers, key=lambda layer: -layer.added)]


class _Sums:
    """Of one tensor over all runs: memory does not grow with their number."""

    def __init__(self) -> None:
        self.is_number, self.largest = False, 0.0
        self._differences, self._squares = 0.0, 0.0

    def add(self, exact: npt.NDArray[Any], shipped: npt.NDArray[Any]) -> None:
        if not np.issubdtype(exact.dtype, np.floating) or exact.shape != shipped.shape or not exact.size:
            return
        self.is_number = True
        wide = exact.astype(np.float64).ravel()
        with np.errstate(invalid="ignore"):  # infinity less infinity
            difference = shipped.astype(np.float64).ravel() - wide
        self._squares += float(wide @ wide)
        self._differences += float(difference @ difference) if np.isfinite(difference).all() else float("inf")
        self.largest = max(self.largest, float(np.abs(wide).max()))

    @property
    def error(self) -> float:
        if self._differences == 0:
            return 0.0
        return float(np.sqrt(self._differences / self._squares)) if self._squares else float("inf")


def _judged_by(graph: onnx.GraphProto, there: set[str]) -> dict[str, str]:
    """What nodes of the float32 graph write, and by which tensor, that the other graph has too, it is judged."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    judges = {}
    for name in (name for node in graph.node if node.op_type != "Constant" for name in node.output if name):
        reading = readers.get(name, [])
        is_merged = name not in there and len(reading) == 1 and reading[0].op_type in MERGED
        judge = reading[0].output[0] if is_merged else name
        if judge in there:
            judges[name] = judge
    return judges


def _dequantised(graph: onnx.GraphProto) -> dict[str, str]:
    """Tensors that are quantised, and what comes of them when they are read back."""
    quantised = {node.input[0]: node.output[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    read_back = {node.input[0]: node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    return {name: read_back[q] for name, q in quantised.items() if q in read_back}


def _exposing(proto: onnx.ModelProto, tensors: Iterable[str]) -> Any:
    """A session that also gives out what lies inside the graph."""
    open_graph = onnx.ModelProto()
    open_graph.CopyFrom(proto)
    outputs = {value.name for value in open_graph.graph.output}
    open_graph.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors if name not in outputs)
    ort = load_onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    return ort.InferenceSession(open_graph.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _in_order(graph: onnx.GraphProto, sums: dict[str, _Sums]) -> list[LayerError]:
    layers: list[LayerError] = []
    error_of: dict[str, float] = {}
    for node in graph.node:
        inherited = max((error_of.get(name, 0.0) for name in node.input), default=0.0)
        compared = [sums[name] for name in node.output if name in sums]
        error = max((own.error for own in compared), default=inherited)
        error_of |= dict.fromkeys(node.output, error)
        if compared:
            largest = max(own.largest for own in compared)
            layers.append(LayerError(node.name, node.op_type, error, inherited, largest))
    return layers
