"""Several cameras in one stream: one step for frames that are there together, and no camera's trouble is another's."""

from __future__ import annotations

import json
import logging
import threading
from collections import Counter

import numpy as np
import pytest

from kd_edge.artifact import SigningKey, new_keys, sign
from kd_edge.errors import ArtifactError, CameraError, ConfigError, DataError
from kd_edge.preprocess import Preprocess
from kd_edge.runtime import Recognizer, stream
from kd_edge.runtime.capture import Capture
from kd_edge.runtime.feed import TOGETHER_NS
from kd_edge.runtime.options import StreamOptions
from kd_edge.runtime.stream import MOST_FAILURES, LabelStream
from kd_edge.types import Frame, LabelState, Reason
from tests.waiting import PATIENCE_SECONDS, wait_for

from .conftest import HandCamera, HandClock, TinyStep, tiny_manifest
from .stepped import TinyEngine

MS = 1_000_000


class Watched(TinyEngine):
    """Counts its steps by how many frames they encode."""

    def __init__(self) -> None:
        super().__init__(TinyStep(tiny_manifest()))
        self.steps: Counter[int] = Counter()

    def bind(self, batch):
        binding = super().bind(batch)
        run = binding.run

        def counted() -> None:
            self.steps[batch] += 1
            run()

        vars(binding)["run"] = counted
        return binding


class Two:
    """Two cameras, a clock moved by hand, and the stream over both."""

    def __init__(self, names=("left", "right"), **options) -> None:
        self.clock, self.engine = HandClock(), Watched()
        self.cameras = [HandCamera() for _ in names]
        for name, camera in zip(names, self.cameras, strict=True):
            camera.name = name
        self.recognizer = Recognizer(self.engine.step.manifest, self.engine, max_sources=len(names))
        self.labels = LabelStream(self.recognizer, self.cameras, StreamOptions(**options), self.clock)

    def __enter__(self):
        self.labels.__enter__()
        return self

    def __exit__(self, *error):
        self.labels.__exit__(*error)

    def give(self, frames, age_ms=0):
        """Frames by camera, all there before the next look."""
        for name, image in frames.items():
            camera = next(c for c in self.cameras if c.name == name)
            camera.give(image, self.clock.ns - age_ms * MS)
        wait_for(lambda: all(self.waits(name) for name in frames))

    def waits(self, name):
        feed = next(f for f in self.labels._feeds.all if f.name == name)
        return feed.capture.waiting is not None

    def both(self, images, after_ms=10):
        """The predictions of a frame of each camera, in the cameras' order."""
        self.clock.advance(after_ms)
        self.give({camera.name: image for camera, image in zip(self.cameras, images, strict=True)})
        return [next(self.labels) for _ in self.cameras]


@pytest.fixture
def pictures(noise):
    return noise(60), noise(60, seed=1)


def test_frames_that_are_there_together_are_one_step_and_change_no_label(pictures):
    with Two() as two:
        given = [two.both(pair) for pair in zip(*pictures, strict=True)]
    assert [[p.source for p in row] for row in given] == [["left", "right"]] * 60
    assert two.engine.steps == {2: 60}
    for k, frames in enumerate(pictures):
        alone = Recognizer(two.engine.step.manifest, TinyEngine(two.engine.step))
        for row, frame in zip(given, frames, strict=True):
            expected = alone.push(frame, row[k].captured_ns)
            np.testing.assert_array_equal(row[k].probabilities, expected.probabilities)
            assert (row[k].state, row[k].label, row[k].reason) == (expected.state, expected.label, expected.reason)
    assert {p.state for row in given[45:] for p in row} == {LabelState.OK}
    statistics = two.labels.statistics
    assert (statistics.captured, statistics.pushed) == (120, 120)
    assert sum(statistics.labels.values()) == 120


