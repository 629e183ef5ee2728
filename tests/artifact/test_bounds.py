"""What an artifact may hold: bounds that are checked before anything is allocated, behind hashes that are right."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import os
import re
import socket
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.helper as oh
import pytest
from onnx import TensorProto
from pydantic import ValidationError

from kd_edge import artifact
from kd_edge.artifact import GoldenClip, Manifest, wire
from kd_edge.artifact import graph as graph_module
from kd_edge.artifact.golden import pack_golden
from kd_edge.errors import ArtifactError
from kd_edge.preprocess import Preprocess

from .test_file import graph_bytes, manifest


def forged(path: Path, graph: bytes | None = None, golden: str | None = None, text: str | None = None) -> Path:
    """A file whose hashes are right, whatever is in it."""
    body = graph_bytes() if graph is None else graph
    body += b"" if golden is None else wire.entry(artifact.GOLDEN_KEY, golden)
    text = manifest().model_dump_json() if text is None else text
    text = text.replace('"sha256":""', f'"sha256":"{hashlib.sha256(body).hexdigest()}"', 1)
    own = hashlib.sha256(text.encode()).hexdigest()
    text = text.replace('"manifest_sha256":""', f'"manifest_sha256":"{own}"')
    path.write_bytes(body + wire.entry(artifact.MANIFEST_KEY, text))
    return path


def changed(**values: Any) -> str:
    return json.dumps(manifest().model_dump(mode="json") | values, separators=(",", ":"))


def packed(**values: Any) -> str:
    clip = GoldenClip(
        np.zeros((4, 16, 20), np.uint16), np.arange(4, dtype=np.int64), np.array([0.5, -1], np.float32), 1e-3
    )
    return json.dumps(json.loads(pack_golden(clip)) | values)


def refused(path: Path, why: str) -> None:
    """In one line, and with little memory: 25 MB beside what the file itself holds."""
    tracemalloc.start()
    try:
        with pytest.raises(ArtifactError, match=why) as caught:
            artifact.load(path)
        assert tracemalloc.get_traced_memory()[1] < 25_000_000
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)


def test_the_forger_can_write_a_good_file(tmp_path: Path) -> None:
    loaded = artifact.load(forged(tmp_path / "a.onnx", golden=packed(), text=changed()))
    assert loaded.golden is not None
    assert loaded.manifest.labels == ("sit", "stand")


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"format": True}, "manifest format True"),
        ({"format": [1]}, r"manifest format \[1\]"),
        ({"format": "9" * 10_000}, "manifest format 9{20}"),
        ({"segments": True}, "segments: Input should be a valid integer"),
        ({"segments": "4"}, "segments: Input should be a valid integer"),
        ({"segments": 1e9}, "segments: Input should be a valid integer"),
        ({"segments": 2000}, "segments: Input should be less than or equal to 1024"),
        ({"feature_size": 1 << 20, "segments": 1024}, "its arrays take 1[0-9,]{14,} bytes, more than 256,000,000"),
        ({"states": [{"name": "a", "shape": [1 << 20, 1 << 20]}]}, "its arrays take .* bytes"),
        ({"states": [{"name": "a", "shape": [-1]}]}, "states.0.shape.0"),
        ({"preprocess": {"resize_px": 2048, "input_px": 2048, "motion_offsets_ms": [0, 70]}}, "its arrays take"),
        ({"preprocess": []}, "preprocess: Input should be an object"),
        ({"clip_seconds": 1e300}, "clip_seconds: Input should be less than or equal to 3600"),
        ({"clip_seconds": 1e-300}, "clip_seconds: Input should be greater than or equal to 0.001"),
        ({"temperature": float("nan")}, "NaN instead of a finite number"),
        ({"accuracy": {"test": float("inf")}}, "Infinity instead of a finite number"),
        ({"dataset": {"a": 10**400}}, "an integer of 401 digits"),
        ({"value_range": [255, 0]}, "value_range .* must increase"),
        ({"labels": ["sit", "sit"]}, "two labels are the same"),
        ({"labels": ["sit", ""]}, "a label is blank"),
        ({"labels": ["sit", " \t"]}, "a label is blank"),
        ({"labels": ["sit", "\x1b[31mstand"]}, "a label contains control characters"),
        ({"labels": ["sit", "\u202estand"]}, "a label contains control characters"),
        ({"labels": ["sit", "\ud800"]}, "surrogates not allowed"),
        ({"labels": ["sit", "x" * 201]}, "at most 200 characters"),
        ({"labels": ["x"] * 10_001}, "at most 10000"),
        ({"states": [1] * 50_001}, "more than 50,000 values"),  # a list of so many faults would take a gigabyte
        ({"name": "x" * 4_000_000}, "bytes, more than 4,000,000"),
    ],
)
def test_a_manifest_that_no_export_writes(tmp_path: Path, values: dict[str, Any], why: str) -> None:
    refused(forged(tmp_path / "a.onnx", text=changed(**values)), why)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[" * 100_000, "nested too deeply"),
        (changed()[:-1] + ',"format":1}', "the key 'format' occurs twice"),
        ("[]", "a list instead of an object"),
        ("", "Expecting value"),
    ],
)
def test_a_manifest_that_is_no_table(tmp_path: Path, text: str, why: str) -> None:
    refused(forged(tmp_path / "a.onnx", text=text), why)


@pytest.mark.parametrize("key", ["value_range", "accuracy", "temperature"])
def test_no_manifest_is_made_of_numbers_that_cannot_be_written(key: str) -> None:
    nan = float("nan")
    values = {"value_range": (0, nan), "accuracy": {"test": nan}, "temperature": nan}
    with pytest.raises(ValidationError, match="finite number"):
        Manifest.model_validate(manifest().model_dump() | {key: values[key]})


def test_labels_of_the_world_are_labels(tmp_path: Path) -> None:
    labels = ["Winken & Größe", "手を振る", "\U0001f44b", "a\u00a0b"]
    assert artifact.load(forged(tmp_path / "a.onnx", text=changed(labels=labels))).manifest.labels == tuple(labels)


@functools.cache
def zeros(count: int) -> str:
    return base64.b64encode(zlib.compress(bytes(count), 9)).decode()


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"shape": [4, 8000, 8000], "frames": zeros(100)}, "its frames take 512,000,000 bytes, more than"),
        (
            {"shape": [0, 16, 20], "frames": lambda: zeros(200_000_000)},
            "shape.0: Input should be greater than or equal to 1",
        ),
        ({"shape": [4, 16, 20], "frames": lambda: zeros(200_000_000)}, "its frames are not 2,560 bytes"),
        ({"shape": [4, 16, 20], "frames": zeros(2559)}, "its frames are not 2,560 bytes"),
        ({"shape": [4, 16, 20, 3]}, r"uint16 frames \(4, 16, 20, 3\) for a uint16 model"),
        ({"shape": [True, 16, 20]}, "shape.0: Input should be a valid integer"),
        ({"shape": [1, 1, 1280]}, "its frames are 1280x1 pixels"),
        ({"shape": "4,16,20"}, "shape: Input should be a valid list"),
        ({"dtype": "uint8"}, "it has uint8 frames"),
        ({"dtype": ["uint8"]}, "dtype: Input should be 'uint8' or 'uint16'"),
        ({"stamps_ns": [0, 1, 1, 2]}, "not 4 increasing numbers"),
        ({"stamps_ns": [0, 1]}, "not 4 increasing numbers"),
        ({"stamps_ns": [0, 1, 2, 2**63 - 1]}, "stamps_ns.3"),
        ({"logits": [1.0]}, "1 logits for 2 labels"),
        ({"logits": [1.0, float("inf")]}, "Infinity instead of"),
        ({"logits": [1.0, 1e300]}, "logits.1: Input should be less than or equal to"),
        ({"tolerance": float("inf")}, "Infinity instead of"),
        ({"tolerance": float("nan")}, "NaN instead of"),
        ({"tolerance": -1.0}, "tolerance: Input should be greater than or equal to 0"),
        ({"tolerance": True}, "tolerance: Input should be a valid number"),
        ({"frames": "&" * 40}, "Only base64 data is allowed"),
        ({"frames": base64.b64encode(b"no zlib at all").decode()}, "incorrect header check"),
        ({"frames": "x" * 400_000}, "bytes, more than 400,000"),
        ({"frames": None}, "frames: Input should be a valid string"),
    ],
)
def test_a_golden_clip_that_no_export_writes(tmp_path: Path, values: dict[str, Any], why: str) -> None:
    given = {key: value() if callable(value) else value for key, value in values.items()}
    refused(forged(tmp_path / "a.onnx", golden=packed(**given)), why)


def test_a_golden_clip_that_would_take_a_minute_to_resize(tmp_path: Path) -> None:
    count = 8000
    golden = packed(shape=[count, 40, 40], frames=zeros(count * 3200), stamps_ns=list(range(count)))
    assert artifact.load(forged(tmp_path / "a.onnx", golden=golden)).golden is not None
    large = changed(preprocess=Preprocess(resize_px=2048, input_px=224).model_dump(mode="json"))
    refused(forged(tmp_path / "a.onnx", golden=golden, text=large), "8000 frames of 40x40 pixels, resized to 2048")


@pytest.mark.slow
def test_a_golden_clip_with_frames_a_robot_would_refuse_is_not_written(tmp_path: Path) -> None:
    clip = GoldenClip(np.zeros((9, 2048, 2048), np.uint16), np.arange(9), np.zeros(2, np.float32), 0.1)
    with pytest.raises(ArtifactError, match="75,497,472 bytes of frames"):
        artifact.write(graph_bytes(), manifest(), clip, tmp_path / "a.onnx")


def test_metadata_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_FIELDS", 2000)
    graph = graph_bytes()
    others = graph + wire.entry("maker", "x" * 1000)
    assert artifact.load(forged(tmp_path / "a.onnx", others)).manifest.name == "test"  # of another tool
    refused(forged(tmp_path / "b.onnx", graph + wire.entry("a", "x") * 2), "it has a metadata entry twice")
    refused(forged(tmp_path / "c.onnx", graph + wire.entry("a", "x" * 8_000_000)), "longer than 8,000,000 bytes")
    refused(forged(tmp_path / "d.onnx", graph + b"\x72\x06" + b"\x0a\x00" * 3), "a metadata entry is unreadable")
    refused(forged(tmp_path / "e.onnx", graph + b"\x10\x01" * 2_001), "too many fields")


def external(name: str = "w") -> TensorProto:
    tensor = oh.make_tensor(name, TensorProto.FLOAT, [1], [1.0])
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/hostname")
    return tensor


def only_named(name: str = "w") -> TensorProto:
    tensor = oh.make_tensor(name, TensorProto.FLOAT, [1], [1.0])
    tensor.external_data.add(key="location", value="../x.bin")
    return tensor


def only_told(name: str = "w") -> TensorProto:
    tensor = oh.make_tensor(name, TensorProto.FLOAT, [1], [1.0])
    tensor.data_location = TensorProto.EXTERNAL
    return tensor


def as_initializer(model: onnx.ModelProto, tensor: TensorProto) -> None:
    model.graph.initializer.append(tensor)


def as_sparse_initializer(model: onnx.ModelProto, tensor: TensorProto) -> None:
    model.graph.sparse_initializer.add().values.CopyFrom(tensor)


def as_constant(model: onnx.ModelProto, tensor: TensorProto) -> None:
    model.graph.node.append(oh.make_node("Constant", [], ["c"], value=tensor))


def in_a_list(model: onnx.ModelProto, tensor: TensorProto) -> None:
    model.graph.node.append(oh.make_node("Any", [], ["c"], values=[tensor]))


def in_a_sub_graph(model: onnx.ModelProto, tensor: TensorProto) -> None:
    inner = oh.make_graph([], "inner", [], [], [tensor])
    outer = oh.make_graph([oh.make_node("If", ["x"], ["b"], then_branch=inner)], "outer", [], [])
    model.graph.node.append(oh.make_node("If", ["x"], ["a"], else_branch=outer))


def in_a_function(model: onnx.ModelProto, tensor: TensorProto) -> None:
    node = oh.make_node("Constant", [], ["c"], value=tensor)
    model.functions.append(oh.make_function("here", "F", [], ["c"], [node], [oh.make_opsetid("", 20)]))


def in_training(model: onnx.ModelProto, tensor: TensorProto) -> None:
    model.training_info.add().initialization.initializer.append(tensor)


def of_another_domain(model: onnx.ModelProto, tensor: TensorProto) -> None:
    model.graph.node.append(oh.make_node("Conv", ["x"], ["c"], domain="com.example"))


def of_no_export(operator: str) -> Callable[[onnx.ModelProto, TensorProto], None]:
    return lambda model, tensor: model.graph.node.append(oh.make_node(operator, ["x"], ["c"]))


def padded(pixels: int) -> Callable[[onnx.ModelProto, TensorProto], None]:
    return lambda model, tensor: model.graph.node.append(oh.make_node("Conv", ["x"], ["c"], pads=[0, 0, pixels, 0]))


def grouped(count: int) -> Callable[[onnx.ModelProto, TensorProto], None]:
    return lambda model, tensor: model.graph.node.append(oh.make_node("Conv", ["x"], ["c"], group=count))


@pytest.mark.parametrize("tensor", [external, only_named, only_told])
@pytest.mark.parametrize(
    "put",
    [
        as_initializer,
        as_constant,
    ],
)
def test_a_tensor_outside_the_file_is_refused_wherever_it_is_named(
    tmp_path: Path, put: Callable[[onnx.ModelProto, TensorProto], None], tensor: Callable[[], TensorProto]
) -> None:
    model = onnx.load_model_from_string(graph_bytes())
    put(model, oh.make_tensor("w", TensorProto.FLOAT, [1], [1.0]))
    assert artifact.load(forged(tmp_path / "a.onnx", model.SerializeToString())).manifest.name == "test"
    model = onnx.load_model_from_string(graph_bytes())
    put(model, tensor())
    refused(forged(tmp_path / "a.onnx", model.SerializeToString()), "keeps a tensor in another file")


@pytest.mark.parametrize(
    ("put", "why"),
    [
        (as_sparse_initializer, "has sparse tensors"),
        (in_a_list, "has an operator 'Any'"),
        (in_a_sub_graph, "has a graph inside a node|has an operator 'If'"),
        (in_a_function, "carries functions of its own"),
        (in_training, "carries a training graph"),
        (of_another_domain, "has an operator of the domain 'com.example'"),
        (of_no_export("ConstantOfShape"), "has an operator 'ConstantOfShape'"),
        (of_no_export("Loop\x1b[31m"), r"has an operator 'Loop\\x1b\[31m'"),
        (of_no_export("x" * 1000), "has an operator 'x{100}'"),
        (padded(1 << 40), "has an attribute pads of 1,099,511,627,776"),
        (padded(-65), "has an attribute pads of -65"),
        (grouped(1 << 20), "has an attribute group of 1,048,576"),
    ],
)
def test_what_no_export_writes_is_refused(
    tmp_path: Path, put: Callable[[onnx.ModelProto, TensorProto], None], why: str
) -> None:
    model = onnx.load_model_from_string(graph_bytes())
    put(model, oh.make_tensor("w", TensorProto.FLOAT, [1], [1.0]))
    refused(forged(tmp_path / "a.onnx", model.SerializeToString()), why)


@pytest.mark.parametrize(
    ("pads", "why"),
    [
        ([0, 0, 1, 1], None),
        ([0, 0, 64, -64], None),
        ([0, 0, 65, 0], "pads by 'p', which is not a short list of small numbers"),
        ([0, 0, 0, 1 << 40], "pads by 'p'"),
        ([0] * 60, "pads by 'p'"),
        (None, "pads by 'p'"),
    ],
)
@pytest.mark.parametrize("raw", [False, True])
def test_what_is_padded_is_padded_by_little(tmp_path: Path, pads: list[int] | None, why: str | None, raw: bool) -> None:
    model = onnx.load_model_from_string(graph_bytes())
    model.graph.node.append(oh.make_node("Pad", ["x", "p"], ["c"]))
    if pads is not None:
        tensor = TensorProto(name="p", data_type=TensorProto.INT64, dims=[len(pads)])
        if raw:
            tensor.raw_data = np.array(pads, "<i8").tobytes()
        else:
            tensor.int64_data.extend([*pads, *([1 << 50] * (len(pads) > 50))])
        model.graph.initializer.append(tensor)
    path = forged(tmp_path / "a.onnx", model.SerializeToString())
    if why is None:
        artifact.load(path)
    else:
        refused(path, why)


def test_of_two_lists_of_a_name_neither_says_how_much_is_padded(tmp_path: Path) -> None:
    """Nor does a constant's tensor: its name is the node's output's."""
    for decoy in (
        lambda graph, zeros: graph.initializer.append(zeros),
        lambda graph, zeros: graph.node.append(oh.make_node("Constant", [], ["other"], value=zeros)),
    ):
        model = onnx.load_model_from_string(graph_bytes())
        model.graph.node.append(oh.make_node("Pad", ["x", "p"], ["c"]))
        decoy(model.graph, oh.make_tensor("p", TensorProto.INT64, [4], [0, 0, 0, 0]))
        decoy(model.graph, oh.make_tensor("p", TensorProto.INT64, [4], [0, 0, 0, 1]))
        refused(forged(tmp_path / "a.onnx", model.SerializeToString()), "pads by 'p'")


