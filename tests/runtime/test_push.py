"""What ``push`` makes of frames and stamps that cannot be trusted, of a network without numbers, of a broken engine."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from kd_edge.engines import Binding
from kd_edge.errors import ArtifactError, CameraError, ConfigError
from kd_edge.preprocess import Preprocess
from kd_edge.runtime import Recognizer, Watchdog
from kd_edge.types import LabelState, Prediction, Reason

from .conftest import TinyStep, tiny_manifest

MS = 1_000_000
HOUR = 3_600_000 * MS
YEARS = 1_795_000_000_000 * MS
"""The time of day, as nanoseconds since 1970."""


@pytest.fixture
def full(make_model, noise):
    """A recogniser with a full window: frames every 20 ms up to 980 ms."""
    recognizer = Recognizer.load(make_model()[0])
    frames = noise(50)
    for k in range(50):
        last = recognizer.push(frames[k], k * 20 * MS, now_ns=(k * 20 + 5) * MS)
    assert last.state is LabelState.OK
    return recognizer, frames


BAD_STAMPS = [
    None,
    math.nan,
    math.inf,
    1 << 62,
    1 << 63,
    "1",
    b"1",
    -(1 << 63),
    True,
    np.True_,
    1000.25,
    np.float32(0.5),
]


@pytest.mark.parametrize("stamp", BAD_STAMPS)
def test_a_stamp_that_is_no_moment_is_refused_before_anything_is_taken_in(full, stamp):
    recognizer, frames = full
    with pytest.raises(CameraError, match="camera: a frame's stamp is"):
        recognizer.push(frames[0], stamp)
    with pytest.raises(CameraError, match="b: a frame's stamp is"):
        recognizer.push_many({"camera": (frames[0], 1000 * MS), "b": (frames[0], stamp)})
    assert recognizer.push(frames[0], 1000 * MS).state is LabelState.OK  # not taken for the same frame again
    recognizer.push(frames[0], 0, "b")  # "b" is new: nothing of it stayed


@pytest.mark.parametrize("ahead_ns", [51 * MS, HOUR, YEARS])
def test_a_stamp_ahead_of_now_is_stale_and_changes_nothing(full, ahead_ns):
    recognizer, frames = full
    now_ns = 1000 * MS
    ahead = recognizer.push(frames[0], now_ns + ahead_ns, now_ns=now_ns)
    assert (ahead.state, ahead.reason, ahead.label) == (LabelState.STALE, Reason.CLOCK_AHEAD, None)
    assert (ahead.valid_until_ns, ahead.captured_ns) == (now_ns, now_ns)
    assert recognizer.push(frames[1], 1020 * MS, now_ns=1025 * MS).state is LabelState.OK
    assert recognizer.reasons[Reason.CLOCK_AHEAD] == 1


def test_the_bound_is_the_callers(make_model, noise):
    recognizer = Recognizer.load(make_model()[0], max_ahead_ms=2000)
    assert recognizer.push(noise(1)[0], 2000 * MS, now_ns=0).reason is Reason.START
    assert recognizer.push(noise(1)[0], 2051 * MS, now_ns=50 * MS).reason is Reason.CLOCK_AHEAD


def test_stamps_in_seconds_are_told(full):
    recognizer, frames = full
    with pytest.raises(CameraError, match=r"1795\.25, a fraction of a nanosecond \(seconds\?") as caught:
        recognizer.push(frames[0], 1795.25)
    assert "time.monotonic_ns()" in caught.value.fix


@pytest.mark.parametrize(("each_ns", "question"), [(1000, " (is it in microseconds?)"), (7, "")])
def test_a_stamp_far_behind_now_is_stale_and_changes_nothing(full, each_ns, question):
    recognizer, frames = full
    behind = recognizer.push(frames[0], HOUR // each_ns, now_ns=HOUR)
    assert (behind.state, behind.reason, behind.label) == (LabelState.STALE, Reason.CLOCK_BEHIND, None)
    assert behind.detail.endswith(f"min behind now{question}")
    assert recognizer.push(frames[1], 1000 * MS, now_ns=1005 * MS).state is LabelState.OK
    assert recognizer.push(frames[1], 1020 * MS, now_ns=11_020 * MS).reason is Reason.LATE  # the bound


@pytest.mark.parametrize(
    ("now_ns", "reason"),
    [
        (math.nan, Reason.CLOCK_INVALID), (math.inf, Reason.CLOCK_INVALID), (3600.5, Reason.CLOCK_INVALID),
        (HOUR - 51 * MS, Reason.CLOCK_AHEAD), (3600, Reason.CLOCK_AHEAD), (HOUR + 251 * MS, Reason.LATE),
    ],
)  # fmt: skip
def test_a_prediction_holds_at_no_moment_but_its_own(full, now_ns, reason):
    recognizer, _ = full
    made = Prediction(
        source="camera", label="wave", probabilities=np.zeros(3, np.float32), state=LabelState.OK, frame_id=0,
        captured_ns=HOUR, emitted_ns=None, valid_until_ns=HOUR + 250 * MS,
    )  # fmt: skip
    watchdog = Watchdog(recognizer.valid_ns, HOUR)
    watched = watchdog.current(made, now_ns)
    for held in (recognizer.at(made, now_ns), watched):
        assert (held.state, held.label) == (LabelState.STALE, None)
        json.dumps(held.as_dict(), allow_nan=False)
    assert recognizer.at(made, now_ns).reason is reason
    assert watched.reason is (Reason.NO_FRAME if reason is Reason.LATE else reason)
    assert recognizer.at(made, HOUR - 50 * MS).label == "wave"


def test_wall_clock_stamps_never_label_and_never_are_silent(make_model, noise):
    recognizer = Recognizer.load(make_model()[0])
    frames = noise(8)
    given = [recognizer.push(frames[k % 8], YEARS + k * 20 * MS, now_ns=k * 20 * MS) for k in range(200)]
    assert {(p.state, p.reason) for p in given} == {(LabelState.STALE, Reason.CLOCK_AHEAD)}


def test_a_label_that_has_run_out_is_stale(full):
    recognizer, frames = full
    late = recognizer.push(frames[0], 1000 * MS, now_ns=1000 * MS + recognizer.valid_ns + 1)
    assert (late.state, late.reason, late.label) == (LabelState.STALE, Reason.LATE, None)
    assert late.detail == "labelled 250 ms after its capture"
    assert recognizer.push(frames[1], 1020 * MS, now_ns=1020 * MS + recognizer.valid_ns).state is LabelState.OK


def test_stamps_that_step_back_begin_another_window(full):
    recognizer, frames = full
    assert recognizer.push(frames[0], 0 * MS) is None  # 980 ms late: it may have been overtaken
    assert recognizer.push(frames[0], 1020 * MS).state is LabelState.OK
    states = [recognizer.push(frames[k], k * 20 * MS) for k in range(17)]  # back by 1020 ms
    assert {p.state for p in states[:12]} == {LabelState.WARMING}
    assert {p.reason for p in states[:12]} == {Reason.CLOCK_JUMP}
    assert states[-1].state is LabelState.OK
    assert states[0].detail == "stamps went back by 1.0 s: window of 0.4 s not full"


def test_an_hour_ahead_without_a_now_costs_a_window_not_an_hour(full):
    recognizer, frames = full
    assert recognizer.push(frames[0], 1000 * MS + HOUR).reason is Reason.GAP
    given = [recognizer.push(frames[k], (1020 + k * 20) * MS) for k in range(20)]
    assert given[0].reason is Reason.CLOCK_JUMP
    assert given[-1].state is LabelState.OK


@pytest.mark.parametrize("again", ["reset", "forget"])
def test_after_a_reset_any_stamp_is_welcome(full, again):
    recognizer, frames = full
    getattr(recognizer, again)("camera")
    getattr(recognizer, again)("a source that never was")
    given = [recognizer.push(frames[k], 500 * MS + k * 20 * MS) for k in range(17)]
    assert {p.reason for p in given[:12]} == {Reason.RESET if again == "reset" else Reason.START}
    assert given[-1].state is LabelState.OK


def test_one_recogniser_labels_many_recordings_alike(make_model, noise):
    recognizer = Recognizer.load(make_model()[0])
    frames = noise(40)
    passes = []
    for _ in range(3):
        recognizer.reset()
        passes.append([recognizer.push(frame, k * 40 * MS) for k, frame in enumerate(frames)])
    labels = [[(p.state, p.label, p.confidence) for p in one] for one in passes]
    assert labels[0] == labels[1] == labels[2]
    assert labels[0][-1][0] is LabelState.OK


@pytest.mark.parametrize(
    "shape", [(1, 500_000), (500_000, 1), (1, 1), (4, 40), (40, 400), (9000, 9000), (1, 8), (16, 8193)]
)
def test_a_frame_no_camera_has_is_refused_before_it_is_resized(make_model, noise, monkeypatch, shape):
    recognizer = Recognizer.load(make_model()[0])
    monkeypatch.setattr("kd_edge.runtime.source.Resizer", lambda *_: pytest.fail("resized"))
    with pytest.raises(CameraError, match=f"camera delivers frames of {shape[1]}x{shape[0]}"):
        recognizer.push(np.zeros(shape, np.uint8), 0)
    assert recognizer._sources == {}


@pytest.mark.parametrize(("px", "shape"), [(16, (2, 16)), (64, (4, 32)), (224, (160, 120)), (224, (1080, 1920))])
def test_small_wide_and_large_cameras_are_welcome(make_model, px, shape):
    recognizer = Recognizer.load(make_model(preprocess=Preprocess(resize_px=px, input_px=px))[0])
    assert recognizer.push(np.zeros(shape, np.uint8), 0).reason is Reason.START


class Moody:
    """A step engine whose runs go wrong when they are told to."""

    name, providers, fallback_reason = "moody", ("cpu",), None

    def __init__(self):
        self.step = TinyStep(tiny_manifest())
        self.mood = "good"

    def bind(self, batch):
        manifest = self.step.manifest
        inputs = {"frame": np.zeros((batch, 1, 16, 16), np.float32), "past": np.zeros((batch, 3, 5), np.float32)}
        outputs = {
            "feature": np.zeros((batch, 5), np.float32),
            "logits": np.zeros((batch, len(manifest.labels)), np.float32),
        }

        def run():
            if self.mood == "broken":
                raise RuntimeError("out of memory")
            outputs["feature"][:] = [self.step.feature(x) for x in inputs["frame"]]
            outputs["logits"][:, 1] = 9.0
            if self.mood in outputs:
                outputs[self.mood][0, 1] = math.nan
            if self.mood == "infinite":
                outputs["logits"][0, 1] = math.inf

        return Binding(inputs, outputs, run)

    def close(self): ...


@pytest.fixture
def moody(noise):
    engine = Moody()
    recognizer = Recognizer(engine.step.manifest, engine)
    frames = noise(60)

    def push(k):
        return recognizer.push(frames[k], k * 40 * MS)

    for k in range(20):
        push(k)
    assert push(20).state is LabelState.OK
    return engine, push


@pytest.mark.parametrize("mood", ["feature", "logits", "infinite"])
def test_numbers_that_are_none_are_no_label_and_poison_no_window(moody, mood):
    engine, push = moody
    engine.mood = mood
    bad = push(21)
    assert (bad.state, bad.reason, bad.label, bad.confidence) == (LabelState.UNKNOWN, Reason.NOT_FINITE, None, 0.0)
    assert not bad.probabilities.any()
    engine.mood = "good"
    after = [push(k) for k in range(22, 40)]
    assert {p.reason for p in after[:6]} == {Reason.NOT_FINITE}
    assert {p.state for p in after[:6]} == {LabelState.WARMING}
    assert after[-1].state is LabelState.OK


def test_a_failed_run_is_raised_and_its_window_is_gone(moody):
    engine, push = moody
    engine.mood = "broken"
    for k in (21, 22):
        with pytest.raises(ArtifactError, match="out of memory"):
            push(k)
    engine.mood = "good"
    after = [push(k) for k in range(23, 40)]
    assert (after[0].state, after[0].reason) == (LabelState.WARMING, Reason.ENGINE_FAILED)
    assert after[-1].state is LabelState.OK


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"valid_ms": 0}, "valid_ms 0"),
        ({"valid_ms": -5}, "valid_ms -5"),
        ({"valid_ms": math.nan}, "valid_ms nan"),
        ({"valid_ms": "250"}, "valid_ms '250'"),
        ({"valid_ms": 1e9}, "valid_ms 1000000000.0"),
        ({"max_ahead_ms": -1}, "max_ahead_ms -1"),
        ({"max_ahead_ms": math.inf}, "max_ahead_ms inf"),
        ({"self_test": "bogus"}, "self_test 'bogus'"),
        ({"threads": 10**9}, "1000000000 threads"),
    ],
)
def test_numbers_that_make_no_sense(make_model, options, match):
    with pytest.raises(ConfigError, match=match):
        Recognizer.load(make_model()[0], **options)


def test_a_watchdog_for_those_who_push_themselves(full):
    recognizer, frames = full
    watchdog = Watchdog(recognizer.valid_ns, 980 * MS)
    none_yet = watchdog.current(None, 990 * MS)
    assert (none_yet.state, none_yet.reason, none_yet.label) == (LabelState.STALE, Reason.NO_FRAME, None)
    good = recognizer.push(frames[0], 1000 * MS, now_ns=1001 * MS)
    assert watchdog.current(good, 1002 * MS) is good
    assert watchdog.current(None, 1250 * MS) is good  # still valid
    silent = watchdog.current(None, 1251 * MS)
    assert (silent.state, silent.reason, silent.label) == (LabelState.STALE, Reason.NO_FRAME, None)
    assert silent.detail == "no fresh frame for 251 ms"
    assert not silent.probabilities.any()
    again = recognizer.push(frames[1], 1300 * MS, now_ns=1301 * MS)
    assert watchdog.current(again, 1302 * MS) is again


@pytest.mark.parametrize("back_ms", [100, 200, 900])
def test_a_small_step_back_is_told_from_frames_that_were_overtaken(full, back_ms):
    """Three older frames in a row that rise: before, windows mixed what lay on both sides of the step."""
    recognizer, frames = full
    given = [recognizer.push(frames[k % 50], (1000 + 20 * k - back_ms) * MS) for k in range(60)]
    labels = [p for p in given if p is not None]
    assert labels[0].reason is Reason.CLOCK_JUMP
    assert labels[-1].state is LabelState.OK
    waited = next(k for k, p in enumerate(given) if p is not None and p.label is not None)
    assert waited >= 2 + 13  # the window was filled anew


def test_frames_that_were_overtaken_are_no_step(full):
    recognizer, frames = full
    for k in range(20):
        assert recognizer.push(frames[k], (1000 + 60 * k + 40) * MS).state is not LabelState.WARMING
        assert recognizer.push(frames[k], (1000 + 60 * k) * MS) is None
        assert recognizer.push(frames[k], (1000 + 60 * k + 20) * MS) is None
        assert recognizer.push(frames[k], (1000 + 60 * k + 40) * MS) is None


def test_a_watchdog_believes_no_stamp_ahead_of_now(full):
    recognizer, frames = full
    watchdog = Watchdog(recognizer.valid_ns, 980 * MS)
    for k in range(20):
        ahead = recognizer.push(frames[k], HOUR + k * 20 * MS)
    assert ahead.label is not None  # a bare push cannot know
    held = watchdog.current(ahead, 1000 * MS)
    assert (held.state, held.reason, held.label) == (LabelState.STALE, Reason.CLOCK_AHEAD, None)


@pytest.mark.parametrize("now_ns", [math.nan, math.inf, "5", 1 << 63])
def test_a_now_that_is_no_moment_is_refused(full, now_ns):
    recognizer, frames = full
    with pytest.raises(ConfigError, match="now_ns"):
        recognizer.push(frames[0], 1000 * MS, now_ns=now_ns)


@pytest.mark.parametrize("sources", [0, -1, 1.5, None, "8"])
def test_a_number_of_sources_that_makes_no_sense(make_model, sources):
    with pytest.raises(ConfigError, match="max_sources"):
        Recognizer.load(make_model()[0], max_sources=sources)


def test_numpy_numbers_are_numbers(make_model):
    assert Recognizer.load(make_model()[0], valid_ms=np.int64(300)).valid_ns == 300 * MS
    with pytest.raises(ConfigError, match="valid_ms True"):
        Recognizer.load(make_model()[0], valid_ms=True)
