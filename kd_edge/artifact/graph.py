"""Check an artifact's ONNX graph before an engine reads it: it must be a network of the kind that export writes.

The hashes only detect damage: in an unsigned file, anyone can write any content with matching hashes.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal

from kd_edge.artifact.wire import BYTES, FIXED, VARINT, Field, damaged, read_varint, walk
from kd_edge.errors import ArtifactError, printable

MOST_FIELDS = 200_000
"""Upper limit for the protobuf fields of a graph: no network has more, and checking them would take long."""
OPERATORS = {
    *("Conv", "Gemm", "MatMul", "BatchNormalization"),
    *("Abs", "Exp", "Log", "Neg", "Sign", "Sqrt", "Tanh"),
    *("Add", "Sub", "Mul", "Div", "Relu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Softmax"),
    *("AveragePool", "MaxPool", "GlobalAveragePool", "ReduceMax", "ReduceMean", "ReduceSum"),
    *(
        "Concat",
        "Flatten",
        "Gather",
        "GatherND",
        "Pad",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    ),
    *("Cast", "Constant", "DequantizeLinear", "Identity", "QuantizeLinear", "Unsqueeze"),
}
"""The operators that exports use, and others whose outputs are no larger; none can turn a number into a huge tensor."""
MOST_INTEGER, MOST_PADDING = 65_536, 64
"""Largest allowed integer in an attribute (groups, kernels, axes), and largest allowed padding."""

_Message = Literal["Model", "Graph", "Node", "Attribute", "Tensor"]
_INNER: dict[tuple[_Message, int], _Message] = {
    ("Model", 7): "Graph",
    ("Graph", 1): "Node",
    ("Graph", 5): "Tensor",
    ("Node", 5): "Attribute",
    ("Attribute", 5): "Tensor",
    ("Attribute", 10): "Tensor",
}
"""Type of the inner message by outer message and field number, for all fields that can contain nodes or tensors."""
_FOREIGN: dict[tuple[_Message, int], str] = {
    ("Model", 20): "carries a training graph",
    ("Model", 25): "carries functions of its own",
    ("Graph", 15): "has sparse tensors",
    ("Attribute", 6): "has a graph inside a node",
    ("Attribute", 11): "has graphs inside a node",
    ("Attribute", 22): "has sparse tensors",
    ("Attribute", 23): "has sparse tensors",
}
_INPUT, _OP_TYPE, _DOMAIN = 1, 4, 7  # fields of onnx.NodeProto
_ATTRIBUTE_NAME, _INTEGER, _INTEGERS = 1, 3, 8  # fields of onnx.AttributeProto
_DIMENSION, _TYPE, _NAME, _RAW, _EXTERNAL, _LOCATION = 1, 2, 8, 9, 13, 14  # fields of onnx.TensorProto
_INT64 = 7  # both TensorProto.DataType.INT64 and the field number of int64_data
_CONTENTS = (4, 5, 6, 7, 9, 10, 11)
_PER_BYTE = 2
"""Most elements per byte, reached by 4-bit integers."""
_ENDLESS = 1 << 63
_NAME_BYTES = 100
_DIMENSIONS_BYTES = _SHORT_BYTES = 200


class _RefusedError(Exception):
    """A readable graph is refused; the message completes a sentence that begins with the file's name."""


def check_graph(file: BinaryIO, end: int, path: Path) -> None:
    """Refuse a graph that contains anything an exported network does not need.

    Refused are tensors outside the file (no hash covers them, and they may be any file on the machine), operators that
    no export writes, functions, training graphs, graphs inside nodes, tensors with more elements than their bytes
    can store, and kernels and paddings of absurd size.

    Args:
        file: The file.
        end: Position at which the manifest begins.
        path: Path of the file, for error messages.

    Raises:
        ArtifactError: The graph is refused or unreadable.
    """
    try:
        inspection = _Inspection(file)
        inspection.check("Model", 0, end)
        inspection.check_paddings()
    except _RefusedError as error:
        raise ArtifactError(f"{path} {error}", "a network as kd-edge export writes it", "export it again") from error
    except ValueError as error:
        raise damaged(path, f"its graph is unreadable: {error}") from error


