"""Run by ``tests/engines/cuda/test_standin.py`` in a process of its own: a real binding on the stand-in driver.

``KD_EDGE_BINDING`` names the binding, ``KD_EDGE_CAUSAL`` an artifact that carries states.
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import json
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from kd_edge import artifact
from kd_edge.artifact import Artifact
from kd_edge.engines import carry, engine_ladder, open_engine
from kd_edge.engines.cuda import find_gpu, open_device
from kd_edge.engines.tensorrt import plans
from kd_edge.errors import ArtifactError, DeviceError, EngineError, KdEdgeError
from kd_edge.runtime import Recognizer, stream
from kd_edge.types import LabelState, Prediction, Reason

from ..conftest import STATES, step_model

BINDING = os.environ["KD_EDGE_BINDING"]
CAUSAL = Path(os.environ["KD_EDGE_CAUSAL"])
"""An artifact that carries states."""
CAPTURES = BINDING == "cuda-python"
CUDA = ctypes.CDLL("libcuda.so.1")
LEFT: list[object] = []
KINDS = ("device", "host", "contexts", "retained", "streams", "events", "graphs", "depth")


def live() -> dict[str, int]:
    return {kind: CUDA.fakecuda_live(kind.encode()) for kind in KINDS}


def fail(rules: str) -> None:
    CUDA.fakecuda_fail(rules.encode())


def calls(name: str = "*") -> int:
    return int(CUDA.fakecuda_count(name.encode()))


@pytest.fixture(autouse=True)
def _given_back() -> Iterator[None]:
    """Whatever a test does, all of the GPU's memory is given back, and no context stays current."""
    fail("")
    before = live()
    yield
    fail("")
    gc.collect()  # tracebacks of expected errors hold on to what they failed on
    assert live() == before


@pytest.fixture(autouse=True, scope="module")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KD_EDGE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True, scope="module")
def _left_open(_cache: None) -> Iterator[None]:
    """The program ends with an engine that nobody has closed."""
    yield
    engine = opened(artifact.load(artifact.BUNDLED))
    LEFT.extend([engine, engine.bind(1)])


def elsewhere(call: Callable[[], object]) -> KdEdgeError | None:
    """What a call raises in another thread."""
    errors: list[KdEdgeError] = []

    def run() -> None:
        try:
            call()
        except KdEdgeError as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="other")
    thread.start()
    thread.join(60)
    return errors[0] if errors else None


def opened(model: Artifact, **options: object):
    return open_engine(model, engine="tensorrt", cuda_binding=BINDING, **options)


def test_bytes_come_back_as_they_went(step: Artifact) -> None:
    device = open_device(BINDING)
    with device.current():
        lease = device.lease()
        there, back = lease.pinned(5000), lease.pinned(5000)
        address = lease.memory(5000)
        there[:] = np.arange(5000) % 251
        device.upload(address, there)
        device.download(back, address)
        device.synchronize()
        np.testing.assert_array_equal(back, there)
        assert there.ctypes.data % 4096 == 0
    assert live()["device"] == 1
    device.close()
    device.close()
    assert back[4999] == 4999 % 251  # the array outlives the device
    with pytest.raises(EngineError, match="the GPU is closed"), device.current():
        pass


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("states", [False, True])
def test_it_computes_what_onnxruntime_does(save: Callable[..., Artifact], states: bool, batch: int) -> None:
    model = save(step_model(states=states), states=STATES if states else ())
    rng = np.random.default_rng(batch)
    with opened(model) as engine, open_engine(model) as reference:
        assert engine.name == "tensorrt 10.16.1.standin"
        assert engine.providers == (str(find_gpu()),)
        one, other = engine.bind(batch), reference.bind(batch)
        assert not any(array.any() for array in (one.inputs | one.outputs).values())
        for _ in range(4):
            for name in ("frame", "past"):
                one.inputs[name][:] = other.inputs[name][:] = rng.standard_normal(one.inputs[name].shape)
            one.run()
            other.run()
            for name in other.outputs:
                np.testing.assert_array_equal(one.outputs[name], other.outputs[name])
            kept = one.logits.copy()
            carry(one)
            carry(other)
        np.testing.assert_array_equal(one.logits, kept)
    np.testing.assert_array_equal(one.logits, kept)  # arrays stay readable when the engine is closed
    with pytest.raises(EngineError, match="closed"):
        one.run()


