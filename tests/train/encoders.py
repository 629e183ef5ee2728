"""Small image encoders as ONNX files, written node by node."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Sizes = Sequence[int | str]


def write_encoder(
    file: Path,
    *,
    channels: int = 3,
    size: int | str = 32,
    batch: int | str = "batch",
    grid: int = 2,
    output: str = "embedding",
    kind: int = TensorProto.FLOAT,
    **save: Any,
) -> Path:
    """An encoder whose embedding is the mean of each channel on a grid: (B, channels * grid^2).

    ``output`` is ``embedding``, ``tokens`` (B, grid^2, channels), ``maps`` (B, channels, grid, grid), or ``all``.
    """
    side = int(size) // grid if isinstance(size, int) else 32 // grid
    nodes = [
        helper.make_node("AveragePool", ["images"], ["maps"], kernel_shape=[side, side], strides=[side, side]),
        helper.make_node("Flatten", ["maps"], ["embedding"], axis=1),
        helper.make_node("Reshape", ["maps", "flat"], ["by_channel"]),
        helper.make_node("Transpose", ["by_channel"], ["tokens"], perm=[0, 2, 1]),
    ]
    shapes: dict[str, Sizes] = {
        "maps": (batch, channels, grid, grid),
        "embedding": (batch, channels * grid**2),
        "tokens": (batch, grid**2, channels),
    }
    taken = list(shapes) if output == "all" else [output]
    graph = helper.make_graph(
        nodes,
        "encoder",
        [helper.make_tensor_value_info("images", kind, [batch, channels, size, size])],
        [helper.make_tensor_value_info(name, kind, shapes[name]) for name in taken],
        [numpy_helper.from_array(np.array([0, channels, -1], np.int64), "flat")],
    )
    return save_graph(file, graph, **save)


def save_graph(file: Path, graph: onnx.GraphProto, **save: Any) -> Path:
    """A graph as a file."""
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, file, **save)
    return file


def one_node(
    file: Path,
    operator: str,
    inputs: dict[str, Sizes],
    output: Sizes,
    constants: dict[str, Any] | None = None,
    save: dict[str, Any] | None = None,
    kind: int = TensorProto.FLOAT,
    **attributes: Any,
) -> Path:
    """A graph of one node, which takes its inputs and constants in their order."""
    stored = {name: np.asarray(value) for name, value in (constants or {}).items()}
    graph = helper.make_graph(
        [helper.make_node(operator, [*inputs, *stored], ["out"], **attributes)],
        "one",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info("out", kind, output)],
        [numpy_helper.from_array(value, name) for name, value in stored.items()],
    )
    return save_graph(file, graph, **(save or {}))
