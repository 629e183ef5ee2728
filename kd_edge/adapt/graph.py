"""Append the row of a class to a serialised streaming step, without onnx; existing nodes are not changed.

The nodes that compute the logits stay bit-identical; only their output is renamed. New nodes compute the new class's
logit from the graph's own ``past`` and ``feature`` (see ``kd_edge.adapt.gate.gated``), in float32 whatever the
precision of the graph, and append it to the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from kd_edge.adapt.gate import Gate
from kd_edge.artifact import GOLDEN_KEY, Artifact, Manifest
from kd_edge.artifact.wire import (
    ATTACHMENT,
    GRAPH,
    METADATA_PROPS,
    Part,
    bytes_field,
    damaged,
    number_field,
    parts,
)
from kd_edge.errors import ArtifactError
from kd_edge.types import Float32, Int64

LEAST_OPSET = 18
"""The first operator set in which reductions take their axes as an input."""
_OPSET_IMPORT = 8  # field numbers of onnx.ModelProto,
_DOMAIN, _VERSION = 1, 2  # OperatorSetIdProto,
_NODE, _INITIALIZER, _OUTPUT = 1, 5, 12  # GraphProto,
_READS, _WRITES, _NODE_NAME, _OPERATOR, _ATTRIBUTE = 1, 2, 3, 4, 5  # NodeProto,
_ATTRIBUTE_NAME, _INTEGER, _KIND, _IS_INTEGER = 1, 3, 20, 2  # AttributeProto,
_DIMENSION, _TYPE, _TENSOR_NAME, _RAW = 1, 2, 8, 9  # TensorProto,
_VALUE_NAME, _VALUE_TYPE, _TENSOR_TYPE, _ELEMENT, _SHAPE, _AXIS, _LENGTH = 1, 2, 1, 1, 2, 1, 1  # ValueInfoProto
_FLOAT, _INT64 = 1, 7  # of TensorProto.DataType
_LOGITS = b"logits"


def graph_of(artifact: Artifact) -> bytes:
    """Return the graph of an artifact without golden clip and attachments, as ``kd_edge.artifact.write`` accepts it.

    Raises:
        ArtifactError: The file has changed since it was loaded, or its operator set is too old.
    """
    content = artifact.content()[: artifact.hashed_bytes]
    try:
        fields = [part for part in parts(content) if not _is_left_out(part)]
        _check_opset(artifact, fields)
    except ValueError as error:
        raise damaged(artifact.path, f"its graph is unreadable: {error}") from error
    return b"".join(part.whole for part in fields)


def with_class(graph: bytes, gate: Gate, manifest: Manifest) -> bytes:
    """Return a graph with one more class.

    Args:
        graph: A serialised ONNX ModelProto, a streaming step.
        gate: The row of the class.
        manifest: Manifest of the graph.

    Raises:
        ValueError: The graph does not have the structure that export writes.
    """
    fields = parts(graph)
    if [part.number for part in fields].count(GRAPH) != 1:
        raise ValueError("the file does not have exactly one graph")
    return b"".join(
        bytes_field(GRAPH, _extended(_payload(part), gate, manifest)) if part.number == GRAPH else part.whole
        for part in fields
    )


def _is_left_out(part: Part) -> bool:
    """Whether a field is rewritten by ``kd_edge.artifact.write`` or belongs to the old graph only."""
    if part.number == METADATA_PROPS:
        key = next((inner.payload for inner in parts(_payload(part)) if inner.number == 1), b"")
        return key == GOLDEN_KEY.encode()
    return part.number == ATTACHMENT


def _check_opset(artifact: Artifact, fields: Iterable[Part]) -> None:
    for part in fields:
        if part.number != _OPSET_IMPORT:
            continue
        entries = {inner.number: inner for inner in parts(_payload(part))}
        is_onnx = _DOMAIN not in entries or entries[_DOMAIN].payload in (b"", b"ai.onnx")
        version = entries[_VERSION].whole[1:] if _VERSION in entries else b"\0"
        if is_onnx and version[0] < LEAST_OPSET:
            raise ArtifactError(
                f"{artifact.path} is of operator set {version[0]}",
                f"{LEAST_OPSET} or later",
                "export the run again, with opset = 20 in the profile",
            )


def _extended(message: bytes, gate: Gate, manifest: Manifest) -> bytes:
    count = len(manifest.labels)
    before = f"logits_of_{count}"
    row = _row(gate, before, manifest.segments, count, manifest.temperature)
    written: list[bytes] = []
    renamed = 0
    for part in parts(message):
        if part.number == _NODE:
            node, times = _renamed(_payload(part), before.encode())
            renamed += times
            written.append(bytes_field(_NODE, node) if times else part.whole)
        elif part.number == _OUTPUT and _inner(_payload(part), _VALUE_NAME) == _LOGITS:
            written.append(bytes_field(_OUTPUT, _wider(_payload(part), count + 1)))
        else:
            written.append(part.whole)
    if renamed != 1:
        raise ValueError(f"{renamed} nodes write its logits")
    nodes = (bytes_field(_NODE, node) for node in row.nodes)
    tensors = (bytes_field(_INITIALIZER, tensor) for tensor in row.tensors)
    return b"".join((*written, *nodes, *tensors))


def _renamed(node: bytes, name: bytes) -> tuple[bytes, int]:
    """The node with its output ``logits`` renamed, and the number of renamed outputs."""
    fields = parts(node)
    if any(part.number == _READS and part.payload == _LOGITS for part in fields):
        raise ValueError("a node reads its logits")
    is_logits = [part.number == _WRITES and part.payload == _LOGITS for part in fields]
    pieces = [bytes_field(_WRITES, name) if hit else part.whole for part, hit in zip(fields, is_logits, strict=True)]
    return b"".join(pieces), sum(is_logits)


def _wider(value: bytes, count: int) -> bytes:
    """The value info of the logits with another length; the batch axis is kept."""
    shape = _inner(_inner(_inner(value, _VALUE_TYPE), _TENSOR_TYPE), _SHAPE)
    shape = bytes_field(_AXIS, _inner(shape, _AXIS)) + bytes_field(_AXIS, number_field(_LENGTH, count))
    tensor = number_field(_ELEMENT, _FLOAT) + bytes_field(_SHAPE, shape)
    return bytes_field(_VALUE_NAME, _LOGITS) + bytes_field(_VALUE_TYPE, bytes_field(_TENSOR_TYPE, tensor))


class _Row(NamedTuple):
    """Serialised nodes in topological order, and their constants."""

    nodes: list[bytes]
    tensors: list[bytes]


def _row(gate: Gate, before: str, segments: int, count: int, temperature: float) -> _Row:
    """``logits = [before, t (w window + b) + t log sum exp(before / t)]``, where the window's mean is its sum / T."""
    prefix = f"added.{count}"
    weights = (gate.weights.astype(np.float64) * (temperature / segments)).astype(np.float32)
    constants: dict[str, Float32 | Int64] = {
        "weights": weights[None],  # (1, D)
        "bias": np.array([temperature * gate.bias], dtype=np.float32),
        "axis": np.array([1], dtype=np.int64),
        "by_temperature": np.array(1 / temperature, dtype=np.float32),
        "temperature": np.array(temperature, dtype=np.float32),
    }
    nodes: list[bytes] = []

    def add(operator: str, reads: Sequence[str], writes: str, **attributes: int) -> str:
        own = [f"{prefix}.{name}" if name in constants else name for name in reads]
        name = writes if writes == "logits" else f"{prefix}.{writes}"
        nodes.append(_node(f"{prefix}.{writes}/{operator}", operator, own, name, attributes))
        return name

    window = "feature"
    if segments > 1:  # otherwise there is no past to sum
        older = add("ReduceSum", ["past", "axis"], "older", keepdims=0)  # (B, T-1, D) -> (B, D)
        window = add("Add", [older, "feature"], "window")
    own = add("Gemm", [window, "weights", "bias"], "own", transB=1)  # (B, 1)
    most = add("ReduceMax", [before, "axis"], "most", keepdims=1)  # (B, 1): no exponential overflows
    below = add("Sub", [before, most], "below")
    odds = add("Exp", [add("Mul", [below, "by_temperature"], "scaled")], "odds")
    total = add("Log", [add("ReduceSum", [odds, "axis"], "sum", keepdims=1)], "log")
    others = add("Add", [most, add("Mul", [total, "temperature"], "above")], "others")
    logit = add("Add", [others, own], "logit")
    add("Concat", [before, logit], "logits", axis=1)
    return _Row(nodes, [_tensor(f"{prefix}.{name}", values) for name, values in constants.items()])


