"""The stream as a whole: recordings, live cameras, interruptions."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from kd_edge.errors import (
    ArtifactError,
    CameraError,
    ConfigError,
    DataError,
    EngineError,
    KdEdgeError,
    SinkError,
    UnexpectedError,
)
from kd_edge.runtime import Recognizer, stream
from kd_edge.runtime.cameras import TimeOuts
from kd_edge.runtime.options import StreamOptions
from kd_edge.runtime.stream import LabelStream
from kd_edge.types import Frame, LabelState, Reason
from tests.waiting import wait_for

from .conftest import HandCamera, HandClock

MS = 1_000_000


@pytest.fixture
def clip(tmp_path, noise):
    path = tmp_path / "clip.npy"
    np.save(path, noise(30))
    return path


def test_recording_every_frame_repeatable(make_model, clip, tmp_path):
    model, _ = make_model()
    texts = []
    for name in ("a.jsonl", "b.jsonl"):
        out = tmp_path / name
        with stream(model=model, camera=f"replay:{clip}", sinks=[f"jsonl:{out}"]) as labels:
            predictions = list(labels)
        texts.append(out.read_text())
    assert texts[0] == texts[1]
    assert [p.frame_id for p in predictions] == list(range(30))
    assert [json.loads(line)["frame_id"] for line in texts[0].splitlines()] == list(range(30))
    assert all(p.emitted_ns is None for p in predictions)
    assert {p.state for p in predictions[12:]} == {LabelState.OK}
    statistics = labels.statistics
    assert (statistics.captured, statistics.pushed, statistics.dropped) == (30, 30, 0)
    assert sum(statistics.labels.values()) == 30
    assert statistics.sink_faults == {}
    assert next(iter(labels), None) is None  # after leaving: no more labels


def test_stream_gives_the_recognisers_labels(make_model, clip):
    model, _ = make_model()
    recognizer = Recognizer.load(model)
    expected = [recognizer.push(f, round(k * 1e9 / 30)) for k, f in enumerate(np.load(clip))]
    for _ in range(2):  # a recogniser of one's own, used twice
        with stream(model=recognizer, camera=f"replay:{clip}") as labels:
            found = list(labels)
        for a, b in zip(expected, found, strict=True):
            np.testing.assert_array_equal(a.probabilities, b.probabilities)


def test_realtime_recording(make_model, clip):
    """However many frames a busy machine drops: none is labelled before its moment, and the last one is never lost."""
    model, _ = make_model()
    with stream(model=model, camera=f"replay:{clip}?fps=100", realtime=True, valid_ms=600_000) as labels:
        predictions = list(labels)
    assert all(p.emitted_ns >= p.captured_ns for p in predictions)
    started_ns = predictions[-1].captured_ns - 290 * MS
    assert [p.captured_ns - started_ns for p in predictions] == [p.frame_id * 10 * MS for p in predictions]
    assert predictions[-1].frame_id == 29
    statistics = labels.statistics
    assert (statistics.captured, statistics.dropped + statistics.pushed) == (30, 30)
    assert LabelState.STALE not in {p.state for p in predictions}


def test_synthetic_camera(make_model):
    model, _ = make_model()
    uri = "synthetic:?height_px=48&width_px=64&frames=40"
    with stream(model=model, camera=f"{uri}&realtime=false") as labels:
        predictions = list(labels)
    assert {p.state for p in predictions[12:]} == {LabelState.OK}
    assert predictions[-1].truth
    assert predictions[-1].valid_until_ns == predictions[-1].captured_ns + 250 * MS
    with stream(model=model, camera=f"{uri}&fps=50", valid_ms=600_000) as labels:  # live: frames may be missed
        predictions = list(labels)
    assert predictions[-1].frame_id >= 39  # the last may lie beyond, when the ones before it were missed
    assert all(p.truth and p.emitted_ns >= p.captured_ns for p in predictions)


class HandStream:
    """A stream whose clock and camera a test moves by hand."""

    def __init__(self, model, images, **options):
        self.clock, self.camera, self.images = HandClock(), HandCamera(), images
        self.labels = LabelStream(model, self.camera, StreamOptions(**options), self.clock)

    def __enter__(self):
        self.labels.__enter__()
        return self

    def __exit__(self, *error):
        self.labels.__exit__(*error)

    def frame(self, after_ms, age_ms=0):
        """The prediction of a frame captured ``age_ms`` ago."""
        self.give(after_ms, age_ms)
        return next(self.labels)

    def give(self, after_ms, age_ms=0):
        captured_ns = self.clock.advance(after_ms) - age_ms * MS
        self.camera.give(self.images[self.camera.count % len(self.images)], captured_ns)

    def silence(self, ms):
        self.clock.advance(ms)
        return next(self.labels)


@pytest.fixture
def by_hand(make_model, noise):
    return lambda **options: HandStream(make_model()[0], noise(20), **options)


def test_stale_labels_while_the_camera_is_silent(by_hand):
    with by_hand(valid_ms=100) as hand:
        assert hand.camera.open_now
        fresh = [hand.frame(10) for _ in range(60)]
        assert [p.frame_id for p in fresh] == list(range(60))
        assert {p.state for p in fresh[28:]} == {LabelState.OK}
        stale = [hand.silence(100), hand.silence(100), hand.silence(150)]
        assert [p.detail for p in stale] == [f"no fresh frame for {ms} ms" for ms in (100, 200, 350)]
        assert {(p.state, p.label, p.frame_id, p.captured_ns) for p in stale} == {
            (LabelState.STALE, None, 59, fresh[-1].captured_ns)
        }
        assert [p.emitted_ns - fresh[-1].captured_ns for p in stale] == [100 * MS, 200 * MS, 350 * MS]
        back = hand.frame(50)
        assert (back.state, back.frame_id) == (LabelState.WARMING, 60)
        assert back.detail == "gap: window of 0.4 s not full"
        statistics = hand.labels.statistics
    assert not hand.camera.open_now
    # the oldest segment, 300 ms back, has a frame within 50 ms from frame 25 on, within 25 ms from frame 28 on
    assert statistics.labels == {"warming": 25 + 1, "degraded": 3, "ok": 32, "stale": 3}
    assert statistics.fps == pytest.approx(60 / 0.99)  # 61 frames in 590 + 400 ms


def test_frames_whose_stamps_stand_still_are_not_fresh(by_hand):
    with by_hand(valid_ms=100) as hand:
        assert hand.frame(10).state is LabelState.WARMING
        for k in range(5):
            hand.give(30, age_ms=30 * (k + 1))
        stale = next(hand.labels)
    assert (stale.state, stale.detail) == (LabelState.STALE, "no fresh frame for 150 ms")
    assert hand.labels.statistics.pushed == 1


def test_a_label_that_comes_too_late_is_stale(by_hand):
    with by_hand(valid_ms=100) as hand:
        predictions = [hand.frame(10, age_ms=200) for _ in range(9)]
        silent = hand.silence(10)  # a frame as old as that does not count as a fresh one
    assert {(p.state, p.label, p.detail) for p in predictions} == {
        (LabelState.STALE, None, "labelled 200 ms after its capture")
    }
    assert (silent.state, silent.detail) == (LabelState.STALE, "no fresh frame for 210 ms")


@pytest.mark.parametrize(("brought", "seconds"), [(None, 1.0), (TimeOuts(read_timeout_ms=50), 0.05)])
def test_a_camera_of_ones_own_brings_its_time_outs_or_gets_the_usual_ones(by_hand, brought, seconds):
    hand = by_hand()
    if brought is not None:
        hand.camera.timeouts = brought
    with hand:
        hand.frame(10)
    assert hand.camera.asked == {seconds}


def test_time_outs_of_another_kind_are_refused(by_hand):
    hand = by_hand()
    hand.camera.timeouts = 0.5
    with pytest.raises(CameraError, match=r"camera hand has timeouts 0\.5\. Expected .*cameras\.TimeOuts"):
        hand.__enter__()
    assert not hand.camera.open_now


def test_the_options_have_the_functions_defaults():
    asked = inspect.signature(stream).parameters
    options = {field.name: field.default for field in dataclasses.fields(StreamOptions)}
    assert options == {name: p.default for name, p in asked.items() if name not in ("model", "camera")}


def test_a_broken_sink_ends_a_recording(make_model, clip, tmp_path):
    model, _ = make_model()
    labels = stream(model=model, camera=f"replay:{clip}", sinks=["jsonl:/dev/full", f"jsonl:{tmp_path}/good.jsonl"])
    with pytest.raises(SinkError, match="sink jsonl:/dev/full stopped: No space left on device"), labels:
        list(labels)
    assert labels.statistics.sink_faults == {"jsonl:/dev/full": "No space left on device"}


def test_a_broken_sink_does_not_disturb_a_live_camera(make_model, tmp_path):
    model, _ = make_model()
    good = tmp_path / "good.jsonl"
    camera = HandCamera()
    with LabelStream(
        model, camera, StreamOptions(sinks=("jsonl:/dev/full", f"jsonl:{good}"), valid_ms=600_000)
    ) as labels:
        for k in range(4):
            camera.give(np.full((24, 32), 40 * k, np.uint8), time.monotonic_ns())
            next(labels)
        wait_for(lambda: "jsonl:/dev/full" in labels.statistics.sink_faults)
        assert labels.is_heard
    assert len(good.read_text().splitlines()) == 4


class Kept:
    """A sink of one's own."""

    name, reopens = "mine", False

    def __init__(self, *, breaks: bool):
        self.labels, self._breaks = [], breaks

    def open(self):
        pass

    def write(self, prediction):
        if self._breaks:
            raise KeyError("a bug")
        self.labels.append(prediction)

    def close(self):
        pass