def test_a_frame_waits_for_the_one_that_belongs_together_with_it(pictures):
    with Two() as two:
        left, right = two.cameras
        feeds = two.labels._feeds
        right.on_its_way = True
        left.give(pictures[0][0], two.clock.now_ns())
        wait_for(lambda: feeds.all[0].capture.waiting)
        assert not feeds._is_ready()
        right.give(pictures[1][0], two.clock.now_ns())
        wait_for(lambda: feeds.all[1].capture.waiting)
        assert sorted(feed.name for feed, _ in feeds.get(PATIENCE_SECONDS)) == ["left", "right"]
        left.give(pictures[0][1], two.clock.now_ns())
        wait_for(lambda: feeds.all[0].capture.waiting)
        assert [feed.name for feed, _ in feeds.get(0.01)] == ["left"]  # no longer than it is worth
        right.on_its_way = False
        left.give(pictures[0][2], two.clock.now_ns())
        assert [feed.name for feed, _ in feeds.get(PATIENCE_SECONDS)] == ["left"]


def test_more_cameras_than_a_recogniser_holds_by_default(make_model, noise):
    cameras = [HandCamera() for _ in range(9)]
    for number, camera in enumerate(cameras):
        camera.name = f"c{number}"
    clock = HandClock()
    with LabelStream(make_model()[0], cameras, StreamOptions(), clock) as labels:
        for camera in cameras:
            camera.give(noise(1)[0], clock.ns)
        assert {next(labels).source for _ in cameras} == {camera.name for camera in cameras}


def test_one_falls_silent_and_the_other_goes_on(pictures):
    with Two() as two:
        for pair in zip(*pictures, strict=True):
            two.both(pair)
        silent = []
        for k in range(40):
            two.clock.advance(20)
            two.give({"left": pictures[0][k]})
            fresh = next(two.labels)
            assert (fresh.source, fresh.state) == ("left", LabelState.OK)
            silent += [p for p in two.labels._waiting if p.source == "right"]
            two.labels._waiting.clear()
    assert {(p.state, p.reason, p.label) for p in silent} == {(LabelState.STALE, Reason.NO_FRAME, None)}
    assert [p.detail for p in silent] == [f"no fresh frame for {ms} ms" for ms in (260, 520, 780)]


def test_a_camera_whose_frames_are_nothing_for_the_model_is_given_up_alone(pictures, caplog):
    with Two() as two:
        two.both((pictures[0][0], pictures[1][0]))
        two.clock.advance(10)
        two.give({"left": pictures[0][1], "right": pictures[1][1].astype(np.uint16)})
        assert next(two.labels).source == "left"
        assert not two.labels._waiting
        told = []
        for k in range(2, 60):
            two.clock.advance(10)
            two.give({"left": pictures[0][k]})
            assert next(two.labels).source == "left"
            told += two.labels._waiting
            two.labels._waiting.clear()
        assert {(p.source, p.state, p.reason) for p in told} == {("right", LabelState.STALE, Reason.CAMERA_LOST)}
        assert told[0].detail.endswith("ms: right delivers uint16 (24, 32)")
        assert len(told) == 2  # 580 ms, one each 250
        lost = [r.message for r in caplog.records if r.levelno == logging.WARNING]
        assert lost == ["camera right gives no more frames, the others go on: right delivers uint16 (24, 32)"]
        two.clock.advance(10)
        two.give({"left": pictures[0][0].astype(np.uint16)})
        with pytest.raises(CameraError, match="left delivers uint16"):
            list(two.labels)  # until nobody is left
    assert not any(camera.open_now for camera in two.cameras)


def test_a_camera_that_raises_for_good_is_given_up_alone(pictures):
    with Two() as two:
        two.both((pictures[0][0], pictures[1][0]))

        def broken(timeout_seconds):
            raise OSError(19, "No such device")

        two.cameras[1].read = broken  # it cannot vanish: nothing reopens it
        wait_for(lambda: two.labels._feeds.all[1].capture.ended)
        two.clock.advance(250)
        two.give({"left": pictures[0][1]})
        given = [next(two.labels), next(two.labels)]
    assert [(p.source, p.reason) for p in given] == [("left", Reason.START), ("right", Reason.CAMERA_LOST)]
    assert "No such device" in given[1].detail


