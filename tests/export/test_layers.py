from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat
from onnxruntime.quantization import quantize_static as quantise_static

from kd_edge.export.layers import LayerError, layer_errors, likeliest
from kd_edge.export.onnx import to_onnx
from kd_edge.export.precision.fp16 import to_half
from kd_edge.export.ranges import Feed
from kd_edge.models.saved import SavedStudent

WEIGHTED = {"Conv", "Gemm"}


@pytest.fixture(scope="module")
def step(run: Path) -> onnx.ModelProto:
    return to_onnx(SavedStudent.load(run).model, in_channels=3, input_px=32)


@pytest.fixture(scope="module")
def feeds() -> list[Feed]:
    generator = np.random.default_rng(0)
    shapes = {"frame": (1, 3, 32, 32), "past": (1, 7, 24)}
    return [{n: generator.normal(size=s).astype(np.float32) for n, s in shapes.items()} for _ in range(3)]


def test_a_graph_has_no_error_against_itself(step: onnx.ModelProto, feeds: list[Feed]) -> None:
    layers = layer_errors(step, step, feeds)
    assert [layer.error for layer in layers] == [0.0] * len(layers)
    found = {layer.name for layer in layers}
    assert [layer.name for layer in layers] == [node.name for node in step.graph.node if node.name in found]
    assert {node.op_type for node in step.graph.node} >= WEIGHTED
    assert {node.name for node in step.graph.node if node.op_type in WEIGHTED} <= found
    assert all(layer.largest > 0 for layer in layers)


def test_half_precision_is_a_little_wrong_everywhere(step: onnx.ModelProto, feeds: list[Feed]) -> None:
    layers = layer_errors(step, to_half(step), feeds)
    weighted = [layer.error for layer in layers if layer.operator in WEIGHTED]
    assert len(weighted) > 4
    assert all(0 < error < 1e-2 for error in weighted)


def test_int8_is_wrong_by_its_steps(step: onnx.ModelProto, feeds: list[Feed], tmp_path: Path) -> None:
    onnx.save(step, tmp_path / "fp32.onnx")
    quantise_static(
        tmp_path / "fp32.onnx", tmp_path / "int8.onnx", Frames(feeds), quant_format=QuantFormat.QDQ, per_channel=True
    )
    layers = layer_errors(step, onnx.load(tmp_path / "int8.onnx"), feeds)
    assert [layer.name for layer in layers] == [node.name for node in step.graph.node]
    assert all(1e-3 < layer.error < 0.2 for layer in layers)
    convolution, activation = layers[:2]  # one node now
    assert (convolution.operator, activation.operator) == ("Conv", "Relu")
    assert convolution.added == convolution.error == activation.error
    assert activation.added == 0