@pytest.mark.parametrize(("broken", "works"), [((True, False), True), ((True, True), False)])
def test_of_two_sinks_of_one_name_one_may_break(make_model, broken, works):
    model, _ = make_model()
    camera, sinks = HandCamera(), [Kept(breaks=each) for each in broken]
    with LabelStream(model, camera, StreamOptions(sinks=tuple(sinks), valid_ms=600_000)) as labels:
        camera.give(np.full((24, 32), 40, np.uint8), time.monotonic_ns())
        next(labels)
        wait_for(lambda: len(labels.statistics.sink_faults) == sum(broken))
        assert labels.any_sink_works is labels.is_heard is works
    assert labels.any_sink_works is works
    assert set(labels.statistics.sink_faults) == ({"mine"} if works else {"mine", "mine (2)"})


def test_wrong_camera_is_refused_and_closed(make_model, tmp_path, noise):
    model, _ = make_model()
    np.save(tmp_path / "deep.npy", noise(3, dtype="uint16"))
    with pytest.raises(CameraError, match="has dtype uint16"):
        stream(model=model, camera=f"replay:{tmp_path}/deep.npy").__enter__()
    with pytest.raises(CameraError, match="has band lwir"):
        stream(model=model, camera=f"replay:{tmp_path}/deep.npy?band=lwir").__enter__()
    with pytest.raises(DataError, match="no recording"):
        stream(model=model, camera="replay:nothing.npy").__enter__()
    with pytest.raises(ArtifactError):
        stream(model=tmp_path / "no.onnx", camera="synthetic:").__enter__()
    with pytest.raises(KdEdgeError, match="sink"):
        stream(model=model, camera="synthetic:", sinks=[f"jsonl:{tmp_path}/no/x"]).__enter__()
    with pytest.raises(RuntimeError, match="inside the with block"):
        next(stream(model=model, camera="synthetic:"))


