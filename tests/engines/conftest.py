"""Small graphs whose outputs can be worked out by hand: a step, a clip model of the same function, its backbone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from kd_edge import artifact
from kd_edge.artifact import Artifact, Manifest, StateSpec
from kd_edge.engines.onnxruntime import load_onnxruntime
from kd_edge.preprocess import Preprocess

load_onnxruntime()  # before anything else loads it: no telemetry files

SEGMENTS, SIDE = 3, 8
STATES = (StateSpec(name="before", shape=(1, SIDE, SIDE)),)


def manifest(**changes: object) -> Manifest:
    values = {
        "name": "tiny", "labels": ("a", "b"), "modality": "nir", "band": "nir", "dtype": "uint8",
        "value_unit": "grey level", "value_range": (0, 255), "preprocess": Preprocess(resize_px=SIDE, input_px=SIDE),
        "segments": SEGMENTS, "clip_seconds": 0.3, "feature_size": 2, "temporal": "tsn",
    }  # fmt: skip
    return Manifest.model_validate({**values, **changes})


def build(
    nodes: list[NodeProto], inputs: list[ValueInfoProto], outputs: list[ValueInfoProto], **constants: list[int]
) -> ModelProto:
    """An ONNX model; ``constants`` are int64 vectors."""
    initializers = [helper.make_tensor(n, TensorProto.INT64, [len(v)], v) for n, v in constants.items()]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def value(name: str, *shape: int) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])


def step_model(segments: int = SEGMENTS, *, states: bool = False) -> ModelProto:
    """feature = (mean of the frame, its maximum); logits = feature + sum of past.

    With states the second feature is the maximum of the frame before: 0 at first.
    """
    older = "state_in_0" if states else "frame"
    nodes = [
        helper.make_node("ReduceMean", ["frame", "axes"], ["mean4"]),
        helper.make_node("ReduceMax", [older, "axes"], ["max4"]),
        helper.make_node("Flatten", ["mean4"], ["mean"]),
        helper.make_node("Flatten", ["max4"], ["max"]),
        helper.make_node("Concat", ["mean", "max"], ["feature"], axis=1),
        helper.make_node("ReduceSum", ["past", "one"], ["sum"], keepdims=0),
        helper.make_node("Add", ["feature", "sum"], ["logits"]),
    ]
    inputs, outputs = [value("frame", 1, SIDE, SIDE), value("past", segments - 1, 2)], [value("feature", 2)]
    outputs.append(value("logits", 2))
    if states:
        nodes.append(helper.make_node("Identity", ["frame"], ["state_out_0"]))
        inputs.append(value("state_in_0", 1, SIDE, SIDE))
        outputs.append(value("state_out_0", 1, SIDE, SIDE))
    return build(nodes, inputs, outputs, axes=[1, 2, 3], one=[1])


def clip_model(*, states: bool = False) -> ModelProto:
    """What stepping ``step_model`` through a clip gives."""
    nodes = [helper.make_node("ReduceMean", ["clip", "axes"], ["means"], keepdims=0)]  # (B, T)
    if states:
        nodes += [
            helper.make_node("Slice", ["clip", "zero", "last", "one"], ["all_but_last"]),
            helper.make_node("Pad", ["all_but_last", "before"], ["older"]),
        ]
    nodes += [
        helper.make_node("ReduceMax", ["older" if states else "clip", "axes"], ["maxima"], keepdims=0),
        helper.make_node("ReduceSum", ["means", "one"], ["mean"], keepdims=1),
        helper.make_node("ReduceSum", ["maxima", "one"], ["max"], keepdims=1),
        helper.make_node("Concat", ["mean", "max"], ["logits"], axis=1),
    ]
    inputs, outputs = [value("clip", SEGMENTS, 1, SIDE, SIDE)], [value("logits", 2)]
    before = [0, 1, 0, 0, 0, 0, 0, 0, 0, 0]  # one zero frame in front
    return build(nodes, inputs, outputs, axes=[2, 3, 4], one=[1], zero=[0], last=[-1], before=before)


def backbone_model() -> ModelProto:
    """The first part of ``step_model``."""
    nodes = list(step_model().graph.node)[:5]
    return build(nodes, [value("frame", 1, SIDE, SIDE)], [value("feature", 2)], axes=[1, 2, 3])


def as_ncnn(model: ModelProto) -> dict[str, bytes]:
    """One of the models above as ncnn's text; an operator it does not know becomes a layer of that name."""
    graph = model.graph
    constants = {tensor.name: numpy_helper.to_array(tensor).tolist() for tensor in graph.initializer}
    layers: list[tuple[str, list[str], list[str], str]] = []
    for tensor in graph.input:
        sizes = [d.dim_value for d in tensor.type.tensor_type.shape.dim][1:]
        keys = {1: (0,), 2: (1, 0), 3: (2, 1, 0), 4: (2, 11, 1, 0)}[len(sizes)]
        layers.append(("Input", [], [tensor.name], " ".join(f"{k}={n}" for k, n in zip(keys, sizes, strict=True))))
    for node in graph.node:
        takes, gives = [name for name in node.input if name not in constants], list(node.output)
        if node.op_type in REDUCTIONS:  # without the batch axis every axis is one lower
            axes = [axis - 1 for axis in constants[node.input[1]]]
            keep = all(attribute.i for attribute in node.attribute)
            listed = ",".join(map(str, (len(axes), *axes)))
            layers.append(
                ("Reduction", takes, gives, f"0={REDUCTIONS[node.op_type]} 1=0 -23303={listed} 4={keep:d} 5=1")
            )
        elif node.op_type == "Slice":  # all but the last, and the last
            layers.append(("Slice", takes, [*gives, "newest"], f"-23300=2,{SEGMENTS - 1},-233 1=0"))
        elif node.op_type == "Pad":
            layers.append(("BinaryOp", ["newest"], ["nothing"], "0=2 1=1 2=0.0"))
            layers.append(("Concat", ["nothing", *takes], gives, "0=0"))
        else:
            kind, options = KINDS.get(node.op_type, (node.op_type, ""))
            layers.append((kind, takes, gives, options))
    return {"ncnn.param": _text(layers, [output.name for output in graph.output]).encode(), "ncnn.bin": b""}