class _Inspection:
    """Checks the graph's messages without keeping their contents in memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._fields_left = MOST_FIELDS
        self._paddings: set[str] = set()  # names of the tensors that hold the padding of Pad nodes
        self._largest: dict[str, int] = {}  # largest absolute value of each short int64 tensor, by name

    def check(self, message: _Message, start: int, end: int) -> None:
        """Check a message and the messages inside it, nested at most five deep."""
        for field in self._walk(start, end):
            if (fault := _FOREIGN.get((message, field.number))) is not None:
                raise _RefusedError(fault)
            begin = self._file.tell()
            if field.wire != BYTES or (inner := _INNER.get((message, field.number))) is None:
                continue
            if inner == "Tensor":
                self._check_tensor(begin, begin + field.value, is_stored=message == "Graph")
                continue
            if inner == "Node":
                self._check_node(begin, begin + field.value)
            elif inner == "Attribute":
                self._check_attribute(begin, begin + field.value)
            self.check(inner, begin, begin + field.value)

    def _walk(self, start: int, end: int) -> Iterator[Field]:
        for field in walk(self._file, start, end):
            self._fields_left -= 1
            if self._fields_left < 0:
                raise ValueError(f"more than {MOST_FIELDS:,} fields")
            yield field

    def check_paddings(self) -> None:
        """Check, after the whole graph was read, that every Pad node pads by a stored tensor of small integers."""
        for name in self._paddings:
            if self._largest.get(name, _ENDLESS) > MOST_PADDING:
                raise _RefusedError(f"pads by '{printable(name)}', which is not a short list of small numbers")

    def _check_node(self, start: int, end: int) -> None:
        inputs: list[str] = []
        operator = ""
        for field in self._walk(start, end):
            if field.number not in (_INPUT, _OP_TYPE, _DOMAIN) or field.wire != BYTES:
                continue
            name = self._file.read(min(field.value, _NAME_BYTES)).decode(errors="replace")
            if field.number == _INPUT and len(inputs) < 2:
                inputs.append(name)
            elif field.number == _DOMAIN and name not in ("", "ai.onnx"):
                raise _RefusedError(f"has an operator of the domain '{printable(name)}'")
            elif field.number == _OP_TYPE:
                operator = name
        if operator not in OPERATORS:
            raise _RefusedError(f"has an operator '{printable(operator)}'")
        if operator == "Pad":
            self._paddings.add(inputs[1] if len(inputs) > 1 else "")

    def _check_tensor(self, start: int, end: int, *, is_stored: bool) -> None:
        """Check that a tensor's elements fit into its bytes and that all of them are in the file."""
        elements, content, kind, name = 1, 0, 0, ""
        values: list[int] = []
        for field in self._walk(start, end):
            if field.number == _EXTERNAL or (field.number == _LOCATION and field.value):
                raise _RefusedError("keeps a tensor in another file")
            if field.number == _DIMENSION:
                elements = min(elements * self._product(field), _ENDLESS)
            elif field.number == _TYPE:
                kind = field.value
            elif field.number == _NAME and field.wire == BYTES:
                name = self._file.read(min(field.value, _NAME_BYTES)).decode(errors="replace")
            elif field.number in _CONTENTS:
                content += field.value if field.wire == BYTES else FIXED.get(field.wire, 1)
                if field.number in (_INT64, _RAW) and content <= _SHORT_BYTES:
                    values += self._values(field)
        if elements > _PER_BYTE * content:
            raise _RefusedError(f"has a tensor of {elements:,} elements in {content:,} bytes")
        if is_stored and kind == _INT64 and content <= _SHORT_BYTES:
            largest = max((abs(_signed(value)) for value in values), default=0)
            # A name that occurs twice is ambiguous, so neither tensor is accepted as a padding.
            self._largest[name] = largest if name not in self._largest else _ENDLESS

    def _values(self, field: Field) -> list[int]:
        if field.number != _RAW or field.wire != BYTES:
            return self._integers(field)
        raw = self._file.read(field.value)
        return [int.from_bytes(raw[at : at + 8], "little") for at in range(0, len(raw), 8)]

    def _check_attribute(self, start: int, end: int) -> None:
        """Check that integers are small; the limit is lowest for ``pads``, as the image size is not in the file."""
        name, values = "", list[int]()
        for field in self._walk(start, end):
            if field.number == _ATTRIBUTE_NAME and field.wire == BYTES:
                name = self._file.read(min(field.value, _NAME_BYTES)).decode(errors="replace")
            elif field.number in (_INTEGER, _INTEGERS):
                values += self._integers(field)
        most = MOST_PADDING if name == "pads" else MOST_INTEGER
        for value in map(_signed, values):
            if abs(value) > most:
                raise _RefusedError(f"has an attribute {printable(name)} of {value:,}")

    def _product(self, field: Field) -> int:
        product = 1
        for value in self._integers(field):
            product = min(product * value, _ENDLESS)  # a negative value, read as unsigned, is very large
        return product

    def _integers(self, field: Field) -> list[int]:
        """Return the integers of a repeated field, which may be packed."""
        if field.wire == VARINT:
            return [field.value]
        if field.wire != BYTES or field.value > _DIMENSIONS_BYTES:
            raise ValueError(f"{field.value:,} bytes of dimensions")
        return _varints(self._file.read(field.value))


def _varints(content: bytes) -> list[int]:
    stream, values = io.BytesIO(content), []
    while stream.tell() < len(content):
        values.append(read_varint(stream)[0])
    return values


def _signed(value: int) -> int:
    """Interpret an unsigned 64-bit integer as two's complement."""
    return value - (1 << 64) if value >> 63 else value