class Frames(CalibrationDataReader):  # type: ignore[misc]
    """What ONNX Runtime's quantiser sees."""

    def __init__(self, feeds: list[Feed]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Feed | None:
        return next(self._feeds, None)


def test_a_layer_whose_weights_are_rounded_stands_out_by_name(step: onnx.ModelProto, feeds: list[Feed]) -> None:
    faulty = onnx.ModelProto()
    faulty.CopyFrom(to_half(step))
    convs = [node for node in step.graph.node if node.op_type == "Conv"]
    victim = convs[2]
    weight = next(w for w in faulty.graph.initializer if w.name == victim.input[1])
    values = numpy_helper.to_array(weight)
    scale = np.abs(values).max() / 1.5  # four levels
    rounded = (np.clip(np.round(values / scale - 0.5), -2, 1) + 0.5) * scale
    weight.CopyFrom(numpy_helper.from_array(rounded.astype(values.dtype), weight.name))
    layers = layer_errors(step, faulty, feeds)
    assert max(layers, key=lambda layer: layer.added).name == victim.name
    assert likeliest(layers)[0] == victim.name
    at = [layer.name for layer in layers].index(victim.name)
    assert at > 0
    assert all(layer.error < 1e-2 < layers[at].error for layer in layers[:at])


# --------------------------------------------------------------------------------------------- graphs made by hand


def graph(*nodes: onnx.NodeProto, constants: dict[str, np.ndarray] | None = None) -> onnx.ModelProto:
    """From x (1, 2) to y (1, 2)."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in "xy"]
    weights = [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()]
    body = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def node(operator: str, inputs: list[str], output: str, name: str) -> onnx.NodeProto:
    return helper.make_node(operator, inputs, [output], name=name)


X: list[Feed] = [{"x": np.array([[3.0, 4.0]], dtype=np.float32)}]


def test_errors_by_hand() -> None:
    exact = graph(
        node("Mul", ["x", "two"], "h", "a/Mul"),
        node("Add", ["h", "x"], "y", "b/Add"),
        constants={"two": np.float32([2.0])},
    )
    other = graph(
        node("Mul", ["x", "two"], "h", "a/Mul"),
        node("Add", ["h", "x"], "y", "b/Add"),
        constants={"two": np.float32([2.5])},
    )
    # h: (6, 8) against (7.5, 10): 2.5 / 10; y: (9, 12) against (10.5, 14): 2.5 / 15
    first, second = layer_errors(exact, other, X)
    assert first == LayerError("a/Mul", "Mul", pytest.approx(0.25), 0.0, 8.0)
    assert second == LayerError("b/Add", "Add", pytest.approx(1 / 6), pytest.approx(0.25), 12.0)
    assert (first.added, second.added) == (pytest.approx(0.25), 0.0)
    assert likeliest([second, first]) == ["a/Mul", "b/Add"]


def test_errors_of_all_runs_are_summed_before_the_root() -> None:
    exact = graph(node("Mul", ["x", "k"], "y", "a/Mul"), constants={"k": np.float32([1.0])})
    other = graph(node("Add", ["x", "k"], "y", "a/Add"), constants={"k": np.float32([1.0])})
    feeds = [{"x": np.full((1, 2), value, dtype=np.float32)} for value in (1.0, 7.0)]
    # differences are 1 throughout: sqrt(4 / (2 * 1 + 2 * 49))
    assert [layer.error for layer in layer_errors(exact, other, feeds)] == [pytest.approx(0.2)]


def test_of_many_runs_the_first_the_last_and_some_between_are_taken() -> None:
    proto = graph(node("Neg", ["x"], "y", "a/Neg"))
    feeds: list[Feed] = [{"x": np.full((1, 2), i, dtype=np.float32)} for i in range(100)]
    taken = Watched(feeds)
    layers = layer_errors(proto, proto, taken, most_feeds=4)
    assert taken.indices == [0, 33, 66, 99]
    assert layers[0].largest == 99.0


class Watched(list[Feed]):
    """Notes which items are read."""

    def __init__(self, feeds: list[Feed]) -> None:
        super().__init__(feeds)
        self.indices: list[int] = []

    def __getitem__(self, index: int) -> Feed:  # type: ignore[override]
        self.indices.append(int(index))
        return super().__getitem__(index)

    def __iter__(self) -> Iterator[Feed]:
        raise AssertionError("all runs are read")


def test_a_value_that_is_quantised_is_compared_as_the_next_layer_reads_it() -> None:
    exact = graph(node("Neg", ["x"], "h", "a/Neg"), node("Neg", ["h"], "y", "b/Neg"))
    other = graph(
        node("Neg", ["x"], "h", "a/Neg"),
        node("QuantizeLinear", ["h", "scale", "zero"], "q", "h/Q"),
        node("DequantizeLinear", ["q", "scale", "zero"], "d", "h/DQ"),
        node("Neg", ["d"], "y", "b/Neg"),
        constants={"scale": np.float32(2.0), "zero": np.int8(0)},
    )
    # (-3, -4) in steps of 2, halves to even: (-4, -4)
    assert [layer.error for layer in layer_errors(exact, other, X)] == [pytest.approx(0.2)] * 2


def test_a_value_that_is_not_finite_is_infinitely_wrong_and_one_that_is_gone_passes_the_error_on() -> None:
    exact = graph(
        node("Mul", ["x", "k"], "h", "a/Mul"),
        node("Neg", ["h"], "gone", "b/Neg"),
        node("Neg", ["gone"], "y", "c/Neg"),
        constants={"k": np.float32([1.0])},
    )
    other = graph(
        node("Mul", ["x", "k"], "h", "a/Mul"),
        node("Identity", ["h"], "y", "c/Identity"),
        constants={"k": np.float32([math.inf])},
    )
    layers = layer_errors(exact, other, X)
    assert [layer.name for layer in layers] == ["a/Mul", "c/Neg"]
    assert [(layer.error, layer.inherited) for layer in layers] == [(math.inf, 0.0), (math.inf, math.inf)]
    assert [layer.added for layer in layers] == [math.inf, 0.0]