RUN = ["cuGraphLaunch"] if CAPTURES else ["cuMemcpyHtoDAsync_v2", "cuLaunchHostFunc", "cuMemcpyDtoHAsync_v2"]
PUSH = ["cuCtxPushCurrent_v2", *RUN, "cuStreamSynchronize", "cuCtxPopCurrent_v2"]
"""Every call of the driver in a push; ``cuLaunchHostFunc`` is the stand-in library's run."""


def test_a_push_is_few_calls_and_no_allocation(step: Artifact) -> None:
    with opened(step) as engine:
        binding = engine.bind(3)
        binding.run()
        before, allocated = {name: calls(name) for name in ("*", *PUSH)}, live()
        for _ in range(10):
            binding.run()
        assert {name: (calls(name) - count) / 10 for name, count in before.items()} == {
            "*": len(PUSH), **dict.fromkeys(PUSH, 1)
        }  # fmt: skip
        assert live() == allocated


CAMERA = "synthetic:?realtime=false&frames=400"


@pytest.fixture(scope="module")
def expected() -> list[Prediction]:
    """What the CPU says of a recording."""
    with stream(model=artifact.BUNDLED, camera=CAMERA) as labels:
        return list(labels)


def test_labels_of_a_whole_recording_are_the_cpus(expected: list[Prediction]) -> None:
    with stream(model=artifact.BUNDLED, camera=CAMERA, engine="tensorrt", cuda_binding=BINDING, strict=True) as labels:
        assert labels.recognizer.engine.key == "tensorrt"
        given = list(labels)
    assert len(given) == len(expected) == 400
    for one, other in zip(given, expected, strict=True):
        assert (one.label, one.state, one.captured_ns) == (other.label, other.state, other.captured_ns)
        np.testing.assert_array_equal(one.probabilities, other.probabilities)
    assert {one.state for one in given} >= {LabelState.OK, LabelState.WARMING}
    assert len({one.label for one in given}) > 2


def test_a_model_that_carries_states_labels_as_on_the_cpu() -> None:
    """A causal TSM: what a step leaves behind is the next one's input."""
    given = []
    for engine in ("onnxruntime", "tensorrt"):
        camera = "synthetic:?realtime=false&frames=200"
        with stream(model=CAUSAL, camera=camera, engine=engine, cuda_binding=BINDING, strict=True) as labels:
            assert labels.recognizer.manifest.states
            given.append([(one.state, one.probabilities.tobytes()) for one in labels])
    assert given[0] == given[1]
    assert len({probabilities for _, probabilities in given[0]}) > 10


def test_labels_of_a_real_recording_are_the_cpus(save: Callable[..., Artifact], utd_root: Path) -> None:
    depth = {"modality": "depth", "band": "depth", "dtype": "uint16", "value_unit": "mm", "value_range": (0, 65535)}
    model = save(step_model(), **depth)
    camera = f"replay:{next(utd_root.glob('Depth/*a1_s1_t1_depth.mat'))}"
    given = []
    for engine in ("onnxruntime", "tensorrt"):
        with stream(model=model, camera=camera, engine=engine, cuda_binding=BINDING, strict=True) as labels:
            given.append([(p.label, p.state, p.probabilities.tobytes()) for p in labels])
    assert given[0] == given[1]
    assert len(given[0]) > 30
    assert len({probabilities for *_, probabilities in given[0]}) > 10


