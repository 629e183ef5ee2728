"""What is ONNX Runtime's own: shared memory, sleeping threads, its ways of dropping CUDA, its telemetry."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from kd_edge.artifact import Artifact
from kd_edge.engines import open_engine
from kd_edge.engines.onnxruntime import load_onnxruntime
from kd_edge.errors import ArtifactError

from .conftest import step_model

onnxruntime = load_onnxruntime()


def test_ortvalue_shares_memory_with_numpy() -> None:
    array = np.zeros((2, 3), dtype=np.float32)
    value = onnxruntime.OrtValue.ortvalue_from_numpy(array)
    array[1, 2] = 7
    assert value.numpy()[1, 2] == 7
    assert value.data_ptr() == array.ctypes.data


def test_reports_what_it_runs_on(step: Artifact) -> None:
    with open_engine(step, engine="onnxruntime") as engine:
        assert engine.name == f"onnxruntime {onnxruntime.__version__}"
        assert engine.providers == ("CPUExecutionProvider",)


def test_one_thread_that_sleeps_by_default(step: Artifact) -> None:
    for options, threads in (({}, 1), ({"threads": 2}, 2)):
        with open_engine(step, engine="onnxruntime", **options) as engine:
            used = engine._session.get_session_options()
        assert (used.intra_op_num_threads, used.inter_op_num_threads) == (threads, 1)
        assert used.get_session_config_entry("session.intra_op.allow_spinning") == "0"
        assert used.get_session_config_entry("session.inter_op.allow_spinning") == "0"


def test_threads_are_counted(step: Artifact) -> None:
    started = {}
    for threads in (1, 3):
        before = set(os.listdir("/proc/self/task"))
        with open_engine(step, engine="onnxruntime", threads=threads) as engine:
            engine.bind(1).run()
            started[threads] = len(set(os.listdir("/proc/self/task")) - before)
    assert started == {1: 0, 3: 2}


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="CUDA is there")
def test_without_cuda_it_falls_back_with_a_reason_or_raises_when_strict(step: Artifact) -> None:
    reason = "cuda was requested, but this onnxruntime has no CUDAExecutionProvider"
    with open_engine(step, engine="onnxruntime", provider="cuda") as engine:
        assert engine.providers == ("CPUExecutionProvider",)
        assert engine.fallback_reason == reason
    with pytest.raises(ArtifactError, match=reason):
        open_engine(step, engine="onnxruntime", provider="cuda", strict=True)


def test_session_that_silently_dropped_cuda_is_noticed(step: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime-gpu lists providers it cannot load, and the session then runs on the CPU."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    with pytest.warns(UserWarning, match="not in available provider"):
        engine = open_engine(step, engine="onnxruntime", provider="cuda")
    assert engine.fallback_reason == "cuda was requested, but the session runs on CPUExecutionProvider"


def test_closing_frees_the_session(step: Artifact) -> None:
    """Nothing else may hold it: its weights are most of a robot's memory."""
    engine = open_engine(step, engine="onnxruntime")
    binding = engine.bind(1)
    binding.run()
    session = engine._session
    engine.close()
    assert sys.getrefcount(session) == 2  # this test's name and the call's argument
    assert binding.feature.shape == (1, 2)


def test_a_failure_while_running_becomes_an_artifact_error(step: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    """An input that was never bound: the message is ONNX Runtime's own."""
    monkeypatch.setattr(onnxruntime.IOBinding, "bind_ortvalue_input", lambda self, name, value: None)
    with (
        open_engine(step, engine="onnxruntime") as engine,
        pytest.raises(ArtifactError, match=r"^the engine failed: .*frame") as caught,
    ):
        engine.bind(1).run()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("choice", "events"), [(None, False), ("1", False), ("0", True)])
def test_telemetry_is_off_unless_the_user_allows_it(tmp_path, choice, events):
    """In a process of its own: the switch is read when the library is loaded."""
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    if choice is not None:
        environment["ORT_DISABLE_TELEMETRY"] = choice
    program = "import os; from kd_edge.engines.onnxruntime import load_onnxruntime as l; l()\n"
    program += f"assert os.environ.get('ORT_DISABLE_TELEMETRY') == {choice!r}"
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    written = [p for p in tmp_path.rglob("*") if p.is_file()]
    if not events:
        assert written == []


def test_a_refused_graph_prints_nothing_of_the_library_s_own(
    unchecked: Callable[[bytes], Artifact], capfd: pytest.CaptureFixture[str]
) -> None:
    """After a try on the CPU that failed it tries the CPU, and says so on standard output, where labels go."""
    graph = step_model().SerializeToString().replace(b"ReduceMean", b"Reduce\xffean")
    with pytest.raises(ArtifactError, match="is refused by onnxruntime") as caught:
        open_engine(unchecked(graph), engine="onnxruntime")
    assert str(caught.value).isprintable()
    assert capfd.readouterr().out == ""


def test_no_memory_for_the_arrays_is_one_line(step: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    def zeros(*_: object, **__: object) -> None:
        raise MemoryError

    with open_engine(step, engine="onnxruntime") as engine:
        monkeypatch.setattr(np, "zeros", zeros)
        with pytest.raises(ArtifactError, match="the engine failed: MemoryError"):
            engine.bind(1)
