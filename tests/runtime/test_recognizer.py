"""The recogniser against the clip computation, and its states."""

from __future__ import annotations

import copy
import itertools
import pickle

import numpy as np
import pytest

from kd_edge import engines
from kd_edge.artifact import GoldenClip
from kd_edge.errors import ArtifactError, CameraError, ConfigError, EngineError
from kd_edge.preprocess import Preprocess, centre_crop, clip_input
from kd_edge.resizing import resize
from kd_edge.runtime import Recognizer
from kd_edge.sampling import motion_indices
from kd_edge.types import Cause, Frame, LabelState, Reason
from kd_edge.window import FixedWindow, PercentileWindow, clip_limits, percentile_limits

from .conftest import newest_logits

MS = 1_000_000
MOTION = Preprocess(resize_px=16, input_px=16, motion_offsets_ms=(0, 20, 40))
SPECS = {
    "grey": ({"preprocess": Preprocess(resize_px=16, input_px=16)}, (24, 32)),
    "grey three times": ({"preprocess": Preprocess(resize_px=20, input_px=16, replicate=3)}, (24, 32)),
    "colour": (
        {"preprocess": Preprocess(channels=3, resize_px=16, input_px=16, mean=(0.4, 0.5, 0.6)), "band": "rgb"},
        (24, 32, 3),
    ),
    "16 bit": (
        {"preprocess": Preprocess(resize_px=16, input_px=16, window=FixedWindow(low=0, high=4000)), "dtype": "uint16"},
        (48, 64),
    ),
    "percentiles": (
        {"preprocess": Preprocess(resize_px=16, input_px=16, window=PercentileWindow()), "dtype": "uint16"},
        (48, 64),
    ),
    "motion": ({"preprocess": MOTION}, (24, 32)),
    "colour motion": (
        {"preprocess": MOTION.model_copy(update={"channels": 3}), "band": "rgb"},
        (24, 32, 3),
    ),
}


def clip_logits(step, frames, stamps_ns, segments_at):
    """Logits of the clip computation: the training side's functions and plain numpy."""
    spec = step.manifest.preprocess
    resized = np.stack([resize(f, spec.resize_px) for f in frames])
    own = None
    if isinstance(spec.window, PercentileWindow):
        own = np.float32([percentile_limits(r, spec.window) for r in resized])
    limits = clip_limits(own, stamps_ns, spec.window)
    crop = centre_crop(resized.shape[1], resized.shape[2], spec.input_px)
    indices = motion_indices(stamps_ns, segments_at, spec.motion_offsets_ms)
    return step.logits(clip_input(resized, limits, indices, crop, spec))


@pytest.mark.parametrize(  # a motion stack needs the frames between the segments
    ("kind", "every_ms"), [(k, ms) for k in SPECS for ms in (10, 20, 100) if "motion" not in k or ms < 100]
)
def test_stream_gives_the_clip_models_logits(make_model, noise, kind, every_ms):
    """Pushing frames every 10, 20 or 100 ms (= the segment spacing): those between the segments do not disturb."""
    changes, shape = SPECS[kind]
    path, step = make_model(**changes)
    recognizer = Recognizer.load(path, smooth_ms=0)
    count = 600 // every_ms + 1
    frames = noise(count, shape, step.manifest.dtype)
    stamps_ns = np.arange(count, dtype=np.int64) * every_ms * MS
    for frame, stamp in zip(frames, stamps_ns, strict=True):
        prediction = recognizer.push(frame, stamp)
    at = np.arange(3, 7) * 100 // every_ms  # the four segments of the window that ends at 600 ms
    expected = clip_logits(step, frames, stamps_ns, at)
    np.testing.assert_allclose(newest_logits(recognizer), expected, atol=1e-5)
    assert prediction.state is LabelState.OK
    probabilities = np.exp(expected) / np.exp(expected).sum()
    np.testing.assert_allclose(prediction.probabilities, probabilities, atol=1e-6)
    assert prediction.index == int(np.argmax(expected))
    assert prediction.label == step.manifest.labels[prediction.index]
    assert prediction.confidence == pytest.approx(probabilities.max(), abs=1e-6)


def test_temperature_divides_the_logits(make_model, noise):
    frames = noise(4)
    both = []
    for temperature in (1.0, 3.0):
        path, _ = make_model(temperature=temperature)
        recognizer = Recognizer.load(path)
        for k, frame in enumerate(frames):
            prediction = recognizer.push(frame, k * 100 * MS)
        both.append((newest_logits(recognizer).copy(), prediction.probabilities))
    expected = np.exp(both[0][0] / 3)
    np.testing.assert_allclose(both[1][1], expected / expected.sum(), atol=1e-6)