@pytest.mark.parametrize(
    ("function", "reached"),
    [("cuMemAlloc", 2), ("cuMemHostRegister", 2), ("cuStreamCreate", 1), ("cuMemcpyHtoDAsync", 1)],
)
def test_memory_that_is_not_there_is_named_with_its_call(step: Artifact, function: str, reached: int) -> None:
    with opened(step):  # its plan is built
        pass
    others = 1 if function == "cuMemAlloc" else 0  # the weights of the stand-in library's engine
    for number in range(1 + others, 1 + others + reached):
        sticky = "+" * (function == "cuMemAlloc")  # which pycuda tries twice
        fail(f"{function}_v2:{number}{sticky}=2" if function != "cuStreamCreate" else f"{function}:{number}=2")
        answer = f"the GPU answers CUDA_ERROR_OUT_OF_MEMORY to {function}"
        with pytest.raises(DeviceError, match=f"^{answer}\\. Expected") as caught, opened(step) as engine:
            engine.bind(2).run()
        assert "\n" not in str(caught.value)


def test_a_device_that_is_lost_at_any_call_is_one_named_error(step: Artifact) -> None:
    def life() -> None:
        with opened(step) as engine:
            binding = engine.bind(2)
            engine.hand_over()
            if (error := elsewhere(binding.run)) is not None:
                raise error

    life()
    before = calls()
    life()
    told = set()
    for number in range(1, calls() - before + 1):
        fail(f"*:{number}+=999")
        try:
            life()
        except KdEdgeError as error:
            told.add(error.found)
        fail("")
        CUDA.fakecuda_forget()  # what a lost device held is gone with it
        if number % 10 == 0:
            gc.collect()
            life()  # the next one is as good as ever
    assert all("error 999" in found or "CUDA_ERROR_" in found for found in told)  # the library's words, or ours
    for call in ("cuInit", "cuStreamCreate", "cuMemAlloc", "cuMemHostRegister", "cuStreamSynchronize"):
        assert f"the GPU answers CUDA_ERROR_UNKNOWN to {call}" in told


def test_what_a_failed_run_left_in_the_stream_is_done_before_its_memory_is_given_back(step: Artifact) -> None:
    """The stand-in driver ends the process at a copy from or to memory that is not there any more."""
    engine = opened(step)
    binding = engine.bind(1)
    binding.run()
    fail("cuStreamSynchronize:1=719")
    with pytest.raises(DeviceError, match="CUDA_ERROR_LAUNCH_FAILED to cuStreamSynchronize"):
        binding.run()
    engine.close()


def test_a_device_that_is_lost_steps_down_once_and_keeps_its_window(expected: list[Prediction]) -> None:
    degraded = 0
    with (
        Recognizer.load(artifact.BUNDLED, engine="tensorrt", cuda_binding=BINDING) as recognizer,
        stream(model=recognizer, camera=CAMERA) as labels,
    ):
        for k, (given, wanted) in enumerate(zip(labels, expected, strict=True)):
            np.testing.assert_array_equal(given.probabilities, wanted.probabilities)
            if k < 200 or wanted.state is not LabelState.OK:
                assert (given.state, given.reason) == (wanted.state, wanted.reason)
            else:
                assert (given.state, given.reason) == (LabelState.DEGRADED, Reason.FALLBACK)
                degraded += 1
            if k == 199:
                fail("*:1+=999")
        assert recognizer.engine.key != "tensorrt"
        assert recognizer.degraded_reason.startswith("tensorrt failed: the GPU answers ")
        fail("")
    assert degraded > 50
    CUDA.fakecuda_forget()  # what a lost device held is gone with it


def test_strict_does_not_step_down(step: Artifact) -> None:
    with opened(step, strict=True) as engine:
        binding = engine.bind(1)
        binding.run()
        fail("cuStreamSynchronize:1=719")
        with pytest.raises(DeviceError, match="CUDA_ERROR_LAUNCH_FAILED to cuStreamSynchronize"):
            binding.run()
        fail("")
        binding.run()


