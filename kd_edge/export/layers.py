"""Compare a graph in lower precision with the float32 graph, layer by layer on real frames."""

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
"""Upper limit for the runs compared; of more, this many are chosen evenly."""

MERGED = ("Relu", "Clip")
"""Activations that quantisers remove, because the range of the quantised value has the same effect."""


@dataclass(frozen=True, slots=True)
class LayerError:
    """Error of a node's output between two graphs.

    Attributes:
        name: Name of the node in the float32 graph.
        operator: ONNX operator of the node.
        error: Norm of the difference divided by the norm of the float32 value, over all runs; infinite if the other
            value is not finite.
        inherited: Largest such error of the node's inputs.
        largest: Largest absolute value of the output in the float32 graph.
    """

    name: str
    operator: str
    error: float
    inherited: float
    largest: float

    @property
    def added(self) -> float:
        """Increase of the error from the node's inputs to its output."""
        return 0.0 if self.error <= self.inherited else self.error - self.inherited


def layer_errors(
    exact: onnx.ModelProto, shipped: onnx.ModelProto, feeds: Sequence[Feed], *, most_feeds: int = MOST_FEEDS
) -> list[LayerError]:
    """Compute the errors of all nodes whose output both graphs have, in the order of the float32 graph.

    Both graphs run in ONNX Runtime without fusion, so that every value can be read: integer kernels are replaced by the
    arithmetic of the Q/DQ nodes. If a value is quantised, its dequantised value is compared, because that is what the
    next layer reads. If a quantiser has merged an activation into the preceding layer, that layer is compared after its
    activation. All values of one run in both graphs are in memory at once.

    Args:
        exact: The float32 graph; its nodes have names.
        shipped: The same graph in its precision, with the same tensor names.
        feeds: Runs with a batch axis of 1.
        most_feeds: Largest number of runs used.
    """
    compared_by = _compared_by(exact.graph, {name for node in shipped.graph.node for name in node.output})
    read_back = _dequantised(shipped.graph)
    pairs = {name: read_back.get(name, name) for name in compared_by.values()}
    exact_session, shipped_session = _open_exposed(exact, pairs), _open_exposed(shipped, pairs.values())
    sums = {name: _Sums() for name in pairs}
    for feed in evenly(feeds, most_feeds):
        expected = exact_session.run(list(pairs), feed)
        actual = shipped_session.run(list(pairs.values()), feed)
        for tensor_sums, x, y in zip(sums.values(), expected, actual, strict=True):
            tensor_sums.add(x, y)
    found = {name: sums[compared] for name, compared in compared_by.items() if sums[compared].is_number}
    return _list_errors(exact.graph, found)


def likeliest(layers: Iterable[LayerError]) -> list[str]:
    """Names of the nodes, largest added error first, as a hint for ``kd_edge.export.culprits``."""
    return [layer.name for layer in sorted(layers, key=lambda layer: -layer.added)]


class _Sums:
    """Running sums of one tensor over all runs, so that memory does not grow with their number."""

    def __init__(self) -> None:
        self.is_number, self.largest = False, 0.0
        self._differences, self._squares = 0.0, 0.0

    def add(self, exact: npt.NDArray[Any], shipped: npt.NDArray[Any]) -> None:
        if not np.issubdtype(exact.dtype, np.floating) or exact.shape != shipped.shape or not exact.size:
            return
        self.is_number = True
        wide = exact.astype(np.float64).ravel()
        with np.errstate(invalid="ignore"):  # infinity minus infinity
            difference = shipped.astype(np.float64).ravel() - wide
        self._squares += float(wide @ wide)
        self._differences += float(difference @ difference) if np.isfinite(difference).all() else float("inf")
        self.largest = max(self.largest, float(np.abs(wide).max()))

    @property
    def error(self) -> float:
        if self._differences == 0:
            return 0.0
        return float(np.sqrt(self._differences / self._squares)) if self._squares else float("inf")


def _compared_by(graph: onnx.GraphProto, available: set[str]) -> dict[str, str]:
    """Map the outputs of the float32 graph's nodes to the tensor of both graphs by which they are compared."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    compared_by = {}
    for name in (name for node in graph.node if node.op_type != "Constant" for name in node.output if name):
        reading = readers.get(name, [])
        is_merged = name not in available and len(reading) == 1 and reading[0].op_type in MERGED
        compared = reading[0].output[0] if is_merged else name
        if compared in available:
            compared_by[name] = compared
    return compared_by


def _dequantised(graph: onnx.GraphProto) -> dict[str, str]:
    """Map quantised tensors to their dequantised values."""
    quantised = {node.input[0]: node.output[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    read_back = {node.input[0]: node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    return {name: read_back[q] for name, q in quantised.items() if q in read_back}


def _open_exposed(proto: onnx.ModelProto, tensors: Iterable[str]) -> Any:
    """Create a session that also outputs inner tensors of the graph."""
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


def _list_errors(graph: onnx.GraphProto, sums: dict[str, _Sums]) -> list[LayerError]:
    layers: list[LayerError] = []
    error_of: dict[str, float] = {}
    for node in graph.node:
        inherited = max((error_of.get(name, 0.0) for name in node.input), default=0.0)
        compared = [sums[name] for name in node.output if name in sums]
        error = max((tensor_sums.error for tensor_sums in compared), default=inherited)
        error_of |= dict.fromkeys(node.output, error)
        if compared:
            largest = max(tensor_sums.largest for tensor_sums in compared)
            layers.append(LayerError(node.name, node.op_type, error, inherited, largest))
    return layers
