"""The engine: shared memory, threads, fallbacks, errors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from kd_edge import artifact
from kd_edge.artifact import Manifest
from kd_edge.engines import open_engine
from kd_edge.engines.onnxruntime import load_onnxruntime
from kd_edge.errors import ArtifactError, MissingExtraError
from kd_edge.preprocess import Preprocess

onnxruntime = load_onnxruntime()


def step_bytes(segments: int = 3, *, feature: int = 2) -> bytes:
    """feature = (mean, max) of the frame; logits = feature + sum of past."""
    value = helper.make_tensor_value_info
    axes = helper.make_tensor("axes", TensorProto.INT64, [3], [1, 2, 3])
    one = helper.make_tensor("one", TensorProto.INT64, [1], [1])
    nodes = [
        helper.make_node("ReduceMean", ["frame", "axes"], ["mean4"]),
        helper.make_node("ReduceMax", ["frame", "axes"], ["max4"]),
        helper.make_node("Flatten", ["mean4"], ["mean"]),
        helper.make_node("Flatten", ["max4"], ["max"]),
        helper.make_node("Concat", ["mean", "max"], ["feature"], axis=1),
        helper.make_node("ReduceSum", ["past", "one"], ["older"], keepdims=0),
        helper.make_node("Add", ["feature", "older"], ["logits"]),
    ]
    inputs = [
        value("frame", TensorProto.FLOAT, ["batch", 1, 8, 8]),
        value("past", TensorProto.FLOAT, ["batch", segments - 1, feature]),
    ]
    outputs = [value("feature", TensorProto.FLOAT, ["batch", 2]), value("logits", TensorProto.FLOAT, ["batch", 2])]
    graph = helper.make_graph(nodes, "step", inputs, outputs, [axes, one])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()


def manifest(**changes: object) -> Manifest:
    values = {
        "name": "tiny", "labels": ("a", "b"), "modality": "nir", "band": "nir", "dtype": "uint8",
        "value_unit": "grey level", "value_range": (0, 255), "preprocess": Preprocess(resize_px=8, input_px=8),
        "segments": 3, "clip_seconds": 0.3, "feature_size": 2, "temporal": "tsn",
    }  # fmt: skip
    return Manifest.model_validate({**values, **changes})


@pytest.fixture
def model(tmp_path: Path) -> artifact.Artifact:
    path = tmp_path / "step.onnx"
    artifact.write(step_bytes(), manifest(), None, path)
    return artifact.load(path)


def test_runs_on_the_bound_arrays(model):
    binding = open_engine(model).bind(2)
    feature, logits = binding.feature, binding.logits
    for fill in (1.0, 2.0):  # a second run reads what was written in place, and writes to the same memory
        binding.frame[0], binding.frame[1] = fill, 3.0
        binding.frame[0, 0, 0, 0] = 65.0
        binding.past[:] = 10.0
        binding.run()
        np.testing.assert_allclose(feature, [[(63 * fill + 65) / 64, 65.0], [3.0, 3.0]], rtol=1e-6)
        np.testing.assert_allclose(logits, feature + 20.0)
    assert feature is binding.feature
    assert logits is binding.logits


def test_ortvalue_shares_memory_with_numpy():
    array = np.zeros((2, 3), dtype=np.float32)
    value = onnxruntime.OrtValue.ortvalue_from_numpy(array)
    array[1, 2] = 7
    assert value.numpy()[1, 2] == 7
    assert value.data_ptr() == array.ctypes.data


def test_reports_what_it_runs_on(model):
    engine = open_engine(model)
    assert engine.name == f"onnxruntime {onnxruntime.__version__}"
    assert engine.providers == ("CPUExecutionProvider",)
    assert engine.fallback_reason is None


def test_one_thread_that_sleeps_by_default(model):
    options = open_engine(model)._session.get_session_options()
    assert options.intra_op_num_threads == 1
    assert options.inter_op_num_threads == 1
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert open_engine(model, threads=2)._session.get_session_options().intra_op_num_threads == 2


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="CUDA is there")
def test_unusable_cuda_falls_back_with_a_reason_or_raises_when_strict(model):
    engine = open_engine(model, provider="cuda")
    assert engine.providers == ("CPUExecutionProvider",)
    assert "cuda was asked for" in (engine.fallback_reason or "")
    with pytest.raises(ArtifactError, match="cuda was asked for"):
        open_engine(model, provider="cuda", strict=True)


def test_session_that_silently_dropped_cuda_is_noticed(model, monkeypatch):
    """onnxruntime-gpu lists providers it cannot load, and the session then runs on the CPU."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    with pytest.warns(UserWarning, match="not in available provider"):
        engine = open_engine(model, provider="cuda")
    assert engine.fallback_reason == "cuda was asked for, the session runs on CPUExecutionProvider"


@pytest.mark.parametrize(("provider", "extra"), [("cpu", "[cpu]"), ("cuda", "[gpu]")])
def test_missing_onnxruntime_names_the_extra(model, monkeypatch, provider, extra):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"onnxruntime") as caught:
        open_engine(model, provider=provider)
    assert extra in str(caught.value)


def test_clip_graph_is_refused(tmp_path):
    artifact.write(step_bytes(), manifest(graph="clip"), None, tmp_path / "clip.onnx")
    with pytest.raises(ArtifactError, match="holds a clip graph"):
        open_engine(artifact.load(tmp_path / "clip.onnx"))


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"feature_size": 4}, "past"),
        ({"segments": 5}, "past"),
        ({"labels": ("a", "b", "c")}, "logits"),
        ({"preprocess": Preprocess(resize_px=16, input_px=16)}, "frame"),
        ({"preprocess": Preprocess(resize_px=8, input_px=8, replicate=3)}, "frame"),
    ],
)
def test_graph_that_contradicts_its_manifest_is_refused(tmp_path, changes, name):
    artifact.write(step_bytes(), manifest(**changes), None, tmp_path / "wrong.onnx")
    with pytest.raises(ArtifactError, match=f"has {name} "):
        open_engine(artifact.load(tmp_path / "wrong.onnx"))


def test_graph_the_engine_refuses_is_one_clear_line(tmp_path):
    model = onnx.load_from_string(step_bytes())
    model.graph.node[0].op_type = "NoSuchOperator"
    artifact.write(model.SerializeToString(), manifest(), None, tmp_path / "odd.onnx")
    with pytest.raises(ArtifactError, match="is refused by onnxruntime") as caught:
        open_engine(artifact.load(tmp_path / "odd.onnx"))
    assert "\n" not in str(caught.value)


def test_failure_while_running_becomes_an_artifact_error(model):
    binding = open_engine(model).bind(1)
    binding._io.clear_binding_inputs()
    with pytest.raises(ArtifactError, match="the engine failed"):
        binding.run()


@pytest.mark.parametrize(("choice", "events"), [(None, False), ("1", False), ("0", True)])
def test_telemetry_is_off_unless_the_user_allows_it(tmp_path, choice, events):
    """In a process of its own: the switch is read when the library is loaded."""
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    if choice is not None:
        environment["ORT_DISABLE_TELEMETRY"] = choice
    program = "import os; from kd_edge.engines.onnxruntime import load_onnxruntime as l; l()\n"
    program += f"assert os.environ.get('ORT_DISABLE_TELEMETRY') == {choice!r}"
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=30)
    written = [p for p in tmp_path.rglob("*") if p.is_file()]
    if not events:
        assert written == []