def test_a_label_that_waits_for_its_reader_is_judged_anew(pictures):
    with Two() as two:
        for pair in zip(*pictures, strict=True):
            two.both(pair)
        two.clock.advance(10)
        two.give({"left": pictures[0][0], "right": pictures[1][0]})
        assert next(two.labels).state is LabelState.OK
        two.clock.advance(251)  # the reader is slow
        late = next(two.labels)
    assert (late.source, late.state, late.reason, late.label) == ("right", LabelState.STALE, Reason.LATE, None)


def test_an_engine_that_fails_makes_all_of_its_step_stale(pictures):
    with Two() as two:
        for pair in zip(*pictures, strict=True):
            two.both(pair)
        two.engine.failures = 1
        failed = two.both((pictures[0][0], pictures[1][0]))
        assert {(p.state, p.reason) for p in failed} == {(LabelState.STALE, Reason.ENGINE_FAILED)}
        assert {p.state for p in two.both((pictures[0][1], pictures[1][1]))} == {LabelState.WARMING}
        assert two.labels.statistics.engine_failures == 2  # frames
        two.engine.failures = MOST_FAILURES
        for k in range(MOST_FAILURES - 1):
            two.both((pictures[0][k], pictures[1][k]))
        with pytest.raises(ArtifactError, match="out of memory"):
            two.both((pictures[0][9], pictures[1][9]))


def test_frames_that_are_too_old_are_skipped_by_camera(pictures):
    with Two(max_age_ms=50) as two:
        two.clock.advance(10)
        two.cameras[1].give(pictures[1][0], two.clock.ns - 60 * MS)
        two.give({"left": pictures[0][0]})
        wait_for(lambda: two.labels.statistics.captured == 2)
        assert next(two.labels).source == "left"
        assert two.labels.statistics.skipped == 1


def test_frames_from_before_a_sleep_are_none_after_it_whichever_camera_noticed(pictures):
    with Two(valid_ms=10_000) as two:
        for pair in zip(*pictures, strict=True):
            two.both(pair)
        two.clock.advance(10)
        two.give({"right": pictures[1][1]})  # before the machine sleeps
        two.clock.nap_ns += 3_600_000 * MS
        two.clock.advance(10)
        two.cameras[0].give(pictures[0][1], two.clock.ns - MS)  # from before, delivered after
        wait_for(lambda: two.labels.statistics.misdated == 1)
        two.clock.advance(10)
        two.give({"left": pictures[0][2]})
        given = [next(two.labels), next(two.labels)]
    assert [(p.source, p.state, p.reason) for p in given] == [
        ("left", LabelState.WARMING, Reason.SUSPENDED),
        ("right", LabelState.STALE, Reason.SUSPENDED),
    ]


def test_a_label_that_waited_while_the_machine_slept_is_stale_and_counted_so(pictures):
    with Two(valid_ms=10_000) as two:
        for pair in zip(*pictures, strict=True):
            two.both(pair)
        two.clock.advance(10)
        two.give({"left": pictures[0][0], "right": pictures[1][0]})
        assert next(two.labels).state is LabelState.OK
        before = two.labels.statistics
        two.clock.nap_ns += 60_000 * MS
        late = next(two.labels)
        assert (late.source, late.state, late.reason) == ("right", LabelState.STALE, Reason.SUSPENDED)
        after = two.labels.statistics
    assert after.labels["ok"] == before.labels["ok"] - 1
    assert (after.labels["stale"], after.reasons["suspended"]) == (1, 1)


def test_a_camera_that_has_ended_is_stale_while_others_go_on(pictures):
    with Two() as two:
        two.both((pictures[0][0], pictures[1][0]))
        two.cameras[1].ended = True
        wait_for(lambda: two.labels._feeds.all[1].capture.ended)
        two.clock.advance(250)
        two.give({"left": pictures[0][1]})
        given = [next(two.labels), next(two.labels)]
        assert [(p.source, p.reason) for p in given] == [("left", Reason.START), ("right", Reason.NO_FRAME)]
        assert given[1].detail == "no fresh frame for 250 ms: it has ended"
        two.cameras[0].ended = True
        assert list(two.labels) == []  # the last one has ended, too