def test_an_attribute_of_many_integers_is_not_looked_over_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_module, "MOST_FIELDS", 2000)
    attribute = wire.bytes_field(1, b"perm") + b"\x40\x01" * 3000
    node = wire.bytes_field(4, b"Transpose") + wire.bytes_field(5, attribute)
    refused(
        forged(tmp_path / "a.onnx", graph_bytes() + wire.bytes_field(7, wire.bytes_field(1, node))),
        "more than 2,000 fields",
    )


@pytest.mark.parametrize(
    ("dims", "content", "why"),
    [
        ([1 << 40], bytes(4), "has a tensor of 1,099,511,627,776 elements in 4 bytes"),
        ([1 << 31, 1 << 31, 1 << 31], bytes(400), "has a tensor of 9,223,372,036,854,775,808 elements in 400 bytes"),
        ([-1], bytes(4), "elements in 4 bytes"),
        ([3], b"", "has a tensor of 3 elements in 0 bytes"),
        ([1] * 3000, bytes(4), "bytes of dimensions|more than"),
    ],
)
def test_a_tensor_of_more_elements_than_bytes_is_refused(
    tmp_path: Path, dims: list[int], content: bytes, why: str
) -> None:
    model = onnx.load_model_from_string(graph_bytes())
    model.graph.initializer.append(TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims, raw_data=content))
    body = model.SerializeToString()
    if len(dims) < 100:
        refused(forged(tmp_path / "a.onnx", body), why)
    else:
        artifact.load(forged(tmp_path / "a.onnx", body))  # as many as bytes: 1


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT8, TensorProto.BOOL])
def test_a_tensor_with_values_for_its_elements_is_not(tmp_path: Path, kind: int) -> None:
    model = onnx.load_model_from_string(graph_bytes())
    for number, values in enumerate(([], [1], [0] * 60)):
        model.graph.initializer.append(oh.make_tensor(f"w{number}", kind, [len(values)], values))
    artifact.load(forged(tmp_path / "a.onnx", model.SerializeToString()))