@pytest.mark.parametrize("realtime", [False, True])
def test_damage_in_the_middle_of_a_recording_is_raised(make_model, tmp_path, noise, realtime):
    import cv2

    model, _ = make_model()
    for k, image in enumerate(noise(6)):
        cv2.imwrite(str(tmp_path / f"{k}.png"), image)
    (tmp_path / "4.png").write_bytes(b"damaged")
    seen = []
    labels = stream(model=model, camera=f"replay:{tmp_path}/?.png", realtime=realtime)
    with pytest.raises(DataError, match=r"4\.png"), labels:
        seen.extend(labels)
    good = [p.frame_id for p in seen if p.state is not LabelState.STALE]
    assert good == [0, 1, 2, 3] if not realtime else set(good) <= {0, 1, 2, 3}  # a live stream may miss some


def test_size_change_in_the_middle_is_survived(make_model, tmp_path, noise):
    import cv2

    model, _ = make_model()
    for k in range(40):
        cv2.imwrite(str(tmp_path / f"{k}.png"), noise(1, (24, 32) if k < 20 else (48, 40), seed=k)[0])
    with stream(model=model, camera=f"replay:{tmp_path}") as labels:
        predictions = list(labels)
    assert predictions[19].state is LabelState.OK
    assert predictions[20].detail.startswith("frame size changed from 32x24 to 40x48")
    assert predictions[-1].state is LabelState.OK


RUN = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts with it ignored
from kd_edge.runtime.signals import interrupt_on_termination
from kd_edge.runtime.stream import stream
try:
    with interrupt_on_termination(), stream(
        model=sys.argv[1], camera="synthetic:?height_px=48&width_px=64", sinks=["jsonl:" + sys.argv[2]], notify=True,
        valid_ms=600_000,
    ) as labels:
        for k, prediction in enumerate(labels):
            if k == 5:
                print("running", flush=True)
