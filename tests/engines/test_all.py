"""One table of behaviours for every engine that is installed here."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kd_edge.artifact import Artifact
from kd_edge.engines import ENGINES, EngineName, carry, open_engine
from kd_edge.errors import ArtifactError, EngineError
from kd_edge.preprocess import Preprocess

from .conftest import SEGMENTS, SIDE, STATES, backbone_model, clip_model, step_model

pytestmark = pytest.mark.parametrize(  # ncnn runs a converted model, not these graphs
    "name",
    [name for name, kind in ENGINES.items() if kind.is_installed() and kind.obstacle() is None and name != "ncnn"],
)


def clips() -> np.ndarray:
    """Two clips (2, T, 1, S, S): frames of 1, 2, 3 and of 10, 20, 30, one pixel of each 64 higher."""
    clip = np.ones((2, SEGMENTS, 1, SIDE, SIDE), dtype=np.float32)
    clip *= np.float32([[1, 2, 3], [10, 20, 30]])[:, :, None, None, None]
    clip[..., 0, 0] += 64
    return clip


LOGITS = {  # sums of means and of maxima; with states the maximum comes one frame late, 0 at first
    False: [[1 + 2 + 3 + 3, 65 + 66 + 67], [10 + 20 + 30 + 3, 74 + 84 + 94]],
    True: [[1 + 2 + 3 + 3, 0 + 65 + 66], [10 + 20 + 30 + 3, 0 + 74 + 84]],
}


@pytest.mark.parametrize("states", [False, True])
def test_stepping_through_a_clip_is_the_clip_graph(
    name: EngineName, save: Callable[..., Artifact], states: bool
) -> None:
    with (
        open_engine(save(step_model(states=states), states=STATES if states else ()), engine=name) as step,
        open_engine(save(clip_model(states=states), graph="clip"), engine=name) as whole,
    ):
        for _ in range(2):  # nothing is left over from the clip before
            np.testing.assert_allclose(step.run_clip(clips()), LOGITS[states], rtol=1e-6)
            np.testing.assert_allclose(whole.run_clip(clips()), LOGITS[states], rtol=1e-6)
        np.testing.assert_allclose(step.run_clip(clips()[1:]), LOGITS[states][1:], rtol=1e-6)


def test_runs_on_the_bound_arrays_and_allocates_nothing_of_their_size(name: EngineName, step: Artifact) -> None:
    """The arrays are the engine's own memory: what is written in place is read, what is put out lands in place."""
    with open_engine(step, engine=name) as engine:
        binding = engine.bind(2)
        arrays = {**binding.inputs, **binding.outputs}
        assert {n: (a.shape, a.dtype.name, float(a.max())) for n, a in arrays.items()} == {
            "frame": ((2, 1, 8, 8), "float32", 0.0),
            "past": ((2, 2, 2), "float32", 0.0),
            "feature": ((2, 2), "float32", 0.0),
            "logits": ((2, 2), "float32", 0.0),
        }
        feature, logits = binding.feature, binding.logits
        for fill in (1.0, 2.0):
            binding.frame[0], binding.frame[1] = fill, 3.0
            binding.frame[0, 0, 0, 0] = 65.0
            binding.past[:] = 10.0
            binding.run()
            np.testing.assert_allclose(feature, [[(63 * fill + 65) / 64, 65.0], [3.0, 3.0]], rtol=1e-6)
            np.testing.assert_allclose(logits, feature + 20.0, rtol=1e-6)
        many = engine.bind(512)  # the smallest array, the features, takes 4096 bytes
        many.run()
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            for _ in range(20):
                many.run()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak - before < 4_000
        assert all(getattr(binding, n) is a for n, a in arrays.items())


def test_states_are_carried_from_step_to_step(name: EngineName, stateful: Artifact) -> None:
    with open_engine(stateful, engine=name) as engine:
        binding = engine.bind(1)
        seen = []
        for level in (5.0, 7.0, 9.0):
            binding.frame[:] = level
            binding.run()
            seen.append(binding.feature[0].tolist())
            carry(binding)
        assert seen == [[5.0, 0.0], [7.0, 5.0], [9.0, 7.0]]
        binding.reset()
        assert not any(array.any() for array in binding.inputs.values())
        binding.run()
        assert binding.feature[0].tolist() == [0.0, 0.0]


def test_bindings_do_not_share_arrays(name: EngineName, stateful: Artifact) -> None:
    with open_engine(stateful, engine=name) as engine:
        one, other = engine.bind(1), engine.bind(1)
        one.frame[:] = 5.0
        one.run()
        assert other.frame.max() == other.feature.max() == other.states_out[0].max() == 0
        engine.run_clip(clips())
        assert one.feature[0].tolist() == [5.0, 0.0]