def test_the_stream_ends_as_the_camera_that_ends_last(pictures):
    with Two() as two:

        def broken(timeout_seconds):
            raise OSError("left broke first")

        two.cameras[0].read = broken
        wait_for(lambda: two.labels._feeds.all[0].capture.ended)
        two.clock.advance(10)
        two.give({"right": pictures[1][0]})
        assert next(two.labels).source == "right"
        two.cameras[1].ended = True
        assert {p.source for p in two.labels} <= {"left"}


def test_an_engine_without_room_for_all_cameras_takes_them_in_smaller_steps(pictures):
    class Narrow(Watched):
        def bind(self, batch):
            if batch > 1:
                raise ArtifactError("no memory for a batch of 2", "memory", "push fewer at once")
            return super().bind(batch)

    with Two() as two:
        two.recognizer._runner.engine = narrow = Narrow()
        given = [two.both(pair) for pair in zip(*pictures, strict=True)]
        assert two.labels.statistics.engine_failures == 0
    assert {p.state for row in given[45:] for p in row} == {LabelState.OK}
    assert set(narrow.steps) == {1}
    two.engine.max_batch = 1  # an engine that says so is not asked for more
    again = Two()
    again.recognizer._runner.engine = two.engine
    with again:
        again.both((pictures[0][0], pictures[1][0]))
    assert two.engine.steps == {1: 2}


def test_an_engine_that_always_fails_ends_the_stream_whatever_the_motion_history(pictures):
    manifest = tiny_manifest(preprocess=Preprocess(resize_px=16, input_px=16, motion_offsets_ms=(0, 70, 140)))
    engine, clock, camera = TinyEngine(TinyStep(manifest)), HandClock(), HandCamera()
    engine.failures = 10**6
    with LabelStream(Recognizer(manifest, engine), camera, StreamOptions(), clock) as labels:

        def on() -> None:
            for k in range(60 * MOST_FAILURES):
                clock.advance(33)
                camera.give(pictures[0][k % 60], clock.ns)
                wait_for(lambda k=k: labels.statistics.captured == k + 1)
                next(labels)

        with pytest.raises(ArtifactError, match="out of memory"):
            on()
        assert labels.statistics.engine_failures == MOST_FAILURES


def test_a_bad_frame_beside_a_failing_engine_costs_only_its_own(pictures):
    with Two(("a", "b", "c")) as two:
        for left, right in zip(*pictures, strict=True):
            two.both((left, right, left))
        two.clock.advance(10)
        runs = iter([False, True])  # of a, then of c; b's is refused before

        def sometimes(self, batch, bind=TinyEngine.bind):
            binding = bind(self, batch)
            run = binding.run

            def maybe() -> None:
                if next(runs):
                    raise ArtifactError("the engine failed: out of memory", "a step", "restart it")
                run()

            vars(binding)["run"] = maybe
            return binding

        two.recognizer._runner._bindings.clear()
        two.engine.bind = lambda batch: sometimes(two.engine, batch)
        two.give({"a": pictures[0][0], "b": pictures[1][0].astype(np.uint16), "c": pictures[0][1]})
        given = [next(two.labels), next(two.labels)]
    assert [(p.source, p.state) for p in given] == [("a", LabelState.OK), ("c", LabelState.STALE)]


def test_cameras_that_learn_the_same_name_on_opening_are_refused(make_model):
    class Learning(HandCamera):
        def open(self):
            super().open()
            self.name = "D435"

    cameras = [Learning(), Learning()]
    cameras[1].name = "other"
    with pytest.raises(ConfigError, match="two cameras called 'D435'"):
        stream(model=make_model()[0], camera=cameras).__enter__()
    assert not any(camera.open_now for camera in cameras)


def test_a_recogniser_without_places_enough_is_an_error_on_entering(make_model):
    recognizer = Recognizer.load(make_model()[0], max_sources=1)
    with pytest.raises(CameraError, match="source 'b' beside 0 others"):
        stream(model=recognizer, camera=["a=synthetic:?frames=3", "b=synthetic:?frames=3"]).__enter__()
    for name in "abc":  # one after the other there is always a place
        with stream(model=recognizer, camera=f"{name}=synthetic:?frames=3&realtime=false") as labels:
            assert len(list(labels)) == 3