except KeyboardInterrupt:
    import threading
    left = [t.name for t in threading.enumerate() if t.name.startswith("kd-edge")]
    print("closed", left, "torch" in sys.modules, "onnx" in sys.modules, "typer" in sys.modules)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_stream_leaves_cleanly(make_model, tmp_path, number):
    model, _ = make_model()
    out = tmp_path / "labels.jsonl"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        with subprocess.Popen(
            [sys.executable, "-c", RUN, str(model), str(out)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"NOTIFY_SOCKET": str(tmp_path / "notify")},
        ) as process:  # fmt: skip
            assert process.stdout.readline() == "running\n"
            process.send_signal(number)
            stdout, stderr = process.communicate(timeout=60)
        messages = [manager.recv(64) for _ in range(3)]
    assert (stdout, stderr, process.returncode) == ("closed [] False False False\n", "", 0)
    assert messages[:2] == [b"READY=1", b"WATCHDOG=1"]
    assert all(json.loads(line)["source"] == "synthetic" for line in out.read_text().splitlines())


def test_a_stream_may_be_entered_again_and_counts_anew(make_model, clip):
    labels = stream(model=make_model()[0], camera=f"replay:{clip}")
    passes = []
    for _ in range(2):
        with labels:
            with pytest.raises(RuntimeError, match="already entered"):
                labels.__enter__()
            passes.append([(p.state, p.label, p.confidence) for p in labels])
        assert labels.statistics.captured == len(passes[-1]) == 30
    assert passes[0] == passes[1]


@pytest.mark.parametrize("age", [0, -1, float("nan"), float("inf")])
def test_an_age_that_makes_no_sense_is_refused(age):
    with pytest.raises(ConfigError, match="max_age_ms"):
        stream(model="m.onnx", camera="ir0", max_age_ms=age)


def test_frames_that_are_too_old_are_skipped_and_counted(make_model):
    clock, camera = HandClock(), HandCamera()
    options = StreamOptions(max_age_ms=80, valid_ms=150)
    with LabelStream(make_model()[0], camera, options, clock) as labels:
        camera.give(np.full((24, 32), 1, np.uint8), clock.ns - 81_000_000)
        wait_for(lambda: labels.statistics.captured == 1)
        clock.advance(150)  # only the watchdog speaks
        assert next(labels).state is LabelState.STALE
        camera.give(np.full((24, 32), 2, np.uint8), clock.ns - 80_000_000)
        assert next(labels).state is LabelState.WARMING
        assert labels.statistics.skipped == 1


@pytest.mark.parametrize(("fps", "warned"), [(30.0, False), (12.0, True), (8.9, None)])
def test_a_camera_too_slow_for_the_window_is_refused_with_the_figure(make_model, caplog, fps, warned):
    camera = HandCamera()
    camera.fps = fps
    labels = LabelStream(make_model()[0], camera, StreamOptions())  # segments 100 ms apart
    if warned is None:
        needed = r"gives 8.9 frames/s. Expected at least 10.0 frames/s, 20.0 for labels that are not degraded"
        with pytest.raises(CameraError, match=needed):
            labels.__enter__()
        assert not camera.open_now
        return
    with labels:
        assert ("gives 12.0 frames/s; this model needs at least 10.0" in caplog.text) == warned


@pytest.mark.parametrize("error", [RuntimeError("No device connected"), OSError(19, "No such device"), MemoryError()])
def test_whatever_a_camera_raises_on_opening_is_one_line(make_model, error):
    camera = HandCamera()
    camera.open = lambda: (_ for _ in ()).throw(error)
    with pytest.raises(CameraError, match=f"camera hand cannot be opened .{type(error).__name__}") as caught:
        LabelStream(make_model()[0], camera, StreamOptions()).__enter__()
    assert "\n" not in str(caught.value)


def test_a_bug_in_a_camera_that_is_opened_is_no_camera_that_is_not_there(make_model, caplog):
    camera, bug = HandCamera(), KeyError("exposure")
    camera.open = lambda: (_ for _ in ()).throw(bug)
    with pytest.raises(UnexpectedError, match=r"camera hand cannot be opened \(KeyError: 'exposure'\)") as caught:
        LabelStream(make_model()[0], camera, StreamOptions()).__enter__()
    assert (caught.value.exit_code, caught.value.__cause__) == (1, bug)
    (trace,) = caplog.records
    assert (trace.levelname, trace.exc_info[1]) == ("ERROR", bug)