def nested(levels: int) -> bytes:
    """A graph in an attribute of a node of a graph, and so on."""
    graph = b""
    for _ in range(levels):
        for number in (6, 5, 1):
            graph = wire.bytes_field(number, graph)
    return graph_bytes() + wire.bytes_field(7, graph)


@pytest.mark.parametrize(
    ("graph", "why"),
    [
        (nested(40), "has an operator ''"),
        (nested(5_000), "has an operator ''"),
        (graph_bytes() + wire.bytes_field(7, b"\x08\x01" * 2_001), "more than 2,000 fields"),
        (graph_bytes() + wire.bytes_field(7, b"\x2a\x05\x08"), "ends at"),
        (graph_bytes() + wire.bytes_field(7, b"\x0b\x0c"), "wire type 3"),
        (
            graph_bytes() + wire.bytes_field(7, b"\xea\x80\x80\x80\x10\x00"),
            "field number",
        ),  # 13 to whoever drops bit 32
    ],
)
def test_a_graph_that_cannot_be_looked_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, graph: bytes, why: str
) -> None:
    monkeypatch.setattr(graph_module, "MOST_FIELDS", 2000)
    refused(forged(tmp_path / "a.onnx", graph), why)


def test_a_weight_is_not_read_to_look_it_over(tmp_path: Path) -> None:
    """30 MB of weights, and 25 MB of memory would be too much."""
    model = onnx.load_model_from_string(graph_bytes())
    model.graph.initializer.append(oh.make_tensor("w", TensorProto.UINT8, [30_000_000], bytes(30_000_000), raw=True))
    body = model.SerializeToString()
    refused(forged(tmp_path / "a.onnx", body, text=changed(labels=["a", "a"])), "two labels are the same")
    path = forged(tmp_path / "b.onnx", body)
    tracemalloc.start()
    try:
        artifact.load(path)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def a_fifo(path: Path) -> None:
    os.mkfifo(path)


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))  # such names must be short