def test_leaving_takes_the_time_of_one_camera_that_hangs(make_model, monkeypatch):
    monkeypatch.setattr("kd_edge.runtime.capture.STOP_SECONDS", 0.1)
    go_on, waits, stop = threading.Event(), [], Capture.stop

    def recorded(capture, timeout_seconds=None):
        waits.append(timeout_seconds)
        stop(capture, timeout_seconds)

    class Hanging(HandCamera):
        def read(self, timeout_seconds):
            go_on.wait(PATIENCE_SECONDS)

    monkeypatch.setattr(Capture, "stop", recorded)
    cameras = [Hanging() for _ in range(6)]
    for number, camera in enumerate(cameras):
        camera.name = f"c{number}"
    try:
        with stream(model=make_model()[0], camera=cameras):
            pass
        assert len(waits) == 6
        assert sum(waits) < 0.15  # of one, not of six
    finally:
        go_on.set()


def test_nothing_comes_after_the_stream_was_left(pictures):
    with Two() as two:
        two.clock.advance(10)
        two.give({"left": pictures[0][0], "right": pictures[1][0]})
        next(two.labels)
    assert list(two.labels) == []


@pytest.mark.parametrize("stamp", [float("nan"), float("inf"), None, "x"])
def test_recordings_whose_stamps_are_none_are_one_line(make_model, noise, stamp):
    class Recording(HandCamera):
        live = False

        def __init__(self, name, stamps):
            super().__init__()
            self.name, self.stamps = name, list(stamps)

        def read(self, timeout_seconds):
            frame = Frame(noise(1)[0], self.stamps.pop(0), 0, self.name)
            self.ended = not self.stamps
            return frame

    good = Recording("good", range(0, 50 * 10**7, 10**7))
    bad = Recording("bad", [0, 10**7, stamp, 3 * 10**7])
    with (
        stream(model=make_model()[0], camera=[good, bad]) as labels,
        pytest.raises(CameraError, match=r"bad: a frame's stamp is"),
    ):
        list(labels)


@pytest.mark.parametrize("camera", [3, {"a"}, iter(["ir0"]), object()])
def test_what_is_no_camera_is_refused(make_model, camera):
    with pytest.raises(ConfigError, match="a name, a URI, an object with all that"):
        stream(model=make_model()[0], camera=camera).__enter__()