def states(recognizer, frames, stamps_ms, **options):
    return [
        None if p is None else p.state.value
        for p in (recognizer.push(f, int(s * MS), **options) for f, s in zip(frames, stamps_ms, strict=False))
    ]


def test_warming_until_the_window_is_full_and_after_a_gap(make_model, noise):
    recognizer = Recognizer.load(make_model()[0])
    frames = itertools.cycle(noise(8))
    assert states(recognizer, frames, [0, 100, 200, 300, 400]) == ["warming"] * 3 + ["ok"] * 2
    assert states(recognizer, frames, [700, 800, 900, 1000]) == ["warming"] * 3 + ["ok"]
    warming = recognizer.push(next(frames), 1300 * MS)
    assert (warming.label, warming.index, warming.confidence) == (None, -1, 0.0)
    assert warming.detail == "gap: window of 0.4 s not full"
    assert warming.probabilities.tolist() == [0, 0, 0]


def test_frame_delivered_twice_or_late_is_ignored(make_model, noise):
    recognizer = Recognizer.load(make_model()[0])
    reference = Recognizer.load(make_model()[0])
    frames = noise(8)
    for k in range(6):
        expected = reference.push(frames[k], k * 100 * MS)
        prediction = recognizer.push(frames[k], k * 100 * MS)
        assert recognizer.push(frames[7], k * 100 * MS) is None
        assert recognizer.push(frames[6], k * 100 * MS - 50 * MS) is None
        assert prediction.frame_id == expected.frame_id == k
        np.testing.assert_array_equal(prediction.probabilities, expected.probabilities)


def test_unknown_below_the_fitted_threshold(make_model, noise):
    recognizer = Recognizer.load(make_model(unknown_threshold=1.0)[0])
    for k, frame in enumerate(noise(4)):
        prediction = recognizer.push(frame, k * 100 * MS)
    assert prediction.state is LabelState.UNKNOWN
    assert prediction.label is None
    assert prediction.index >= 0
    assert prediction.detail == f"confidence {prediction.confidence:.3f} below 1.000"


def test_degraded_when_frames_lie_far_from_their_segments(make_model, noise):
    recognizer = Recognizer.load(make_model()[0])
    frames = itertools.cycle(noise(8))
    # 70 ms apart for segments every 100 ms: within 25 ms at some moments only
    found = set(states(recognizer, frames, [70 * k for k in range(12)])[5:])
    assert "degraded" in found
    assert found <= {"ok", "degraded"}


def test_degraded_when_frames_are_too_slow_for_the_motion_stack(make_model, noise):
    recognizer = Recognizer.load(make_model(preprocess=MOTION)[0])
    frames = itertools.cycle(noise(8))
    assert states(recognizer, frames, [10 * k for k in range(60)])[-1] == "ok"
    recognizer.reset()
    assert states(recognizer, frames, [1000 + 50 * k for k in range(20)])[-1] == "degraded"


def test_motion_history_warms_up_first(make_model, noise):
    recognizer = Recognizer.load(make_model(preprocess=MOTION)[0])
    first = recognizer.push(noise(1)[0], 0)
    assert first.state is LabelState.WARMING
    assert first.detail == "start: motion history not full"


def test_size_change_resets_that_source_only(make_model, noise):
    recognizer = Recognizer.load(make_model()[0])
    small, large = noise(8), noise(8, (48, 64))
    for k in range(4):
        recognizer.push(small[k], k * 100 * MS, "a")
        recognizer.push(small[k], k * 100 * MS, "b")
    changed = recognizer.push(large[4], 400 * MS, "a")
    assert changed.state is LabelState.WARMING
    assert changed.detail == "frame size changed from 32x24 to 64x48: window of 0.4 s not full"
    assert recognizer.push(small[4], 400 * MS, "b").state is LabelState.OK
    assert states(recognizer, large[5:], [500, 600, 700], source="a") == ["warming", "warming", "ok"]


def test_reset_and_forget(make_model, noise):
    recognizer = Recognizer.load(make_model()[0])
    frames = noise(12)
    states(recognizer, frames, [0, 100, 200, 300])
    recognizer.reset(cause=Cause(Reason.RECONNECT, "reconnect"))
    prediction = recognizer.push(frames[0], 400 * MS)
    assert prediction.detail == "reconnect: window of 0.4 s not full"
    assert recognizer.push(frames[0], 100 * MS) is None  # stamps still increase
    recognizer.forget("camera")
    assert recognizer.push(frames[0], 100 * MS).frame_id == 0
    recognizer.forget("never seen")
    recognizer.reset("never seen")