@pytest.mark.parametrize("left", [True, False])
def test_a_recogniser_closed_under_a_push_is_the_end_where_the_stream_was_left(make_model, monkeypatch, left):
    """And else a fault."""
    push, camera = Recognizer.push_many, HandCamera()
    with LabelStream(make_model()[0], camera, StreamOptions()) as labels:

        def closed(recognizer, *arguments, **options):
            if left:
                labels.__exit__(None, None, None)
            recognizer.close()
            return push(recognizer, *arguments, **options)

        monkeypatch.setattr(Recognizer, "push_many", closed)
        camera.give(np.full((24, 32), 40, np.uint8), time.monotonic_ns())
        with pytest.raises(StopIteration if left else EngineError):
            next(labels)


def test_a_machine_that_is_too_slow_says_so(make_model, monkeypatch):
    """Every push takes 160 ms by the stream's clock; five frames come in 180 ms."""
    clock, camera = HandClock(), HandCamera()
    push = Recognizer.push_many

    def slow(self, *arguments, **options):
        prediction = push(self, *arguments, **options)
        clock.advance(160)
        return prediction

    monkeypatch.setattr(Recognizer, "push_many", slow)
    predictions = []
    with LabelStream(make_model()[0], camera, StreamOptions(valid_ms=1000), clock) as labels:
        for k in range(40):
            for step in range(5):
                camera.give(np.full((24, 32), 5 * k + step, np.uint8), clock.ns + 5_000_000 * step)
            clock.advance(20)
            wait_for(lambda k=k: labels.statistics.captured == 5 * (k + 1))
            predictions.append(next(labels))
    assert {p.reason for p in predictions[20:]} == {Reason.OVERLOAD}
    assert labels.statistics.reasons["overload"] >= 20
    assert predictions[-1].detail.startswith(
        "a frame takes 160 ms and one comes every 36 ms: 80% are skipped; the window"
    )


def test_a_program_that_is_too_slow_is_not_blamed_on_the_engine(make_model):
    """What is done with a label takes 160 ms by the stream's clock; five frames come in 180 ms."""
    clock, camera = HandClock(), HandCamera()
    predictions = []
    with LabelStream(make_model()[0], camera, StreamOptions(valid_ms=1000), clock) as labels:
        for k in range(40):
            for step in range(5):
                camera.give(np.full((24, 32), 5 * k + step, np.uint8), clock.ns + 5_000_000 * step)
            clock.advance(20)
            wait_for(lambda k=k: labels.statistics.captured == 5 * (k + 1))
            predictions.append(next(labels))
            clock.advance(160)
    assert {p.reason for p in predictions[20:]} == {Reason.SLOW_PROGRAM}
    assert predictions[-1].detail.startswith(
        "the program takes 180 ms between two labels and a frame comes every 36 ms: 80% are skipped; the window"
    )


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux's scheduler")
@pytest.mark.parametrize(("asked", "used"), [(None, 2), (3, 3)])
def test_a_camera_file_says_which_cores_and_how_many_threads(make_model, tmp_path, monkeypatch, asked, used):
    there = os.sched_getaffinity(0)
    core = min(there)
    file = tmp_path / "ir9.toml"
    file.write_text(f'uri = "synthetic:?frames=3&realtime=false"\nthreads = 2\ncpus = [{core}]\n')
    loaded = {}
    load = Recognizer.load

    def noted(model, **options):
        loaded.update(options, cores=os.sched_getaffinity(0))
        return load(model, **options)

    monkeypatch.setattr(Recognizer, "load", noted)
    with stream(model=make_model()[0], camera=str(file), threads=asked) as labels:
        assert len(list(labels)) == 3
    assert (loaded["threads"], loaded["cores"]) == (used, {core})
    assert os.sched_getaffinity(0) == there