def test_the_kept_plan_is_used_and_one_that_was_changed_is_built_again(
    step: Artifact, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(step):
        pass
    caplog.clear()
    with opened(step):
        pass
    assert caplog.messages == []
    folder = next(path.parent for path in plans._folder().glob("*.plan"))
    for path in folder.glob("*.plan"):
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    with opened(step):
        pass
    assert any("is not as it was built: it is built again" in line for line in caplog.messages)


def test_a_plan_that_the_library_refuses_is_built_again_once(
    step: Artifact, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refusal = r"refuses its own plan on Fake GPU .*: CUDA initialization failure.* 35"
    with opened(step):
        pass
    monkeypatch.setenv("STANDIN_TENSORRT", "null")
    for refusals in (1, 0):  # of what was kept; after that nothing is kept
        caplog.clear()
        with pytest.raises(DeviceError, match=refusal):
            opened(step)
        said = [line for line in caplog.messages if "refuses the stored plan" in line]
        assert len(said) == refusals
        assert sum("builds a plan for" in line for line in caplog.messages) == 1
    monkeypatch.delenv("STANDIN_TENSORRT")
    with opened(step) as engine:
        engine.bind(1).run()


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [("10.16.1.standin", "10.03.0.standin", "of version 10.03.0"), ("Fake GPU", "Real GPU", "is for Real GPU")],
)
def test_a_plan_of_another_version_or_gpu_behind_right_hashes_is_built_again(
    step: Artifact, caplog: pytest.LogCaptureFixture, old: str, new: str, why: str
) -> None:
    with opened(step):
        pass
    for sidecar in plans._folder().glob("*.json"):
        facts, plan = json.loads(sidecar.read_text()), sidecar.with_suffix(".plan")
        content = plan.read_bytes().replace(old.encode(), new.encode(), 1)
        plan.write_bytes(content)
        facts["sha256"] = hashlib.sha256(content).hexdigest()
        sidecar.write_text(json.dumps(facts))
    with opened(step) as engine:
        engine.bind(1).run()
    assert any("refuses the stored plan" in line and why in line for line in caplog.messages)


def test_the_real_tensorrt_rtx_on_a_driver_that_lacks_calls_is_one_line(step: Artifact) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    with pytest.raises(
        DeviceError, match=r"tensorrt-rtx [\d.]+ refuses its own plan on Fake GPU .*Cuda Runtime"
    ) as caught:
        open_engine(step, engine="tensorrt-rtx", cuda_binding=BINDING)
    assert "\n" not in str(caught.value)
    with Recognizer.load(step, engine="tensorrt-rtx", cuda_binding=BINDING) as recognizer:
        assert recognizer.engine.key != "tensorrt-rtx"
        assert "tensorrt-rtx failed: tensorrt-rtx" in recognizer.degraded_reason


def test_a_graph_the_builder_refuses_is_an_error_in_its_words(save, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STANDIN_TENSORRT", "no-builder")
    with pytest.raises(ArtifactError, match="no kernel of a layer fits this GPU"):
        opened(save(step_model(segments=4), segments=4))


@pytest.mark.skipif(not CAPTURES, reason="the binding knows no graphs")
@pytest.mark.parametrize(
    ("words", "rule", "why"),
    [
        ("wrong-graph", "", "it computes something else"),
        ("idle-graph", "", "it computes something else"),
        ("", "cuStreamBeginCapture_v2:1=801", "the GPU answers CUDA_ERROR_NOT_SUPPORTED to cuStreamBeginCapture"),
        (
            "",
            "cuMemcpyHtoDAsync_v2:3=900",
            "the GPU answers CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED to cuMemcpyHtoDAsync",
        ),
        ("", "cuLaunchHostFunc:3=900", "tensorrt 10.16.1.standin cannot run: enqueueV3: error 900"),
        ("", "cuStreamEndCapture:1=901", "the GPU answers CUDA_ERROR_STREAM_CAPTURE_INVALIDATED to cuStreamEndCapture"),
        ("", "cuGraphInstantiateWithFlags:1=2", "the GPU answers CUDA_ERROR_OUT_OF_MEMORY to cuGraphInstantiate"),
        ("", "cuGraphLaunch:1=2", "the GPU answers CUDA_ERROR_OUT_OF_MEMORY to cuGraphLaunch"),
    ],
)
def test_without_a_graph_that_computes_the_same_the_plain_path_is_used_and_said(
    step: Artifact,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    words: str,
    rule: str,
    why: str,
) -> None:
    with opened(step) as engine, open_engine(step) as reference:
        monkeypatch.setenv("STANDIN_TENSORRT", words)
        fail(rule)
        binding = engine.bind(1)
        monkeypatch.delenv("STANDIN_TENSORRT")
        (said,) = engine.notes
        assert said.startswith(f"runs without a CUDA graph: {why}")
        assert f"{engine.name} {said}" in caplog.messages
        before = calls("cuLaunchHostFunc")
        binding.frame.fill(3)
        binding.run()
        assert calls("cuLaunchHostFunc") == before + 1
        np.testing.assert_array_equal(binding.logits, reference.infer(dict(binding.inputs))["logits"])


def test_it_is_said_how_it_runs(step: Artifact) -> None:
    with opened(step) as engine:
        engine.bind(1)
        assert engine.notes == (("a step is one CUDA graph",) if CAPTURES else ("pycuda does not support CUDA graphs",))


def test_another_thread_is_told_whose_engine_it_is_and_may_take_it_over(step: Artifact) -> None:
    engine = opened(step)
    binding = engine.bind(1)
    error = elsewhere(binding.run)
    assert isinstance(error, EngineError)
    assert "thread 'other' uses the engine of thread 'MainThread'" in str(error)
    engine.hand_over()
    assert elsewhere(binding.run) is None
    engine.close()  # whoever ends the program may close it


def test_a_thread_that_has_ended_owns_nothing(step: Artifact) -> None:
    with opened(step) as engine:
        binding = engine.bind(1)
        engine.hand_over()
        assert elsewhere(binding.run) is None
        binding.run()


def test_memory_that_is_registered_is_nobody_elses() -> None:
    """Whoever let go of the array: the GPU may still write there."""
    device = open_device(BINDING)
    with device.current():
        lease = device.lease()
        memory = lease.pinned(100).base
        assert memory is not None
        alive = weakref.ref(memory)
        del memory
        gc.collect()
        assert live()["host"] == 1
        assert alive() is not None
        del lease
        device.lease()
        assert live()["host"] == 0
        assert alive() is None
    device.close()


def test_closing_waits_for_a_step_and_a_step_that_hangs_gives_back_itself(
    step: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kd_edge.engines.cuda.device.CLOSE_SECONDS", 0.1)
    nothing = live()
    engine = opened(step)
    binding, device = engine.bind(1), engine._device
    engine.hand_over()
    begun, go_on = threading.Event(), threading.Event()
    wait = device.synchronize

    def slow() -> None:
        begun.set()
        assert go_on.wait(60)
        wait()

    monkeypatch.setattr(device, "synchronize", slow)
    thread = threading.Thread(target=binding.run)
    thread.start()
    assert begun.wait(60)
    before = live()
    engine.close()
    assert live() == before  # nothing is taken from under the step
    go_on.set()
    thread.join(60)
    assert live() == nothing
    engine.close()


def test_infer_with_other_batches_takes_no_more_and_more_memory(step: Artifact) -> None:
    with opened(step) as engine:
        inputs = {
            batch: {n: np.zeros((batch, *s), np.float32) for n, s in engine.tensors.inputs.items()} for batch in (1, 2)
        }
        for batch in (1, 2):
            engine.infer(inputs[batch])
        before = live()
        for _ in range(10):
            for batch in (1, 2):
                engine.infer(inputs[batch])
        assert live() == before


def test_more_sources_than_the_plan_takes_are_refused(step: Artifact) -> None:
    with opened(step) as engine, pytest.raises(DeviceError, match=r"a batch of 9\. Expected at most 8"):
        engine.bind(9)


def test_two_engines_share_the_gpu(step: Artifact, stateful: Artifact) -> None:
    rng = np.random.default_rng(0)
    models = [(step, 1), (stateful, 2)]
    with ExitStack() as all_of_them:
        pairs = []
        for model, batch in models:
            engines = [all_of_them.enter_context(engine) for engine in (opened(model), open_engine(model))]
            pairs.append([engine.bind(batch) for engine in engines])
        for _ in range(3):
            for one, other in pairs:  # in turn
                one.frame[:] = other.frame[:] = rng.standard_normal(one.frame.shape)
                one.run()
                other.run()
                np.testing.assert_array_equal(one.logits, other.logits)
                carry(one)
                carry(other)


def test_bindings_that_are_let_go_of_are_given_back_before_more_is_taken(step: Artifact) -> None:
    with opened(step) as engine:
        held = []
        for batch in (1, 3, 2, 1):
            engine.bind(batch).run()
            held.append(live())
        assert held == [held[0]] * 4
        for _ in range(3):
            fail("cuMemHostRegister_v2:2=2")  # of the outputs, half-way
            with pytest.raises(DeviceError, match="CUDA_ERROR_OUT_OF_MEMORY"):
                engine.bind(1)
        fail("")
        engine.bind(1)  # in place of what the attempts had
        gc.collect()  # their tracebacks
        engine.bind(1)
        assert live() == held[0]


def test_an_engine_that_is_forgotten_is_given_back(step: Artifact) -> None:
    binding = opened(step).bind(1)
    binding.run()  # which holds on to its engine
    del binding
    gc.collect()  # and the fixture looks for what is left


def test_closing_waits_for_the_run_that_is_under_way(step: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()
    engine = opened(step)
    binding = engine.bind(1)
    binding.frame.fill(2)
    run = engine._engine[0].session.run

    def slow(*arguments):
        begun.set()
        assert go_on.wait(60)
        return run(*arguments)

    monkeypatch.setattr(engine._engine[0], "session", SimpleNamespace(run=slow))
    engine.hand_over()
    runner, closer = threading.Thread(target=binding.run), threading.Thread(target=engine.close)
    before = live()
    runner.start()
    assert begun.wait(60)
    closer.start()
    while not engine._closed:
        assert closer.is_alive()
    assert live() == before | {"depth": live()["depth"]}
    go_on.set()
    runner.join(60)
    closer.join(60)
    assert binding.logits.tolist() == [[2, 2]]


def test_auto_takes_it_once_its_plan_is_there(save: Callable[..., Artifact]) -> None:
    model = save(step_model(segments=5), segments=5)
    ladder = engine_ladder(model, cuda_binding=BINDING)
    with ladder.open() as engine:
        assert engine.key != "tensorrt"
        assert ladder.awaited() == "tensorrt"
    with opened(model):
        pass
    ladder = engine_ladder(model, cuda_binding=BINDING)
    with ladder.open() as engine:
        assert engine.key == "tensorrt"
        assert (engine.fallback_reason, ladder.awaited()) == (None, None)


def test_the_sidecar_says_what_the_plan_is(step: Artifact) -> None:
    with opened(step):
        pass
    said = [json.loads(path.read_text()) for path in plans._folder().glob("*.json")]
    (mine,) = (s for s in said if s["key"]["artifact"] == step.manifest.sha256)
    assert mine["key"]["gpu"] == "Fake GPU"
    assert (mine["key"]["capability"], mine["key"]["driver"]) == ("8.7", "13.0")
    assert mine["figures"]["shares"] == {
        "told_by": "engine", "layers": 4, "float32": 1, "half": 3, "int8": 0, "other": 0
    }  # fmt: skip