@pytest.mark.parametrize(
    ("frame", "found"),
    [
        (np.zeros((24, 32), np.uint16), r"uint16 \(24, 32\)"),
        (np.zeros((24, 32), np.float32), r"float32 \(24, 32\)"),
        (np.zeros((24, 32, 3), np.uint8), r"uint8 \(24, 32, 3\)"),
        (np.zeros((0, 32), np.uint8), r"uint8 \(0, 32\)"),
        ([[1, 2]], "list"),
    ],
)
def test_frames_of_another_kind_are_refused(make_model, noise, frame, found):
    recognizer = Recognizer.load(make_model()[0])
    recognizer.push(noise(1)[0], 0, "ir0")
    with pytest.raises(CameraError, match=rf"ir0 delivers {found}") as caught:
        recognizer.push(frame, 10, "ir0")
    assert "uint8 (H, W) frames of nir" in caught.value.expected


@pytest.mark.parametrize(
    ("frame", "channels", "advice"),
    [
        (np.zeros((24, 32, 1), np.uint16), 1, "use frame[..., 0], or choose"),
        (np.zeros((24, 32), np.int32), 1, "use .astype(np.uint16), or choose"),
        (np.zeros((24, 32, 1), np.int64), 1, "use frame[..., 0] and .astype(np.uint16), or choose"),
        (np.zeros((24, 32), ">u2"), 1, "use .astype(np.uint16), or choose"),
        (np.zeros((24, 32, 4), np.uint16), 3, "use frame[..., :3], or choose"),
        ([[1, 2]], 1, "use np.array(frame, np.uint16), or choose"),
        (Frame(np.zeros((24, 32), np.uint16), 0, 0, "ir0"), 1, "push its image and captured_ns, or choose"),
        (None, 1, "choose the camera's pixel format"),
        (np.zeros((24, 32), np.uint8), 1, "choose the camera's pixel format"),  # 8 bit are not 16 bit
        (np.zeros((24, 32), np.float32), 1, "choose the camera's pixel format"),  # metres or millimetres?
        (np.zeros((24, 32), bool), 1, "choose the camera's pixel format"),
        (np.zeros((24, 32, 3), np.uint16), 1, "choose the camera's pixel format"),
    ],
)
def test_what_is_wrong_only_in_form_is_told_how_to_convert(make_model, frame, channels, advice):
    colour = {"modality": "rgb", "band": "rgb"} if channels == 3 else {}
    preprocess = Preprocess(resize_px=16, input_px=16, channels=channels)
    recognizer = Recognizer.load(make_model(dtype="uint16", preprocess=preprocess, **colour)[0])
    with pytest.raises(CameraError) as caught:
        recognizer.push(frame, 0)
    assert caught.value.fix.startswith(advice)


@pytest.mark.parametrize(
    "many", [[], np.zeros((24, 32), np.uint8), {"a": np.zeros((2, 2), np.uint8)}, {"a": (1, 2, 3)}]
)
def test_push_many_takes_frames_by_source(make_model, many):
    with Recognizer.load(make_model()[0]) as recognizer, pytest.raises(ConfigError) as caught:
        recognizer.push_many(many)
    assert "push(frame, captured_ns) takes a single one" in caught.value.fix


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"source": 7}, "source 7"), ({"source": None}, "source None"), ({"frame_id": 1.5}, "camera: frame_id 1.5"),
        ({"frame_id": "3"}, "camera: frame_id '3'"), ({"truth": 3}, "camera: truth 3"),
    ],
)  # fmt: skip
def test_what_no_prediction_can_bear_is_refused(make_model, noise, options, found):
    with Recognizer.load(make_model()[0]) as recognizer:
        with pytest.raises(CameraError) as caught:
            recognizer.push(noise(1)[0], 0, **options)
        assert caught.value.found == found
        assert recognizer.push(noise(1)[0], 0, frame_id=np.int64(3)).frame_id == 3


@pytest.mark.parametrize("model", [None, 3, ["a.onnx"]])
def test_what_is_no_model_is_refused_in_one_line(model):
    with pytest.raises(ConfigError, match="Expected the path of an artifact, 'bundled', or a loaded artifact"):
        Recognizer.load(model)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_recogniser_is_not_copied(make_model, duplicate):
    with Recognizer.load(make_model()[0]) as recognizer, pytest.raises(TypeError, match="is not copied or pickled"):
        duplicate(recognizer)