def test_one_stream_is_one_source_whatever_its_frames_say(make_model):
    """A camera whose frames name others: cut, window and labels are those of the camera."""
    recognizer = Recognizer.load(make_model()[0])
    for _ in range(2):  # the same recogniser for two recordings

        class Named(HandCamera):
            live, ended = False, False
            left = 30

            def read(self, timeout_seconds):
                if not self.left:
                    self.ended = True
                    return None
                self.left -= 1
                k = 30 - self.left
                return Frame(np.full((24, 32), 8 * k, np.uint8), k * 33_000_000, k, ["left", 7, None][k % 3])

        with LabelStream(recognizer, Named(), StreamOptions()) as labels:
            given = list(labels)
        assert {p.source for p in given} == {"hand"}
        assert len(given) == 30
        assert given[0].reason is Reason.START
        assert [p.state for p in given[:7]] == [LabelState.WARMING] * 7
        assert given[-1].state is LabelState.OK


def test_an_engine_slower_than_a_label_lasts_says_so(make_model, monkeypatch):
    clock, camera = HandClock(), HandCamera()
    push = Recognizer.push_many

    def slow(self, *arguments, **options):
        prediction = push(self, *arguments, **options)
        clock.advance(300)
        return prediction

    monkeypatch.setattr(Recognizer, "push_many", slow)
    given = []
    with LabelStream(make_model()[0], camera, StreamOptions(), clock) as labels:
        for k in range(20):
            for step in range(3):
                camera.give(np.full((24, 32), 5 * k + step, np.uint8), clock.ns + 5_000_000 * step)
            wait_for(lambda k=k: labels.statistics.captured == 3 * (k + 1))
            given.append(next(labels))
    assert {p.state for p in given} == {LabelState.STALE}
    assert given[0].reason is Reason.LATE
    assert {p.reason for p in given[12:]} == {Reason.OVERLOAD}
    assert given[-1].detail.startswith("a frame takes 300 ms and one comes every 100 ms")


def test_a_stream_that_skips_everything_says_why(make_model):
    clock, camera = HandClock(), HandCamera()
    with LabelStream(make_model()[0], camera, StreamOptions(max_age_ms=10), clock) as labels:
        camera.give(np.full((24, 32), 1, np.uint8), clock.ns - 50_000_000)
        wait_for(lambda: labels.statistics.captured == 1)
        clock.advance(250)
        stale = next(labels)
    assert (stale.state, stale.reason) == (LabelState.STALE, Reason.LATE)
    assert "when their turn comes and skipped (max_age_ms 10)" in stale.detail


@pytest.mark.parametrize("fps", ["30", float("nan"), float("inf"), 0, -1, None])
def test_a_nominal_rate_that_is_none_is_not_known(make_model, fps):
    camera = HandCamera()
    camera.fps = fps
    with LabelStream(make_model()[0], camera, StreamOptions()):
        pass


def test_systemd_hears_nothing_while_no_sink_takes_labels(make_model, monkeypatch, tmp_path):
    told = []
    monkeypatch.setattr("kd_edge.runtime.watchdog.ServiceNotifier.alive", lambda self, now_ns: told.append(now_ns))
    clock, camera = HandClock(), HandCamera()
    options = StreamOptions(sinks=("jsonl:/dev/full",), notify=True)
    with LabelStream(make_model()[0], camera, options, clock) as labels:
        for k in range(10):
            camera.give(np.full((24, 32), 20 * k, np.uint8), clock.advance(20))
            next(labels)
            if k == 0:
                wait_for(lambda: labels.statistics.sink_faults)
                told.clear()
        assert told == []


def test_another_thread_ends_the_labels_and_the_one_that_iterates_leaves(make_model):
    model, _ = make_model()
    camera = HandCamera()
    told = []
    labels = LabelStream(model, camera, StreamOptions(valid_ms=3_600_000))

    def iterate():
        with labels:
            told.extend(labels)

    thread = threading.Thread(target=iterate, name="kd-edge test iteration")
    thread.start()
    wait_for(lambda: camera.open_now)
    assert labels.frame_of("hand") is None
    camera.give(np.zeros((24, 32), np.uint8), time.monotonic_ns())
    wait_for(lambda: told)
    assert labels.frame_of("hand").frame_id == 0
    labels.stop()  # its next stale label would be due in an hour
    thread.join(60)
    assert not thread.is_alive()
    assert not camera.open_now
    assert [p.frame_id for p in told] == [0]


def test_the_age_at_which_frames_are_skipped_may_change(make_model):
    model, _ = make_model()
    camera = HandCamera()
    with LabelStream(model, camera, StreamOptions(max_age_ms=1.0, valid_ms=60_000)) as labels:
        camera.give(np.zeros((24, 32), np.uint8), time.monotonic_ns() - 500 * MS)
        labels.max_age_ms = 60_000.0
        assert next(labels).frame_id == 0
    assert labels.statistics.skipped == 0