def test_infer_takes_arrays_by_name(name: EngineName, save: Callable[..., Artifact], step: Artifact) -> None:
    frame = clips()[:, 1]
    with open_engine(step, engine=name) as engine:
        given = {"frame": frame, "past": np.ones((2, 2, 2), dtype=np.float32)}
        assert engine.check_inputs(given) == 2
        found = engine.infer(given)
        engine.infer({"frame": 0 * frame, "past": 0 * given["past"]})  # what the first run gave is the caller's own
    assert {n: a.tolist() for n, a in found.items()} == {
        "feature": [[3.0, 66.0], [21.0, 84.0]],
        "logits": [[5.0, 68.0], [23.0, 86.0]],
    }
    with open_engine(save(backbone_model(), graph="backbone"), engine=name) as backbone:
        assert backbone.infer({"frame": frame})["feature"].tolist() == [[3.0, 66.0], [21.0, 84.0]]
        with pytest.raises(EngineError, match=r"a backbone graph\. Expected a step or clip graph"):
            backbone.run_clip(clips())


def test_wrong_inputs_are_refused_with_what_was_expected(name: EngineName, step: Artifact) -> None:
    frame, past = np.zeros((2, 1, 8, 8), dtype=np.float32), np.zeros((2, 2, 2), dtype=np.float32)
    refused = [
        ({"frame": frame}, "no input 'past'. Expected the inputs frame, past."),
        ({"frame": frame, "pats": past}, "input 'pats' (did you mean 'past'?). Expected the inputs frame, past."),
        (
            {"frame": frame.astype(np.float64), "past": past},
            "frame float64 (2, 1, 8, 8). Expected frame float32 (batch, 1, 8, 8).",
        ),
        ({"frame": frame[0], "past": past}, "frame float32 (1, 8, 8). Expected frame float32 (batch, 1, 8, 8)."),
        ({"frame": frame, "past": past[:1]}, "past float32 (1, 2, 2). Expected past float32 (2, 2, 2)."),
        ({"frame": frame.tolist(), "past": past}, "frame list. Expected frame float32 (batch, 1, 8, 8)."),
        ({"frame": frame[:0], "past": past[:0]}, "a batch of 0. Expected at least one source."),
    ]
    with open_engine(step, engine=name) as engine:
        for inputs, message in refused:
            with pytest.raises(EngineError) as caught:
                engine.infer(inputs)
            assert str(caught.value).startswith(f"{message} Fix: ")
        for clip, message in (
            (clips()[0], "clip float32 (3, 1, 8, 8). Expected clip float32 (batch, 3, 1, 8, 8)."),
            (clips()[:, :2], "clip float32 (2, 2, 1, 8, 8). Expected clip float32 (batch, 3, 1, 8, 8)."),
            (clips().astype(np.uint8), "clip uint8 (2, 3, 1, 8, 8). Expected clip float32 (batch, 3, 1, 8, 8)."),
        ):
            with pytest.raises(EngineError) as caught:
                engine.run_clip(clip)
            assert str(caught.value).startswith(f"{message} Fix: ")


def test_nothing_runs_after_closing_and_closing_twice_is_fine(name: EngineName, step: Artifact) -> None:
    engine = open_engine(step, engine=name)
    binding = engine.bind(1)
    binding.frame[:] = 4.0
    binding.run()
    engine.close()
    engine.close()
    assert binding.feature[0].tolist() == [4.0, 4.0]  # what was put out is still there
    given = {"frame": binding.frame, "past": binding.past}
    for use in (binding.run, lambda: engine.bind(1), lambda: engine.infer(given), lambda: engine.run_clip(clips())):
        with pytest.raises(
            EngineError, match=r"the engine is closed\. Expected an open one\. Fix: open the model again"
        ):
            use()


def test_a_with_block_closes_also_after_an_exception(name: EngineName, step: Artifact) -> None:
    engine = open_engine(step, engine=name)
    with pytest.raises(ZeroDivisionError), engine:
        raise ZeroDivisionError
    with pytest.raises(EngineError, match="the engine is closed"):
        engine.bind(1)