REDUCTIONS = {"ReduceSum": 0, "ReduceMean": 3, "ReduceMax": 4}
KINDS = {"Flatten": ("Flatten", ""), "Concat": ("Concat", "0=0"), "Add": ("BinaryOp", "0=0"), "Identity": ("Noop", "")}


def _text(layers: list[tuple[str, list[str], list[str], str]], outputs: list[str]) -> str:
    """Layers as lines; what several of them read, or what is read and put out, goes through a Split."""
    readers = {name: sum(takes.count(name) for _, takes, _, _ in layers) for _, _, gives, _ in layers for name in gives}
    readers |= {name: readers[name] + (readers[name] > 0) for name in outputs}
    left = {name: list(range(count)) for name, count in readers.items()}
    lines, blobs = [], 0
    for number, (kind, takes, gives, options) in enumerate(layers):
        read = [f"{name}_{left[name].pop()}" if readers[name] > 1 else name for name in takes]
        made = {name: name if kind == "Input" or readers[name] < 2 else f"{name}_made" for name in gives}
        lines.append(" ".join([kind, f"layer{number}", f"{len(read)} {len(made)}", *read, *made.values(), options]))
        for name in gives:
            if readers[name] > 1:
                copies = [name if name in outputs and k == 0 else f"{name}_{k}" for k in range(readers[name])]
                lines.append(f"Split split{len(lines)} 1 {len(copies)} {made[name]} {' '.join(copies)}")
                blobs += len(copies)
        blobs += len(made)
    return "\n".join(["7767517", f"{len(lines)} {blobs}", *lines, ""])


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Artifact]:
    """Write a model with the manifest above, some fields changed, and load it as an artifact; it carries ncnn's."""

    def save(model: ModelProto, **changes: object) -> Artifact:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.onnx"
        artifact.write(model.SerializeToString(), manifest(**changes), None, path, as_ncnn(model))
        return artifact.load(path)

    return save


@pytest.fixture
def unchecked(save: Callable[..., Artifact], tmp_path: Path) -> Callable[[bytes], Artifact]:
    """An artifact of a graph that the loader would refuse, for what an engine says of it."""

    def unchecked(graph: bytes) -> Artifact:
        path = tmp_path / "unchecked.onnx"
        path.write_bytes(graph)
        return replace(save(step_model()), path=path, identity=(), hashed_bytes=0)

    return unchecked


@pytest.fixture
def step(save: Callable[..., Artifact]) -> Artifact:
    return save(step_model())


@pytest.fixture
def stateful(save: Callable[..., Artifact]) -> Artifact:
    return save(step_model(states=True), states=STATES)
