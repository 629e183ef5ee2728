"""What is OpenVINO's own: 32-bit floats, its converter's telemetry, compiled batch sizes, devices, its messages."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from kd_edge import artifact
from kd_edge.artifact import Artifact
from kd_edge.engines import open_engine
from kd_edge.engines.openvino import OpenVinoEngine, load_openvino
from kd_edge.errors import ArtifactError
from kd_edge.runtime import Recognizer

from .conftest import SIDE, step_model

openvino = load_openvino()


LEFT_TO_A_THREAD = """
import signal, subprocess, sys, threading
from kd_edge import artifact
from kd_edge.engines import open_engine

signal.signal(signal.SIGCHLD, lambda *_: None)
engine = open_engine(artifact.load(artifact.BUNDLED), engine="openvino")
thread = threading.Thread(target=engine.close)
thread.start()
thread.join()
del engine
subprocess.run([sys.executable, "-c", ""], check=True)
print("alive")
"""


@pytest.fixture(scope="module")
def bundled() -> Iterator[OpenVinoEngine]:
    with open_engine(artifact.load(artifact.BUNDLED), engine="openvino") as engine:
        assert isinstance(engine, OpenVinoEngine)
        yield engine


def precisions(engine: OpenVinoEngine, kind: str) -> set[str]:
    """In what the nodes of a kind really compute."""
    nodes = [node.get_rt_info() for node in engine._compiled[1].get_runtime_model().get_ops()]
    return {node["runtimePrecision"].astype(str) for node in nodes if node["layerType"].astype(str) == kind}


def test_says_what_it_is_and_runs_on(bundled: OpenVinoEngine) -> None:
    assert bundled.name == f"openvino {openvino.__version__.split('-')[0]}"
    assert bundled.providers == ("CPU",)


@pytest.mark.slow
def test_a_signal_after_another_thread_has_let_an_engine_go() -> None:
    """Its plugin must not free the stack on which the thread that loaded it handles signals."""
    done = subprocess.run([sys.executable, "-c", LEFT_TO_A_THREAD], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr


def test_convolutions_compute_in_32_bits(bundled: OpenVinoEngine) -> None:
    """Left alone, it takes bfloat16 wherever the processor can; the file of this model stores 16-bit weights."""
    assert bundled.manifest.precision == "fp16"
    assert precisions(bundled, "Convolution") == {"f32"}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="of x86 processors")
def test_a_quantised_convolution_stays_one(save: Callable[..., Artifact]) -> None:
    """The pin to 32 bits is of floats only. Weights 0.5, values in steps of 1/4: exact sums of 8-bit products."""
    model = step_model()
    nodes = [
        helper.make_node("QuantizeLinear", ["frame", "quarter", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "quarter", "zero"], ["x"]),
        helper.make_node("DequantizeLinear", ["weight", "half", "zeros"], ["w"], axis=0),
        helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1]),
        helper.make_node("QuantizeLinear", ["y", "one_", "zero"], ["r"]),
        helper.make_node("DequantizeLinear", ["r", "one_", "zero"], ["s"]),
        helper.make_node("Conv", ["s", "w2"], ["t"]),
    ]
    channels = 16
    for node in model.graph.node:
        node.input[:] = ["t" if name == "frame" else name for name in node.input]
    nodes += model.graph.node
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    values = [
        helper.make_tensor("quarter", TensorProto.FLOAT, [], [0.25]),
        helper.make_tensor("one_", TensorProto.FLOAT, [], [1.0]),
        helper.make_tensor("zero", TensorProto.UINT8, [], [0]),
        helper.make_tensor("half", TensorProto.FLOAT, [channels], [0.5] * channels),
        helper.make_tensor("zeros", TensorProto.INT8, [channels], [0] * channels),
        helper.make_tensor("weight", TensorProto.INT8, [channels, 1, 3, 3], [1] * channels * 9),
        helper.make_tensor("w2", TensorProto.FLOAT, [1, channels, 1, 1], [1.0] * channels),
    ]
    model.graph.initializer.extend(values)
    with open_engine(save(model, precision="int8"), engine="openvino") as engine:
        assert isinstance(engine, OpenVinoEngine)
        assert "u8" in precisions(engine, "Convolution")
        frame = np.full((1, 1, SIDE, SIDE), 2.0, dtype=np.float32)
        feature = engine.infer({"frame": frame, "past": np.zeros((1, 2, 2), dtype=np.float32)})["feature"]
    assert feature[0, 1] == channels * 9 * 2.0 * 0.5  # an inner pixel; the mean has the border's smaller sums


def test_the_self_test_passes_on_the_bundled_model() -> None:
    with Recognizer.load(artifact.BUNDLED, engine="openvino") as recognizer:
        assert recognizer.self_test_error is not None
        assert recognizer.self_test_error < 1e-2
        assert recognizer.engine.name.startswith("openvino ")


def test_few_batch_sizes_have_a_model_of_their_own(step: Artifact) -> None:
    """Each holds a copy of the weights: eight cameras must not need eight."""
    with open_engine(step, engine="openvino") as engine:
        for batch in (1, 2, 3, 4, 2, 5, 1):
            binding = engine.bind(batch)
            binding.frame[:] = np.arange(batch, dtype=np.float32)[:, None, None, None]
            binding.run()
            assert binding.feature[:, 0].tolist() == list(range(batch))
        assert sorted(engine._compiled) == [-1, 1, 2]


@pytest.mark.skipif({"GPU", "NPU"} & set(openvino.Core().available_devices), reason="a device is there")
@pytest.mark.parametrize("provider", ["gpu", "npu"])
def test_without_the_device_it_falls_back_with_a_reason_or_raises_when_strict(step: Artifact, provider: str) -> None:
    reason = f"{provider} was requested, but OpenVINO finds only CPU"
    with open_engine(step, engine="openvino", provider=provider) as engine:
        assert (engine.providers, engine.fallback_reason) == (("CPU",), reason)
        engine.bind(1).run()
    with pytest.raises(ArtifactError, match=f"{reason}\\. Expected the {provider} provider"):
        open_engine(step, engine="openvino", provider=provider, strict=True)


@pytest.mark.parametrize(
    ("provider", "devices", "wanted"),
    [
        ("gpu", ["CPU", "GPU"], {"INFERENCE_PRECISION_HINT": "f32"}),
        ("gpu", ["CPU", "GPU.0", "GPU.1"], {"INFERENCE_PRECISION_HINT": "f32"}),
        ("npu", ["CPU", "NPU"], {}),
    ],
)
def test_a_device_that_is_there_gets_a_fixed_shape_and_no_settings_of_the_cpu(
    step: Artifact, monkeypatch: pytest.MonkeyPatch, provider: str, devices: list[str], wanted: dict[str, str]
) -> None:
    """There is none here: the CPU stands in, asked as the device would be."""
    asked = []

    class Core(openvino.Core):
        available_devices = devices

        def compile_model(self, model, device, settings):
            asked.append((device, settings, model.inputs[0].shape[0]))
            return super().compile_model(model, "CPU")

    monkeypatch.setattr("kd_edge.engines.openvino._core", lambda openvino: Core())
    with open_engine(step, engine="openvino", provider=provider, threads=2, strict=True):
        pass
    assert asked == [(provider.upper(), {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, **wanted}, 1)]


def test_closing_frees_the_models(step: Artifact) -> None:
    engine = open_engine(step, engine="openvino")
    binding = engine.bind(1)
    binding.run()
    compiled = engine._compiled[1]
    engine.close()
    assert sys.getrefcount(compiled) == 2  # this test's name and the call's argument
    assert binding.feature.shape == (1, 2)


def test_a_refusal_says_what_openvino_says_last(
    unchecked: Callable[[bytes], Artifact], capfd: pytest.CaptureFixture[str]
) -> None:
    """Its messages begin with the places in its source that an error came through."""
    model = step_model()
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(ArtifactError, match=r"refused by openvino [\d.]+: .*No conversion rule.*NoSuchOperator-20\."):
        open_engine(unchecked(model.SerializeToString()), engine="openvino")
    assert capfd.readouterr() == ("", "")


def test_a_failing_run_says_what_openvino_says_last(step: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    """An array of another shape than the graph's."""
    tensor = openvino.Tensor
    monkeypatch.setattr(openvino, "Tensor", lambda array, shared_memory: tensor(array[:, None].copy()))
    with (
        open_engine(step, engine="openvino") as engine,
        pytest.raises(ArtifactError, match=r"^the engine failed: Can't set the input tensor") as caught,
    ):
        engine.bind(1).run()
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_nothing_is_written_and_its_converter_stays_out(step: Artifact, tmp_path: Path) -> None:
    """The converter leaves a client id in the home folder and sends an event to its maker when it is imported."""
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    program = (
        "import sys; from kd_edge import artifact; from kd_edge.engines import open_engine\n"
        f"with open_engine(artifact.load({str(step.path)!r}), engine='openvino') as engine: engine.bind(1).run()\n"
        "assert not [name for name in sys.modules if 'telemetry' in name or name.startswith('openvino.tools.ovc')]\n"
        "import importlib.util; assert importlib.util.find_spec('openvino.tools.ovc')\n"  # for whoever wants it
    )
    environment = {**os.environ, "HOME": str(home), "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("CI", None)  # there it would be silent by itself
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=here, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [*home.rglob("*"), *here.rglob("*")] == []
