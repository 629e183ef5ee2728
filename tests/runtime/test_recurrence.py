"""Models with recurrent states: which frames make a step, and what a gap, a reset or a batch does to the memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from kd_edge import artifact
from kd_edge.artifact import GoldenClip, Manifest, StateSpec
from kd_edge.engines import open_engine
from kd_edge.errors import ArtifactError
from kd_edge.preprocess import Preprocess
from kd_edge.runtime import Recognizer
from kd_edge.runtime.recurrence import Recurrence
from kd_edge.runtime.source import SourceState
from kd_edge.types import Cause, LabelState, Reason

from .conftest import newest_logits, tiny_manifest

MS = 1_000_000
STATES = (StateSpec(name="sum", shape=(4,)), StateSpec(name="last", shape=(2, 1, 2)))


class StatefulStep:
    """pooled = means over a 2x2 grid; mixed = pooled + sum / 2 + last / 4; sum' = mixed, last' = pooled;
    feature = mixed @ W1; logits = concat(past, feature) @ W2.
    """

    def __init__(self, manifest: Manifest) -> None:
        rng = np.random.default_rng(0)
        self.manifest = manifest
        self.w1 = rng.normal(size=(4, manifest.feature_size)).astype(np.float32)
        self.w2 = rng.normal(size=(manifest.segments * manifest.feature_size, 3)).astype(np.float32)

    def graph(self) -> bytes:
        m, value, node = self.manifest, helper.make_tensor_value_info, helper.make_node
        size, t, d = m.preprocess.input_px, m.segments, m.feature_size
        half = [size // 2] * 2
        nodes = [
            node("AveragePool", ["frame"], ["grid"], kernel_shape=half, strides=half),
            node("Flatten", ["grid"], ["pooled"]),
            node("Flatten", ["state_in_1"], ["last"]),
            node("Mul", ["state_in_0", "half"], ["sum"]),
            node("Mul", ["last", "quarter"], ["faded"]),
            node("Add", ["pooled", "sum"], ["partly"]),
            node("Add", ["partly", "faded"], ["state_out_0"]),
            node("Reshape", ["pooled", "last_shape"], ["state_out_1"]),
            node("MatMul", ["state_out_0", "w1"], ["feature"]),
            node("Reshape", ["past", "past_shape"], ["older"]),
            node("Concat", ["older", "feature"], ["window"], axis=1),
            node("MatMul", ["window", "w2"], ["logits"]),
        ]
        kind = TensorProto.FLOAT
        states = [("0", [4]), ("1", [2, 1, 2])]
        inputs = [value("frame", kind, ["batch", 1, size, size]), value("past", kind, ["batch", t - 1, d])]
        inputs += [value(f"state_in_{i}", kind, ["batch", *shape]) for i, shape in states]
        outputs = [value("feature", kind, ["batch", d]), value("logits", kind, ["batch", 3])]
        outputs += [value(f"state_out_{i}", kind, ["batch", *shape]) for i, shape in states]
        constants = {
            "w1": self.w1,
            "w2": self.w2,
            "half": np.float32(0.5),
            "quarter": np.float32(0.25),
            "past_shape": np.array([-1, (t - 1) * d]),
            "last_shape": np.array([-1, 2, 1, 2]),
        }
        tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
        graph = helper.make_graph(nodes, "stateful", inputs, outputs, tensors)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        onnx.checker.check_model(model)
        return model.SerializeToString()

    def logits(self, frames: np.ndarray) -> np.ndarray:
        """Of the last of N >= T frames (N, 16, 16) that all made a step, from zero states; without ONNX, in float64."""
        total, last, features = np.zeros(4), np.zeros(4), []
        for frame in frames:
            x = (frame / 255.0 - 0.5) / 0.25
            pooled = x.reshape(2, 8, 2, 8).mean(axis=(1, 3)).reshape(-1)
            total, last = pooled + total / 2 + last / 4, pooled
            features.append(total @ self.w1)
        return np.concatenate(features[-self.manifest.segments :]) @ self.w2


def stateful(folder: Path, golden: GoldenClip | None = None, **changes: object) -> tuple[Path, StatefulStep]:
    values = {"temporal": "tsm_causal", "states": STATES, "segments": 3, "clip_seconds": 0.75, "feature_size": 5}
    step = StatefulStep(tiny_manifest(**{**values, **changes}))  # a segment every 250 ms
    path = folder / f"stateful{len(list(folder.iterdir()))}.onnx"
    artifact.write(step.graph(), step.manifest, golden, path)
    return path, step


def pushed(recognizer: Recognizer, frames: np.ndarray, stamps_ms: object, source: str = "camera") -> dict[int, object]:
    """Predictions by frame number, of the frames that made one."""
    found = {}
    for k, stamp in enumerate(np.asarray(stamps_ms)):
        prediction = recognizer.push(frames[k % len(frames)], round(float(stamp) * MS), source)
        if prediction is not None:
            found[k] = prediction
    return found


def test_one_frame_per_segment_makes_a_step_and_the_states_go_on(tmp_path, noise):
    path, step = stateful(tmp_path)
    recognizer = Recognizer.load(path)
    frames = noise(60, (16, 16))
    found = pushed(recognizer, frames, np.arange(60) * 50)  # 20 frames a second, every fifth makes a step
    assert list(found) == list(range(0, 60, 5))
    assert [p.state.value for p in found.values()] == ["warming"] * 2 + ["ok"] * 10
    np.testing.assert_allclose(newest_logits(recognizer), step.logits(frames[:60:5]), rtol=1e-5, atol=1e-5)
    assert found[55].frame_id == 55  # the frames in between were counted


def test_jitter_at_30_frames_a_second_skips_no_segment(tmp_path, noise):
    path, step = stateful(tmp_path)
    recognizer = Recognizer.load(path)
    frames = noise(300, (16, 16))
    stamps_ms = np.arange(300) * 100 / 3 + np.random.default_rng(1).uniform(-6, 6, 300)
    found = list(pushed(recognizer, frames, stamps_ms))
    assert np.abs(stamps_ms[found] - stamps_ms[0] - np.arange(len(found)) * 250).max() < 100 / 6 + 12
    np.testing.assert_allclose(newest_logits(recognizer), step.logits(frames[found]), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    period=st.integers(5, 300),
    jitter=st.floats(0, 0.15),
    spacing=st.integers(60, 400),
    seed=st.integers(0, 9999),
)
@example(period=45, jitter=0.140625, spacing=60, seed=176)  # the first gap is short, the second one long
def test_steps_of_a_steady_camera_never_look_like_a_gap(period, jitter, spacing, seed):
    """At any rate of at least a frame per segment; jitter moves two neighbours up to 30 % of a period apart."""
    period = min(period, spacing)
    clock = Recurrence(tiny_manifest(states=STATES, segments=4, clip_seconds=spacing * 4 / 1000))
    rng = np.random.default_rng(seed)
    stamps = (np.arange(200) * period + rng.uniform(-jitter, jitter, 200) * period) * MS
    states = tuple(np.zeros((1, *s.shape), np.float32) for s in STATES)
    steps = []
    for stamp in stamps.astype(np.int64).tolist():
        clock.see(stamp)
        if clock.is_due:
            assert clock.is_due  # asking changes nothing
            assert clock.begin(states, 0)
            assert not clock.is_due  # no frame makes two steps
            steps.append(stamp / MS)
    distances = np.diff(steps)
    assert distances.max(initial=0) <= 1.5 * spacing
    if 3 * period < spacing:  # fast enough to follow the segments: the grid is kept for ever
        moments = steps[0] + np.arange(len(steps)) * spacing
        assert np.abs(np.array(steps) - moments).max() <= period * (0.5 + 3 * jitter) + 1e-3


def test_a_gap_zeroes_the_states_and_empties_the_window(tmp_path, noise):
    path, step = stateful(tmp_path)
    recognizer = Recognizer.load(path)
    frames = noise(8, (16, 16))
    assert [p.state.value for p in pushed(recognizer, frames, np.arange(4) * 250).values()] == ["warming"] * 2 + [
        "ok"
    ] * 2
    after = pushed(recognizer, frames[4:], 750 + 376 + np.arange(4) * 250)  # 1.5 spacings are 375 ms
    assert [p.state.value for p in after.values()] == ["warming"] * 2 + ["ok"] * 2
    assert after[0].detail == "gap: window of 0.75 s not full"
    np.testing.assert_allclose(newest_logits(recognizer), step.logits(frames[4:]), rtol=1e-5, atol=1e-5)


def test_just_no_gap_keeps_them(tmp_path, noise):
    path, step = stateful(tmp_path)
    recognizer = Recognizer.load(path)
    frames = noise(6, (16, 16))
    found = pushed(recognizer, frames, [0, 250, 500, 875, 1000, 1250])
    assert [p.state is LabelState.WARMING for p in found.values()] == [True, True, False, False, False, False]
    np.testing.assert_allclose(newest_logits(recognizer), step.logits(frames), rtol=1e-5, atol=1e-5)


def test_reset_and_size_change_start_from_zero_states(tmp_path, noise):
    path, step = stateful(tmp_path)
    recognizer = Recognizer.load(path)
    frames = noise(12, (16, 16))
    pushed(recognizer, frames[:4], np.arange(4) * 250)
    recognizer.reset(cause=Cause(Reason.RECONNECT, "reconnect"))
    after = pushed(recognizer, frames[4:7], 800 + np.arange(3) * 250)  # at once: the grid starts anew
    assert list(after) == [0, 1, 2]
    assert after[0].detail == "reconnect: window of 0.75 s not full"
    np.testing.assert_allclose(newest_logits(recognizer), step.logits(frames[4:7]), rtol=1e-5, atol=1e-5)
    larger = frames[7:10].repeat(2, axis=1).repeat(2, axis=2)  # resizing it gives back the small ones
    pushed(recognizer, larger, 1400 + np.arange(3) * 250)
    np.testing.assert_allclose(newest_logits(recognizer), step.logits(frames[7:10]), rtol=1e-5, atol=1e-5)


def test_a_slow_camera_is_encoded_at_its_own_rate_and_one_slower_than_that_never_labels(tmp_path, noise):
    recognizer = Recognizer.load(stateful(tmp_path)[0])
    frames = noise(8, (16, 16))
    slow = pushed(recognizer, frames, np.arange(8) * 260)
    assert list(slow) == list(range(8))
    assert [p.state.value for p in slow.values()][2:] == ["ok"] * 6
    recognizer.reset()
    assert {p.state.value for p in pushed(recognizer, frames, 5000 + np.arange(8) * 400).values()} == {"warming"}


def test_push_many_steps_those_that_are_due_together(tmp_path, noise):
    """Three cameras that start at different moments and differ in rate: batches of 0 to 3 rows occur."""
    path, _ = stateful(tmp_path)
    single, many = Recognizer.load(path), Recognizer.load(path)
    frames = noise(90, (16, 16))
    sizes, answers = set(), 0
    for k in range(120):
        now = {"a": k * 25, "b": k * 25 + 60 if k > 3 else -1, "c": k // 2 * 50 + 7 if k > 20 else -1}
        batch = {s: (frames[(k + 7 * i) % 90], t * MS) for i, (s, t) in enumerate(now.items()) if t >= 0}
        together = many.push_many(batch, now_ns=(k * 25 + 60) * MS)
        assert together.keys() == batch.keys()
        sizes.add(sum(p is not None for p in together.values()))
        for source, (frame, stamp) in batch.items():
            alone, both = single.push(frame, stamp, source, now_ns=(k * 25 + 60) * MS), together[source]
            assert (alone is None) == (both is None)
            if alone is not None and both is not None:
                assert (alone.state, alone.index, alone.reason) == (both.state, both.index, both.reason)
                np.testing.assert_allclose(alone.probabilities, both.probabilities, atol=1e-6)
                answers += alone.state is LabelState.OK
    assert sizes >= {0, 1, 2}
    assert answers > 20


@pytest.mark.parametrize(
    ("clip_seconds", "valid_ms", "expected_ms"), [(0.75, None, 375), (0.3, None, 250), (0.75, 90, 90)]
)
def test_a_label_lasts_until_the_next_one_is_due(tmp_path, noise, clip_seconds, valid_ms, expected_ms):
    path, _ = stateful(tmp_path, clip_seconds=clip_seconds)
    recognizer = Recognizer.load(path, valid_ms=valid_ms)
    prediction = recognizer.push(noise(1)[0], 5 * MS)
    assert prediction.valid_until_ns == (5 + expected_ms) * MS


def test_the_golden_clip_is_stepped_from_zero_states(tmp_path, noise):
    _, step = stateful(tmp_path)
    frames = noise(3, (16, 16))
    stamps_ns = np.arange(3, dtype=np.int64) * 250 * MS
    good = GoldenClip(frames, stamps_ns, step.logits(frames).astype(np.float32), 1e-4)
    recognizer = Recognizer.load(stateful(tmp_path, good)[0], max_sources=1)
    assert recognizer.self_test_error < 1e-5
    pushed(recognizer, frames, np.arange(3) * 250)  # it left nothing behind
    np.testing.assert_allclose(newest_logits(recognizer), good.logits, rtol=1e-5, atol=1e-5)
    wrong = GoldenClip(frames, stamps_ns, good.logits + np.float32(0.5), 1e-4)
    with pytest.raises(ArtifactError, match=r"logits differ by 0\.5"):
        Recognizer.load(stateful(tmp_path, wrong)[0])


def test_every_segment_of_the_golden_clip_makes_a_step_whatever_its_frames_rate(tmp_path, noise):
    """A live camera's grid starts with its first frame: the frames nearest to 226 and 500 ms come too early for it."""
    _, step = stateful(tmp_path)
    frames = noise(11, (16, 16))
    stamps_ns = np.array([24, 75, 125, 176, 226, 276, 326, 376, 420, 460, 500]) * MS
    golden = GoldenClip(frames, stamps_ns, step.logits(frames[[0, 4, 10]]).astype(np.float32), 1e-4)
    recognizer = Recognizer.load(stateful(tmp_path, golden)[0])
    assert recognizer.self_test_error < 1e-5
    assert list(pushed(recognizer, frames, stamps_ns / MS)) == [0, 5]


