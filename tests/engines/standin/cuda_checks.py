"""Run by ``tests/engines/cuda/test_standin.py`` in a process of its own: a real binding on the stand-in driver.

``KD_EDGE_BINDING`` names the binding.
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from kd_edge import artifact
from kd_edge.artifact import Artifact
from kd_edge.engines import carry, engine_ladder, open_engine
from kd_edge.engines.cuda import find_gpu, open_device
from kd_edge.engines.tensorrt import plans
from kd_edge.errors import ArtifactError, DeviceError, EngineError, KdEdgeError
from kd_edge.runtime import Recognizer, stream
from kd_edge.types import LabelState, Reason

from ..conftest import STATES, step_model

BINDING = os.environ["KD_EDGE_BINDING"]
CAPTURES = BINDING == "cuda-python"
CUDA = ctypes.CDLL("libcuda.so.1")
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


def opened(model: Artifact, **options: object):
    return open_engine(model, engine="tensorrt", cuda_binding=BINDING, **options)


def test_bytes_come_back_as_they_went(step: Artifact) -> None:
    device = open_device(BINDING)
    with device.current():
        there, back = device.pinned(5000), device.pinned(5000)
        address = device.memory(5000)
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
    with pytest.raises(EngineError, match="given back"), device.current():
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


def test_a_push_is_few_calls_and_no_allocation(step: Artifact) -> None:
    with opened(step) as engine:
        binding = engine.bind(1)
        binding.run()
        before, allocated = calls(), live()
        for _ in range(10):
            binding.run()
        # push, launch, synchronise, pop; without graphs: push, copy, run, copy, synchronise, pop
        assert (calls() - before) / 10 == (4 if CAPTURES else 6)
        assert live() == allocated


def test_labels_of_a_whole_recording_are_the_cpus() -> None:
    camera = "synthetic:?realtime=false&frames=400"
    given = []
    for engine in ("onnxruntime", "tensorrt"):
        with stream(model=artifact.BUNDLED, camera=camera, engine=engine, cuda_binding=BINDING, strict=True) as labels:
            assert labels.recognizer.engine.key == engine
            given.append([(p.label, p.state, p.confidence, p.captured_ns) for p in labels])
    assert given[0] == given[1]
    assert len(given[0]) == 400
    assert {state for _, state, *_ in given[0]} >= {LabelState.OK, LabelState.WARMING}


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
    [  # the plan's weights, the two arenas and a context; the arenas' pages
        ("cuMemAlloc_v2", 4),
        ("cuMemHostRegister_v2", 2),
        ("cuStreamCreate", 1),
        ("cuInit", 1),
        ("cuMemcpyHtoDAsync_v2", 1),
        ("cuMemcpyDtoHAsync_v2", 1),
        ("cuStreamSynchronize", 1),
    ],
)
def test_memory_or_a_device_that_is_gone_at_any_call_is_a_named_error(
    step: Artifact, function: str, reached: int
) -> None:
    with opened(step):  # its plan is built
        pass
    for number in range(1, reached + 1):
        sticky = "+" * (function == "cuMemAlloc_v2")  # which pycuda tries twice
        fail(f"{function}:{number}{sticky}=2")
        with pytest.raises(KdEdgeError, match=r"OUT_OF_MEMORY|out of memory|error 2"), opened(step) as engine:
            engine.bind(2).run()


def test_a_device_that_is_lost_steps_down_once_and_keeps_its_window() -> None:
    camera = "synthetic:?realtime=false&frames=400"
    with stream(model=artifact.BUNDLED, camera=camera) as labels:
        expected = list(labels)
    degraded = 0
    with (
        Recognizer.load(artifact.BUNDLED, engine="tensorrt", cuda_binding=BINDING) as recognizer,
        stream(model=recognizer, camera=camera) as labels,
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
        with pytest.raises(DeviceError, match=r"CUDA_ERROR_LAUNCH_FAILED|launch|fakecuda error"):
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
        said = [line for line in caplog.messages if "refuses the plan that was kept" in line]
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
    assert any("refuses the plan that was kept" in line and why in line for line in caplog.messages)


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
def test_a_graph_that_computes_something_else_is_not_used(
    step: Artifact, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(step) as engine, open_engine(step) as reference:
        monkeypatch.setenv("STANDIN_TENSORRT", "wrong-graph")
        binding = engine.bind(1)
        monkeypatch.delenv("STANDIN_TENSORRT")
        assert any("runs without a CUDA graph: it computes something else" in line for line in caplog.messages)
        binding.frame.fill(3)
        binding.run()
        np.testing.assert_array_equal(binding.logits, reference.infer(dict(binding.inputs))["logits"])
    fail("cuStreamBeginCapture_v2:1=801")
    with opened(step) as engine:
        engine.bind(1).run()
    assert any("runs without a CUDA graph: the GPU answers" in line for line in caplog.messages)


def test_another_thread_is_told_whose_engine_it_is_and_may_take_it_over(step: Artifact) -> None:
    def elsewhere(call: Callable[[], object]) -> BaseException | None:
        errors: list[BaseException] = []

        def run() -> None:
            try:
                call()
            except KdEdgeError as error:
                errors.append(error)

        thread = threading.Thread(target=run, name="other")
        thread.start()
        thread.join(60)
        return errors[0] if errors else None

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
        thread = threading.Thread(target=binding.run)
        thread.start()
        thread.join(60)
        binding.run()


def test_arrays_that_are_let_go_of_stay_registered_until_the_engine_is_closed(step: Artifact) -> None:
    with opened(step) as engine:
        engine.bind(1)
        gc.collect()
        assert live()["host"] == 2
        assert len(engine._device._pinned) == 2


def test_closing_waits_for_a_step_and_a_step_that_hangs_gives_back_itself(
    step: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kd_edge.engines.cuda.device.CLOSE_SECONDS", 0.1)
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
    with opened(step) as one, opened(stateful) as other:
        first, second = one.bind(1), other.bind(2)
        for _ in range(3):
            first.run()
            second.run()


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