def test_values_beyond_the_range_are_clipped(make_model):
    path, _ = make_model(
        preprocess=Preprocess(resize_px=16, input_px=16, window=FixedWindow(low=100, high=200)), dtype="uint16"
    )
    recognizer = Recognizer.load(path)
    recognizer.push(np.full((16, 16), 60_000, np.uint16), 0)
    np.testing.assert_allclose(recognizer._runner.binding(1).frame, (1.0 - 0.5) / 0.25)


def test_number_of_sources_is_bounded(make_model, noise):
    recognizer = Recognizer.load(make_model()[0], max_sources=2)
    frame = noise(1)[0]
    recognizer.push(frame, 0, "a")
    with pytest.raises(CameraError, match="source 'c' beside 1 others"):
        recognizer.push_many({"b": (frame, 0), "c": (frame, 0)})
    recognizer.push(frame, 0, "b")
    with pytest.raises(CameraError, match="at most 2 sources"):
        recognizer.push(frame, 0, "c")
    recognizer.forget("a")
    assert recognizer.push(frame, 0, "c") is not None


@pytest.mark.parametrize("kind", SPECS)
def test_push_many_equals_single_pushes(make_model, noise, kind):
    """Three sources that start at different moments and differ in rate: batches of every size occur."""
    changes, shape = SPECS[kind]
    path, step = make_model(**changes)
    single, many = Recognizer.load(path), Recognizer.load(path)
    frames = noise(90, shape, step.manifest.dtype)
    seen = set()
    for k in range(80):
        now = {"a": k * 20, "b": k * 20 + 3 if k > 7 else 5, "c": k // 2 * 40 if k > 20 else -1}
        batch = {s: (frames[(k + 3 * i) % 90], t * MS) for i, (s, t) in enumerate(now.items()) if t >= 0}
        together = many.push_many(batch, now_ns=(k * 20 + 5) * MS)
        assert together.keys() == batch.keys()
        for source, (frame, stamp) in batch.items():
            alone = single.push(frame, stamp, source, now_ns=(k * 20 + 5) * MS)
            both = together[source]
            assert (alone is None) == (both is None)
            if alone is not None:
                assert (alone.state, alone.index, alone.reason, alone.frame_id, alone.emitted_ns) == (
                    both.state, both.index, both.reason, both.frame_id, both.emitted_ns,
                )  # fmt: skip
                np.testing.assert_allclose(alone.probabilities, both.probabilities, atol=1e-6)
                seen.add(alone.state)
    assert LabelState.OK in seen


def test_push_many_takes_nothing_in_when_one_frame_is_wrong(make_model, noise):
    recognizer = Recognizer.load(make_model()[0])
    good = noise(1)[0]
    with pytest.raises(CameraError, match="b delivers"):
        recognizer.push_many({"a": (good, 5), "b": (good.astype(np.uint16), 5)})
    assert recognizer.push(good, 5, "a") is not None
    assert recognizer.push_many({}) == {}


def test_prediction_carries_the_frames_facts(make_model, noise):
    recognizer = Recognizer.load(make_model()[0])
    prediction = recognizer.push(noise(1)[0], 50, "ir0", frame_id=7, now_ns=60, truth="wave")
    assert (prediction.source, prediction.frame_id, prediction.captured_ns) == ("ir0", 7, 50)
    assert (prediction.emitted_ns, prediction.truth) == (60, "wave")
    assert recognizer.push(noise(1)[0], 51, "ir0").emitted_ns is None
    whole = recognizer.push(noise(1)[0], 52.0, "ir0", now_ns=np.float64(62))
    assert (type(whole.captured_ns), type(whole.emitted_ns)) == (int, int)
    with pytest.raises(ConfigError, match=r"now_ns 62\.5"):
        recognizer.push(noise(1)[0], 53, "ir0", now_ns=62.5)


@pytest.mark.parametrize(
    ("clip_seconds", "valid_ms", "expected_ms"),
    [(0.4, None, 250), (4.0, None, 1000), (0.4, 80, 80)],  # at least 250 ms; one spacing; as given
)
def test_validity(make_model, noise, clip_seconds, valid_ms, expected_ms):
    recognizer = Recognizer.load(make_model(clip_seconds=clip_seconds)[0], valid_ms=valid_ms)
    prediction = recognizer.push(noise(1)[0], 5 * MS)
    assert prediction.valid_until_ns == (5 + expected_ms) * MS
    assert not prediction.is_stale((5 + expected_ms) * MS)
    assert prediction.is_stale((5 + expected_ms) * MS + 1)


def golden_clip(step, frames, tolerance, shift=0.0):
    stamps_ns = np.arange(len(frames), dtype=np.int64) * 50 * MS
    at = np.arange(len(frames) - 7, len(frames), 2)
    logits = clip_logits(step, frames, stamps_ns, at).astype(np.float32) + np.float32(shift)
    return GoldenClip(frames, stamps_ns, logits, tolerance)


def test_self_test_passes_and_leaves_no_trace(make_model, noise):
    _, step = make_model()
    recognizer = Recognizer.load(make_model(golden_clip(step, noise(9), 1e-4))[0], max_sources=1)
    assert recognizer.self_test_error < 1e-5
    assert recognizer.push(noise(1)[0], 0).frame_id == 0


def test_failed_self_test_raises_or_degrades(make_model, noise):
    _, step = make_model()
    path, _ = make_model(golden_clip(step, noise(9), 1e-4, shift=0.5))
    with pytest.raises(ArtifactError, match=r"logits differ by 0\.5, tolerance 0\.0001"):
        Recognizer.load(path)
    with pytest.raises(ArtifactError, match=r"self-test on openvino [\d.]+ failed: .* Fix: --engine onnxruntime, kd"):
        Recognizer.load(path, engine="openvino", strict=True)
    with pytest.raises(ArtifactError, match="self-test on onnxruntime"):
        Recognizer.load(path, engine="openvino")
    recognizer = Recognizer.load(path, self_test="accept")
    for k, frame in enumerate(noise(4)):
        prediction = recognizer.push(frame, k * 100 * MS)
    assert prediction.state is LabelState.DEGRADED
    assert prediction.label is not None
    assert prediction.detail.startswith("self-test failed: logits differ")
    assert Recognizer.load(path, self_test="off").self_test_error is None


def test_golden_clip_that_does_not_fit_fails_the_self_test(make_model, noise):
    _, step = make_model()
    good = golden_clip(step, noise(9), 1e-4)
    deep = good.frames.astype(np.uint16)
    for frames, message in ((good.frames[:2], "window is not full"), (deep, "it has uint16 frames")):
        clip = GoldenClip(frames, good.stamps_ns[: len(frames)], good.logits, 1e-4)
        with pytest.raises(ArtifactError, match=message):
            Recognizer.load(make_model(clip)[0])


def test_fallback_engine_degrades_labels(make_model, noise):
    recognizer = Recognizer.load(make_model()[0], provider="cuda")
    if recognizer.engine.fallback_reason is None:
        pytest.skip("CUDA is there")
    for k, frame in enumerate(noise(4)):
        prediction = recognizer.push(frame, k * 100 * MS)
    assert prediction.state is LabelState.DEGRADED
    assert prediction.detail == recognizer.engine.fallback_reason


def test_closed_with_its_block_or_when_loading_fails(make_model, noise, monkeypatch):
    path, step = make_model()
    with Recognizer.load(path) as recognizer:
        assert recognizer.push(noise(1)[0], 0) is not None
    with pytest.raises(EngineError, match="the recogniser is closed"):
        recognizer.push(noise(1)[0], 1, "a source that has no history yet")
    with pytest.raises(EngineError, match="the recogniser is closed"):
        recognizer.push_many({"new": (noise(1)[0], 1)})
    with pytest.raises(EngineError, match="the recogniser is closed"), recognizer:
        pass
    opened, opening = [], engines._opened

    def keeping(*arguments):
        opened.append(opening(*arguments))
        return opened[0]

    monkeypatch.setattr("kd_edge.engines._opened", keeping)
    with pytest.raises(ArtifactError, match="self-test"):
        Recognizer.load(make_model(golden_clip(step, noise(9), 1e-4, shift=0.5))[0])
    with pytest.raises(EngineError, match="the engine is closed"):
        opened[0].bind(1)


def test_thousands_of_frames(make_model, noise):
    """The ring wraps many times; the label of the last window is still the clip computation's."""
    path, step = make_model()
    recognizer = Recognizer.load(path)
    frames = noise(50)
    for k in range(3001):
        recognizer.push(frames[k % 50], k * 10 * MS)
    at = np.array([(3000 - 30 + 10 * s) % 50 for s in range(4)])
    expected = clip_logits(step, frames, np.arange(50, dtype=np.int64), at)
    np.testing.assert_allclose(newest_logits(recognizer), expected, atol=1e-5)


def test_stale_prediction(make_model):
    prediction = Recognizer.load(make_model()[0]).stale("ir0", 3, 100, 900, Cause(Reason.NO_FRAME, "no fresh frame"))
    assert prediction.state is LabelState.STALE
    assert prediction.label is None
    assert prediction.is_stale(0)