def test_no_step_without_a_frame():
    clock = Recurrence(tiny_manifest(states=STATES))
    states = tuple(np.zeros((1, *s.shape), np.float32) for s in STATES)
    assert not clock.is_due
    with pytest.raises(RuntimeError, match="a step without a frame"):
        clock.begin(states, 0)
    clock.see(0)
    assert clock.is_due
    clock.reset()
    assert not clock.is_due  # until the next frame


def test_every_frame_counts_whether_it_can_be_encoded_or_not():
    """The camera's period is known before the motion history is full."""
    spec = Preprocess(resize_px=16, input_px=16, motion_offsets_ms=(0, 70, 140))
    state = SourceState(tiny_manifest(states=STATES, preprocess=spec, clip_seconds=1.0))
    frame = np.zeros((16, 16), np.uint8)
    for k in range(4):
        state.observe(frame, k * 33 * MS)
        assert not state.is_due
    assert state._steps._period_ns == 33 * MS
    with pytest.raises(RuntimeError, match="without a frame that can be encoded"):
        state.begin(None, 0)
    state.observe(frame, 4 * 33 * MS)
    assert state.is_due


def test_steady_state_allocates_no_frame_sized_buffer(tmp_path, noise):
    path, _ = stateful(tmp_path, preprocess=Preprocess(resize_px=96, input_px=96))
    recognizer = Recognizer.load(path)
    frames = noise(8, (480, 640))
    pushed(recognizer, frames, np.arange(60) * 50)
    tracemalloc.start()
    try:
        recognizer.push(frames[0], 3000 * MS)
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for k in range(1, 60):
            recognizer.push(frames[k % 8], (3000 + 50 * k) * MS)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < 6 * 96 * 96
    assert after - before < 96 * 96


@pytest.mark.parametrize(
    ("states", "message"),
    [
        ((STATES[0], StateSpec(name="last", shape=(2, 2, 2))), "has state_in_1 "),
        ((*STATES, StateSpec(name="more", shape=(1,))), "has no state_in_2"),
        (STATES[:1], "has input state_in_1, which is not in its manifest"),
    ],
)
def test_graph_whose_states_contradict_its_manifest_is_refused(tmp_path, states, message):
    path, _ = stateful(tmp_path, states=states)
    with pytest.raises(ArtifactError, match=message):
        open_engine(artifact.load(path))