def test_a_camera_file_may_have_another_name_for_its_labels(make_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runtime/cameras").mkdir(parents=True)
    (tmp_path / "runtime/cameras/ir7.toml").write_text('uri = "synthetic:?frames=3&realtime=false"\n')
    with stream(model=make_model()[0], camera=["_left=ir7", "vörne=ir7"]) as labels:
        assert {p.source for p in labels} == {"_left", "vörne"}


@pytest.mark.parametrize(
    ("cameras", "message"),
    [
        ([], "no camera. Expected at least one"),
        (["synthetic:", "synthetic:?seed=2"], "two cameras called 'synthetic'.*--camera left=URI --camera right=URI"),
        (["a=synthetic:", "b=synthetic:?realtime=false"], "all of them live, or all of them recordings"),
    ],
)
def test_cameras_that_are_no_stream_are_refused(make_model, cameras, message):
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        stream(model=make_model()[0], camera=cameras).__enter__()


@pytest.mark.parametrize(
    ("left", "right", "message"),
    [
        ("threads = 1", "threads = 2", "different threads: .*left.toml 1, .*right.toml 2"),
        ("cpus = [0]", "cpus = [1]", r"different cpus: .*left.toml \[0\], .*right.toml \[1\]"),
        ("priority = 3", "priority = 4", "different priority"),
    ],
)
def test_camera_files_that_disagree_are_refused(make_model, tmp_path, left, right, message):
    for name, line in (("left", left), ("right", right)):
        (tmp_path / f"{name}.toml").write_text(f'uri = "synthetic:?frames=3&realtime=false"\n{line}\n')
    files = [str(tmp_path / "left.toml"), str(tmp_path / "right.toml")]
    with pytest.raises(ConfigError, match=message):
        stream(model=make_model()[0], camera=files).__enter__()


def test_each_camera_files_trust_must_hold(make_model, tmp_path):
    new_keys(tmp_path / "robot.key")
    (tmp_path / "a.toml").write_text('uri = "synthetic:?frames=3&realtime=false"\n')
    (tmp_path / "b.toml").write_text(
        f'uri = "synthetic:?frames=3&realtime=false"\ntrust = "{tmp_path / "robot.pub"}"\n'
    )
    recognizer = Recognizer.load(make_model()[0])
    with pytest.raises(ArtifactError, match=r"signature that .*robot\.pub trusts"):
        stream(model=recognizer, camera=[str(tmp_path / "a.toml"), str(tmp_path / "b.toml")]).__enter__()


def test_a_model_is_let_go_where_what_a_camera_file_trusts_is_no_key(make_model, tmp_path, monkeypatch):
    model, key, closed = make_model()[0], tmp_path / "robot.key", []
    new_keys(key)
    sign(model, SigningKey(key))
    for name, trusted in (("a", "robot.pub"), ("b", "gone.pub")):
        line = f'trust = "{tmp_path / trusted}"'
        (tmp_path / f"{name}.toml").write_text(f'uri = "synthetic:?frames=3&realtime=false"\n{line}\n')
    monkeypatch.setattr(Recognizer, "close", lambda self: closed.append(self))
    with pytest.raises(ConfigError, match=r"gone\.pub"):
        stream(model=model, camera=[str(tmp_path / "a.toml"), str(tmp_path / "b.toml")]).__enter__()
    assert len(closed) == 1


@pytest.fixture
def two_clips(tmp_path, noise):
    np.save(tmp_path / "left.npy", noise(40))
    np.save(tmp_path / "right.npy", noise(25, seed=1))
    return [f"left=replay:{tmp_path / 'left.npy'}?fps=40", f"right=replay:{tmp_path / 'right.npy'}?fps=25"]


def test_recordings_are_labelled_in_the_order_of_their_stamps(make_model, two_clips, tmp_path):
    model, _ = make_model()
    passes = []
    for number in range(2):
        with stream(model=model, camera=two_clips, sinks=[f"jsonl:{tmp_path / f'{number}.jsonl'}"]) as labels:
            passes.append(list(labels))
        assert labels.statistics.pushed == 65
    texts = [(tmp_path / f"{number}.jsonl").read_text() for number in range(2)]
    assert texts[0] == texts[1]
    assert [json.loads(line)["captured_ns"] for line in texts[0].splitlines()] == [p.captured_ns for p in passes[0]]
    earlier = np.maximum.accumulate([p.captured_ns for p in passes[0]])
    assert all(p.captured_ns >= before - TOGETHER_NS for p, before in zip(passes[0], earlier, strict=True))
    for uri in two_clips:
        with stream(model=model, camera=uri) as labels:
            alone = [(p.frame_id, p.captured_ns, p.state, p.probabilities.tobytes()) for p in labels]
        ours = [p for p in passes[0] if p.source == uri.partition("=")[0]]
        assert [(p.frame_id, p.captured_ns, p.state, p.probabilities.tobytes()) for p in ours] == alone


def test_a_damaged_recording_ends_the_stream_at_its_place(make_model, two_clips, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    import cv2

    for k in range(10):
        cv2.imwrite(str(folder / f"{k:03}.png"), np.full((24, 32), 20 * k, np.uint8))
    (folder / "006.png").write_bytes(b"no picture")
    given = []
    with (
        stream(model=make_model()[0], camera=[two_clips[0], f"replay:{folder}?fps=20"]) as labels,
        pytest.raises(DataError, match=r"006\.png"),
    ):
        given += labels
    stamps = [p.captured_ns for p in given if p.source == "left"]
    assert max(stamps) <= 6 * 50 * MS  # nothing of the other beyond it
    assert sum(p.source == "images" for p in given) == 6