def a_broken_link(path: Path) -> None:
    path.symlink_to("nowhere")


def a_loop(path: Path) -> None:
    path.symlink_to(path.name)


def a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


SPECIAL = [a_fifo, a_socket, a_broken_link, a_loop, a_device, Path.mkdir]


@pytest.mark.parametrize("make", SPECIAL)
def test_what_is_no_file_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None]
) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "x.onnx")
    refused(tmp_path / "x.onnx", re.escape(str(tmp_path / "x.onnx")))


@pytest.mark.parametrize("make", SPECIAL)
def test_what_is_no_file_is_passed_over_where_a_model_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "a").mkdir(parents=True)
    good = forged(tmp_path / "runs" / "a" / "student.onnx")
    os.utime(good, (1, 1))
    make(tmp_path / "x.onnx")
    make(tmp_path / "runs" / "a" / "y.onnx")
    assert artifact.default_model(tmp_path) == good
    assert artifact.default_model() == Path("runs/a/student.onnx")


def test_a_file_that_may_not_be_read_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, locked = forged(tmp_path / "good.onnx"), forged(tmp_path / "locked.onnx")
    os.utime(good, (1, 1))
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != locked)
    assert artifact.default_model(tmp_path) == good


def test_a_name_with_control_characters_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no file .*a\\n\\x1b\[2Jb\.onnx") as caught:
        artifact.load(tmp_path / "a\n\x1b[2Jb.onnx")
    assert str(caught.value).isprintable()


def test_a_graph_bigger_than_a_protobuf_is_not_hashed(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(graph_bytes())
    os.truncate(path, 2**31)
    refused(path, "is not an ONNX model")


def test_a_large_preprocessing_still_fits() -> None:
    """The largest models in the tables: nine channels of 224 pixels, 16 segments of 2048 features, as a whole clip."""
    spec = Preprocess(channels=3, motion_offsets_ms=(0, 70, 140), resize_px=256, input_px=224)
    values = manifest().model_dump() | {"preprocess": spec.model_dump(), "segments": 16, "feature_size": 2048}
    assert Manifest.model_validate(values | {"graph": "clip"}).source_bytes < artifact.manifest.SOURCE_BYTES / 2


def test_the_fields_of_a_message_are_the_message() -> None:
    message = wire.number_field(1, 300) + wire.bytes_field(200, b"abc") + b"\x1d\x00\x00\x80\x3f"
    found = wire.parts(message)
    assert [(part.number, part.payload) for part in found] == [(1, None), (200, b"abc"), (3, None)]
    assert [part.whole for part in found] == [b"\x08\xac\x02", b"\xc2\x0c\x03abc", b"\x1d\x00\x00\x80\x3f"]
    assert b"".join(part.whole for part in found) == message
    assert wire.parts(b"") == []
    with pytest.raises(ValueError, match="more than 2 fields"):
        wire.parts(message, most=2)
    with pytest.raises(ValueError, match="ends at"):
        wire.parts(message[:-1])