def _node(name: str, operator: str, reads: Sequence[str], writes: str, attributes: dict[str, int]) -> bytes:
    pieces = [bytes_field(_READS, each.encode()) for each in reads]
    pieces += [bytes_field(_WRITES, writes.encode()), bytes_field(_NODE_NAME, name.encode())]
    pieces.append(bytes_field(_OPERATOR, operator.encode()))
    for key, value in attributes.items():
        attribute = bytes_field(_ATTRIBUTE_NAME, key.encode()) + number_field(_INTEGER, value)
        pieces.append(bytes_field(_ATTRIBUTE, attribute + number_field(_KIND, _IS_INTEGER)))
    return b"".join(pieces)


def _tensor(name: str, values: Float32 | Int64) -> bytes:
    kind, raw = (_INT64, values.astype("<i8")) if values.dtype == np.int64 else (_FLOAT, values.astype("<f4"))
    pieces = [number_field(_DIMENSION, length) for length in values.shape]
    pieces += [number_field(_TYPE, kind), bytes_field(_TENSOR_NAME, name.encode()), bytes_field(_RAW, raw.tobytes())]
    return b"".join(pieces)


def _inner(message: bytes, number: int) -> bytes:
    """The message or text in the first field with a number."""
    found = next((part.payload for part in parts(message) if part.number == number), None)
    if found is None:
        raise ValueError(f"no field {number}")
    return found


def _payload(part: Part) -> bytes:
    if part.payload is None:
        raise ValueError(f"field {part.number} is not a message")
    return part.payload
