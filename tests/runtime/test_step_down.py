"""An engine that fails while frames come: the next one goes on with the same window, once, and every label says so."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Callable

import numpy as np
import pytest

from kd_edge.engines.openvino import OpenVinoEngine
from kd_edge.errors import ArtifactError, ConfigError, EngineError
from kd_edge.runtime import Recognizer
from kd_edge.runtime.self_test import SelfTested
from kd_edge.types import LabelState, Reason

from .test_recognizer import golden_clip

MS = 1_000_000
FAILS_AT = 6


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, str], None]:
    """``failing(n, why)``: from its n-th run on OpenVINO fails; counted over all its bindings."""
    pytest.importorskip("openvino")
    bind = OpenVinoEngine._bind

    def failing(first: int, why: str = "CUDA_ERROR_ECC_UNCORRECTABLE") -> None:
        runs = 0

        def failing_bind(self, inputs, outputs):
            run = bind(self, inputs, outputs)

            def counted() -> None:
                nonlocal runs
                runs += 1
                if runs >= first:
                    for array in outputs.values():
                        array.fill(np.float32(1e9))  # half-written
                    raise RuntimeError(why)
                run()

            return counted

        monkeypatch.setattr(OpenVinoEngine, "_bind", failing_bind)

    return failing


def labels(recognizer: Recognizer, frames: np.ndarray, sources: tuple[str, ...] = ("camera",)) -> list:
    given = []
    for k, frame in enumerate(frames):
        pushed = recognizer.push_many(
            {name: (frame if name == "camera" else 255 - frame, k * 50 * MS) for name in sources}
        )
        given += [pushed[name] for name in sources]
    return given


@pytest.mark.parametrize("sources", [("camera",), ("camera", "other")])
def test_the_next_engine_labels_the_frame_the_first_one_failed_on(make_model, noise, failing, sources) -> None:
    path, _ = make_model()
    expected = labels(Recognizer.load(path), noise(20), sources)
    failing(FAILS_AT + 2)  # the first run warms up
    with Recognizer.load(path, engine="openvino") as recognizer:
        first = recognizer.engine
        given = labels(recognizer, noise(20), sources)
        name = recognizer.engine.name
        assert name.startswith("onnxruntime")
    with pytest.raises(EngineError, match="closed"):
        first.bind(1)
    detail = f"openvino failed: the engine failed: CUDA_ERROR_ECC_UNCORRECTABLE; {name} takes over"
    assert recognizer.degraded_reason == detail
    for k, (one, other) in enumerate(zip(given, expected, strict=True)):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-6)
        assert one.label == other.label
        if k < FAILS_AT * len(sources) or other.state is not LabelState.OK:
            assert one.state == other.state
        else:
            assert (one.state, one.reason, one.detail) == (LabelState.DEGRADED, Reason.FALLBACK, detail)
    assert sum(p.state is LabelState.DEGRADED for p in given) > len(given) // 2


def test_an_engine_without_room_for_more_sources_steps_down(make_model, noise, monkeypatch) -> None:
    pytest.importorskip("openvino")
    bind, path = OpenVinoEngine._bind, make_model()[0]

    def one_at_a_time(self, inputs, outputs):
        if len(inputs["frame"]) > 1:
            raise RuntimeError("CUDA_ERROR_OUT_OF_MEMORY")
        return bind(self, inputs, outputs)

    expected = labels(Recognizer.load(path), noise(20), ("camera", "other"))
    monkeypatch.setattr(OpenVinoEngine, "_bind", one_at_a_time)
    with Recognizer.load(path, engine="openvino") as recognizer:
        given = labels(recognizer, noise(20), ("camera", "other"))
        assert recognizer.engine.name.startswith("onnxruntime")
        assert "openvino failed: the engine failed: CUDA_ERROR_OUT_OF_MEMORY" in recognizer.degraded_reason
    for one, other in zip(given, expected, strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-6)


def test_an_engine_that_fails_while_it_warms_up_steps_down(make_model, noise, failing) -> None:
    failing(1)
    with Recognizer.load(make_model()[0], engine="openvino", self_test="off") as recognizer:
        assert recognizer.engine.name.startswith("onnxruntime")
        assert recognizer.push(noise(1)[0], 0) is not None
    with pytest.raises(ArtifactError, match="CUDA_ERROR_ECC"):
        Recognizer.load(make_model()[0], engine="openvino", self_test="off", strict=True)


def test_it_steps_down_once(make_model, noise, failing, monkeypatch) -> None:
    failing(FAILS_AT)
    recognizer = Recognizer.load(make_model()[0], engine="openvino")
    labels(recognizer, noise(10))

    def fails() -> None:
        raise RuntimeError("again")

    recognizer._runner.binding(1)._run = fails
    with pytest.raises(ArtifactError, match="again"):
        recognizer.push(noise(1)[0], 10_000 * MS)
    recognizer.close()


def test_strict_or_named_last_it_fails(make_model, noise, failing) -> None:
    failing(FAILS_AT)
    with Recognizer.load(make_model()[0], engine="openvino", strict=True) as recognizer:
        with pytest.raises(ArtifactError, match="CUDA_ERROR_ECC"):
            labels(recognizer, noise(10))
        assert recognizer.engine.name.startswith("openvino")
        assert recognizer.degraded_reason == ""


def test_the_golden_clip_is_run_on_the_engine_that_goes_on(make_model, noise, failing) -> None:
    """Also with as many sources as there may be, whose windows it leaves alone."""
    frames = noise(9)
    path, _ = make_model(golden_clip(make_model()[1], frames, 1e-4))
    failing(FAILS_AT + 4)
    with Recognizer.load(path, engine="openvino", max_sources=1) as recognizer:
        before = recognizer.self_test_error
        recognizer._runner.self_test_error = None
        assert before is not None
        given = labels(recognizer, frames)
        assert recognizer.engine.name.startswith("onnxruntime")
        assert recognizer.self_test_error is not None
        assert given[-1].state is LabelState.DEGRADED


def test_an_engine_that_fails_its_self_test_after_a_step_down_labels_nothing(
    make_model, noise, failing, monkeypatch
) -> None:
    frames = noise(30)
    path, _ = make_model(golden_clip(make_model()[1], frames[:9], 1e-4))
    failing(FAILS_AT + 4)
    with Recognizer.load(path, engine="openvino") as recognizer:
        labels(recognizer, frames[: FAILS_AT - 1])
        monkeypatch.setattr("kd_edge.runtime.runner.self_test", lambda *_: SelfTested(1.0, "logits differ by 1"))
        for k in range(FAILS_AT - 1, 30):
            with pytest.raises(ArtifactError, match=r"the self-test on onnxruntime .* failed: logits differ by 1"):
                recognizer.push(frames[k], k * 50 * MS)
        assert recognizer.reasons.total() <= FAILS_AT


def test_a_failed_self_test_is_forgotten_with_its_engine(make_model, noise, failing, monkeypatch) -> None:
    frames = noise(30)
    path, _ = make_model(golden_clip(make_model()[1], frames[:9], 1e-4))
    failing(FAILS_AT + 4)
    with Recognizer.load(path, engine="openvino") as recognizer:
        with monkeypatch.context() as patch:
            patch.setattr("kd_edge.runtime.runner.self_test", lambda *_: SelfTested(1.0, "logits differ by 1"))
            with pytest.raises(ArtifactError, match="the self-test"):
                labels(recognizer, frames)
        recognizer.adopt(Recognizer.load(path))
        assert recognizer.push(frames[0], 10_000 * MS).state is LabelState.WARMING
        assert recognizer.degraded_reason == ""


@pytest.mark.parametrize("is_refused", [False, True])
def test_an_engine_that_goes_on_failing_keeps_no_frame(make_model, noise, failing, monkeypatch, is_refused) -> None:
    """Whoever pushes on and on: neither a cycle nor an error that is raised again holds what was pushed."""
    path, _ = make_model(golden_clip(make_model()[1], noise(9), 1e-4))
    failing(FAILS_AT + 4)
    with Recognizer.load(path, engine="openvino", strict=not is_refused) as recognizer:
        monkeypatch.setattr("kd_edge.runtime.runner.self_test", lambda *_: SelfTested(1.0, "logits differ by 1"))
        pushed = []
        gc.disable()
        try:
            for k in range(40):
                frame = noise(1)[0].copy()
                pushed.append(weakref.ref(frame))
                with contextlib.suppress(ArtifactError):
                    recognizer.push(frame, k * 50 * MS)
                del frame
            left = sum(frame() is not None for frame in pushed[20:])
        finally:
            gc.enable()
        with pytest.raises(ArtifactError, match="the self-test" if is_refused else "CUDA_ERROR_ECC"):
            recognizer.push(noise(1)[0], 10_000 * MS)
    assert left == 0


def test_another_recognisers_engine_is_adopted_between_two_frames(make_model, noise) -> None:
    path, _ = make_model()
    expected = labels(Recognizer.load(path), noise(20))
    recognizer = Recognizer.load(path)
    given = labels(recognizer, noise(20)[:9])
    before, better = recognizer.engine, Recognizer.load(path, engine="openvino")
    better.hand_over()
    recognizer.adopt(better)
    assert recognizer.engine.name.startswith("openvino")
    with pytest.raises(EngineError, match="closed"):
        before.bind(1)
    with pytest.raises(EngineError, match="closed"):
        better.push(noise(1)[0], 0)
    better.close()  # what it had is the other's now
    for k, frame in enumerate(noise(20)[9:], start=9):
        given.append(recognizer.push(frame, k * 50 * MS))
    for one, other in zip(given, expected, strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-6)
        assert (one.label, one.state) == (other.label, other.state)
    with (
        pytest.raises(ConfigError, match="a recogniser of 'tiny'"),
        Recognizer.load(make_model(labels=("a", "b", "c"))[0]) as other,
    ):
        recognizer.adopt(other)
    recognizer.close()