def test_a_failing_run_is_one_clear_line(name: EngineName, step: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise RuntimeError("device lost\nat line 7 of kernel.cc")

    for error, told in (
        (fails, "device lost"),
        (lambda: [][1], "list index out of range"),
        (lambda: next(iter([])), "StopIteration"),
    ):
        with open_engine(step, engine=name) as engine, monkeypatch.context() as patch:
            patch.setattr(engine, "_bind", lambda inputs, outputs, error=error: error)
            with pytest.raises(ArtifactError, match=f"^the engine failed: {told}. Expected a model") as caught:
                engine.bind(1).run()
            assert "\n" not in str(caught.value)


def test_one_thread_is_the_callers(name: EngineName, step: Artifact) -> None:
    """Another one may be there, but it computes nothing."""
    with open_engine(step, engine=name, threads=1) as engine:
        binding = engine.bind(256)
        binding.run()
        own, all_threads = time.thread_time(), time.process_time()
        for _ in range(200):
            binding.run()
        own, all_threads = time.thread_time() - own, time.process_time() - all_threads
    assert all_threads < 1.1 * own


def test_threads_end_with_the_engine(name: EngineName, step: Artifact) -> None:
    with open_engine(step, engine=name, threads=2) as first:  # a library's own, which stay: OpenMP keeps its team
        first.bind(1).run()
    del first
    before = set(os.listdir("/proc/self/task"))
    for _ in range(2):
        with open_engine(step, engine=name, threads=2) as engine:
            engine.bind(1).run()
        del engine
    assert set(os.listdir("/proc/self/task")) <= before


def test_other_python_threads_go_on_while_it_runs(name: EngineName, step: Artifact) -> None:
    """The camera's thread must not wait for the network: a run that holds the interpreter's lock lets none in."""
    with open_engine(step, engine=name) as engine:
        binding, passes, done = engine.bind(4096), [0], threading.Event()

        def pass_by() -> None:
            while not done.is_set():
                passes[0] += 1
                time.sleep(0)

        other = threading.Thread(target=pass_by)
        before = sys.getswitchinterval()
        sys.setswitchinterval(60)  # nobody is made to give the lock away
        other.start()
        try:
            seen = passes[0]
            for _ in range(50):
                binding.run()
                if passes[0] > seen:
                    break
            assert passes[0] > seen
        finally:
            done.set()
            sys.setswitchinterval(before)
            other.join()


def test_says_what_it_runs_on(name: EngineName, step: Artifact) -> None:
    with open_engine(step, engine=name) as engine:
        assert engine.name.split()[0] == name
        assert engine.providers
        assert engine.fallback_reason is None
        assert engine.manifest is step.manifest


def test_a_fallback_is_said_or_with_strict_refused(
    name: EngineName, step: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is a GPU as well: the engine is made to say that it fell back."""
    kind = ENGINES[name]
    load = kind._load

    def on_the_cpu(self, artifact, threads, provider):
        found = load(self, artifact, threads, "cpu")
        self.fallback_reason = None if provider == "cpu" else f"{provider} was asked for, there is none"
        return found

    monkeypatch.setattr(kind, "_load", on_the_cpu)
    monkeypatch.setattr(kind, "accepts", ("cpu", "cuda"))
    with open_engine(step, engine=name, provider="cuda") as engine:
        assert engine.fallback_reason == "cuda was asked for, there is none"
        engine.run_clip(clips())
    with pytest.raises(ArtifactError, match=r"cuda was asked for, there is none\. Expected the cuda provider"):
        open_engine(step, engine=name, provider="cuda", strict=True)
    open_engine(step, engine=name, strict=True).close()


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"feature_size": 4}, r"past \(2, 2\)\. Expected past \(2, 4\)"),
        ({"segments": 5}, r"past \(2, 2\)\. Expected past \(4, 2\)"),
        ({"labels": ("a", "b", "c")}, r"logits \(2,\)\. Expected logits \(3,\)"),
        ({"preprocess": Preprocess(resize_px=16, input_px=16)}, r"frame \(1, 8, 8\)\. Expected frame \(1, 16, 16\)"),
        ({"preprocess": Preprocess(resize_px=8, input_px=8, replicate=3)}, r"frame \(1, 8, 8\)\. Expected frame \(3"),
        ({"states": STATES}, r"no state_in_0\. Expected state_in_0 \(1, 8, 8\)"),
        ({"graph": "clip"}, r"no clip\. Expected clip \(3, 1, 8, 8\)"),
        ({"graph": "backbone"}, r"input past, which is not in its manifest\. Expected the inputs frame"),
    ],
)
def test_a_graph_that_contradicts_its_manifest_is_refused(
    name: EngineName, save: Callable[..., Artifact], changes: dict[str, object], found: str
) -> None:
    with pytest.raises(ArtifactError, match=f"has {found}"):
        open_engine(save(step_model(), **changes), engine=name)


def test_a_graph_the_engine_refuses_is_one_clear_line(name: EngineName, unchecked: Callable[[bytes], Artifact]) -> None:
    model = step_model()
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(ArtifactError, match=f"is refused by {name} [0-9.]+") as caught:
        open_engine(unchecked(model.SerializeToString()), engine=name)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_neither_torch_nor_onnx_is_imported(name: EngineName, step: Artifact, tmp_path: Path) -> None:
    program = (
        "import sys, numpy; from kd_edge import artifact; from kd_edge.engines import open_engine\n"
        f"with open_engine(artifact.load({str(step.path)!r}), engine={name!r}) as engine:\n"
        "    engine.run_clip(numpy.ones((1, 3, 1, 8, 8), dtype=numpy.float32))\n"
        "assert not {'torch', 'torchvision', 'onnx'} & sys.modules.keys()"
    )
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
