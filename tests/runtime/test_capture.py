"""Mailbox, capture thread, reconnect, frozen pictures: with a camera that follows a script."""

from __future__ import annotations

import logging
import threading

import numpy as np
import pytest

from kd_edge.errors import BadPictureError, CameraError, DataError, UnexpectedError
from kd_edge.runtime.backoff import Backoff
from kd_edge.runtime.cameras import TimeOuts
from kd_edge.runtime.capture import EARLY_SECONDS, Capture, FrozenPicture
from kd_edge.runtime.mailbox import Captured, Cut, Mailbox
from kd_edge.types import Cause, Frame, Reason
from tests.waiting import PATIENCE_SECONDS, wait_for

from .conftest import HandCamera, HandClock

MS = 1_000_000
FAST = TimeOuts(read_timeout_ms=50, reconnect_max_ms=150, frozen_ms=100)


def frame(k: int, image: np.ndarray | None = None) -> Frame:
    return Frame(np.full((8, 8), k, np.uint8) if image is None else image, k, k, "script")


def captured(k: int) -> Captured:
    return Captured(frame(k), Cut())


def test_live_mailbox_keeps_the_latest():
    mailbox = Mailbox(latest_wins=True)
    assert mailbox.put(captured(0))
    assert not mailbox.put(captured(1))
    assert mailbox.get(0).frame.frame_id == 1
    assert mailbox.get(0) is None
    mailbox.close()
    assert mailbox.closed
    assert mailbox.put(captured(2))  # nothing is lost by what nobody waits for
    assert mailbox.get(PATIENCE_SECONDS) is None  # at once


def test_lossless_mailbox_hands_over_every_frame():
    mailbox = Mailbox(latest_wins=False)

    def give():
        for k in range(500):
            mailbox.put(captured(k % 256))
        mailbox.close()

    giver = threading.Thread(target=give)
    giver.start()
    got = []
    while (item := mailbox.get(PATIENCE_SECONDS)) is not None:
        got.append(item.frame.frame_id)
    giver.join()
    assert got == [k % 256 for k in range(500)]


def test_closing_frees_a_waiting_giver():
    mailbox = Mailbox(latest_wins=False)
    mailbox.put(captured(0))
    giver = threading.Thread(target=mailbox.put, args=(captured(1),))
    giver.start()
    mailbox.close()
    giver.join(PATIENCE_SECONDS)
    assert not giver.is_alive()
    assert mailbox.get(0).frame.frame_id == 0  # the last frame is still there
    assert mailbox.closed


GONE = CameraError("gone", "frames", "cable")


class ScriptedCamera:
    """Each session (open to close) is a list of frames, None (silence), exceptions, and events to wait for.

    After its last session it is gone for ever; after the last item of one it is silent.
    """

    name, band, dtype, channels, fps = "script", None, "uint8", 1, 100.0

    def __init__(self, sessions, *, live=True):
        self.sessions, self.live, self.can_vanish, self.ended = list(sessions), live, live, False
        self.opened = self.closed = 0
        self.clock = None
        self.script = iter(())

    def open(self):
        self.opened += 1
        session = self.sessions.pop(0) if self.sessions else GONE
        if isinstance(session, Exception):
            raise session
        self.script = iter(session)

    def read(self, timeout_seconds):
        item = next(self.script, None)
        while isinstance(item, threading.Event):
            assert item.wait(PATIENCE_SECONDS)
            item = next(self.script, None)
        if isinstance(item, BaseException):
            raise item
        self.ended = item is None and not self.live
        if item is None and self.clock is not None:
            self.clock.advance(timeout_seconds * 1e3)
        return item

    def close(self):
        self.closed += 1


def started(camera, clock=None):
    camera.open()
    clock = clock or HandClock()
    if isinstance(camera, ScriptedCamera):
        camera.clock = clock
    capture = Capture(camera, FAST, clock)
    capture.start()
    return capture


@pytest.mark.parametrize("end", [GONE, None], ids=["error", "silence"])
def test_live_camera_is_reopened(end):
    fetched = threading.Event()
    camera = ScriptedCamera([[frame(0), fetched, end], GONE, GONE, [frame(1)]])
    capture = started(camera)
    try:
        first = capture.get(PATIENCE_SECONDS)
        assert (first.frame.frame_id, first.cut) == (0, Cut())
        fetched.set()
        wait_for(lambda: capture.counters.reconnects == 1)
        second = capture.get(PATIENCE_SECONDS)
        assert (second.frame.frame_id, second.cut) == (1, Cut(1, Cause(Reason.RECONNECT, "reconnect")))
        assert camera.opened >= 4
        assert not capture.ended
    finally:
        capture.stop()
    assert camera.closed >= 2
    assert capture.ended


def test_while_it_is_gone_the_newest_reason_is_told(monkeypatch, caplog):
    faults = iter(["camera hand: not there for 1 s", "camera hand: not there for 2 s", "busy"])

    class Gone(HandCamera):
        can_vanish = True

        def open(self) -> None:
            if (fault := next(faults, None)) is not None:
                raise CameraError(fault, "a camera", "plug it in")

        def read(self, timeout_seconds: float) -> None:
            raise CameraError("pulled out", "frames", "plug it in")

    told = []
    monkeypatch.setattr(Backoff, "next_seconds", lambda self: told.append(capture.trouble) or 0.001)
    capture = Capture(Gone(), TimeOuts())
    capture.start()
    wait_for(lambda: len(told) >= 4)
    capture.stop()
    assert [cause.detail for cause in told[:4]] == [
        f"{why}; reopening" for why in ("pulled out", "not there for 1 s", "not there for 2 s", "busy")
    ]
    assert [record.getMessage() for record in caplog.records][:3] == [
        f"camera hand: {why}; reopening" for why in ("pulled out", "not there for 1 s", "busy")
    ]
    assert {cause.reason for cause in told[:4]} == {Reason.CAMERA_LOST}


def test_slow_consumer_gets_the_latest_and_drops_are_counted():
    camera = ScriptedCamera([[frame(k) for k in range(50)]], live=True)
    capture = started(camera)
    try:
        wait_for(lambda: capture.counters.captured == 50)
        assert capture.get(0).frame.frame_id == 49
        assert capture.counters.dropped == 49
    finally:
        capture.stop()


def test_recording_is_lossless_and_ends():
    capture = started(ScriptedCamera([[frame(k) for k in range(40)]], live=False))
    got = []
    while (item := capture.get(PATIENCE_SECONDS)) is not None:
        got.append(item.frame.frame_id)
    capture.stop()
    assert got == list(range(40))
    assert capture.ended
    assert capture.error is None


@pytest.mark.parametrize("error", [DataError("a.png damaged", "an image", "x"), RuntimeError("driver")])
def test_error_in_a_recording_ends_it(error):
    capture = started(ScriptedCamera([[frame(0), error]], live=False))
    assert capture.get(PATIENCE_SECONDS).frame.frame_id == 0
    assert capture.get(PATIENCE_SECONDS) is None
    capture.stop()
    assert capture.error is error or capture.error.__cause__ is error


def test_a_bug_in_a_camera_keeps_its_traceback(caplog):
    """Of a recording it ends the stream; a live camera is reopened. The log has it at error level, once."""
    caplog.set_level(logging.DEBUG, "kd_edge.runtime")
    bug = KeyError("exposure")
    recording = started(ScriptedCamera([[frame(0), bug]], live=False))
    assert recording.get(PATIENCE_SECONDS) is not None
    assert recording.get(PATIENCE_SECONDS) is None
    recording.stop()
    assert isinstance(recording.error, UnexpectedError)
    assert str(recording.error).startswith("camera script failed (KeyError: 'exposure'). Expected frames.")
    assert (recording.error.exit_code, recording.error.__cause__) == (1, bug)
    (trace,) = (record for record in caplog.records if record.exc_info)
    assert (trace.levelname, trace.getMessage()) == ("ERROR", "camera script failed here:")
    assert trace.exc_info[1] is bug

    caplog.clear()
    live = started(ScriptedCamera([[bug], bug, bug, [frame(1)]]))
    assert live.get(PATIENCE_SECONDS).frame.frame_id == 1
    live.stop()
    (trace,) = (record for record in caplog.records if record.exc_info and record.exc_info[1] is bug)
    assert (trace.levelname, trace.getMessage()) == ("ERROR", "camera script was lost here:")


@pytest.mark.parametrize(("error", "level"), [(AttributeError("no such method"), "ERROR"), (OSError(5), "DEBUG")])
def test_what_closing_and_interrupting_raise_is_in_the_log(caplog, error, level):
    """A bug at error level, what a device does at debug."""
    caplog.set_level(logging.DEBUG, "kd_edge.runtime")
    camera = ScriptedCamera([[frame(0)]])
    camera.close = camera.interrupt = lambda: (_ for _ in ()).throw(error)
    capture = started(camera)
    assert capture.get(PATIENCE_SECONDS) is not None
    capture.stop()
    told = {(r.levelname, r.getMessage()) for r in caplog.records if r.exc_info and r.exc_info[1] is error}
    assert told == {(level, f"camera script cannot be {what} here:") for what in ("interrupted", "closed")}


def test_a_cameras_name_is_told_once(monkeypatch, caplog):
    """Its own errors begin with it, and so does a line of the log; a label bears it."""
    monkeypatch.setattr("kd_edge.runtime.capture.FIRST_PAUSE_SECONDS", 3600.0)
    camera = ScriptedCamera([[frame(0), CameraError("camera ir0: nobody listens", "a server", "switch it on")]])
    camera.name = "ir0"
    capture = started(camera)
    try:
        wait_for(lambda: capture.trouble is not None and camera.closed == 1)
        assert capture.trouble.detail == "nobody listens; reopening"
        assert "camera ir0: nobody listens; reopening" in caplog.messages
    finally:
        capture.stop()


def test_stopping_does_not_wait_for_the_next_attempt_to_reopen(monkeypatch):
    monkeypatch.setattr("kd_edge.runtime.capture.FIRST_PAUSE_SECONDS", 3600.0)
    camera = ScriptedCamera([[GONE]])
    capture = started(camera)
    wait_for(lambda: camera.closed == 1)  # the pause comes next
    capture.stop()
    assert not capture._thread.is_alive()
    assert (camera.opened, camera.closed) == (1, 2)


def test_a_camera_that_hangs_is_left_behind(monkeypatch, caplog):
    monkeypatch.setattr("kd_edge.runtime.capture.STOP_SECONDS", 0.01)
    at_work_again = threading.Event()
    camera = ScriptedCamera([[at_work_again]])
    capture = started(camera)
    capture.stop()
    assert [r.getMessage() for r in caplog.records] == ["camera script does not stop; its thread is abandoned"]
    assert camera.closed == 0  # nobody closes a device under a driver's feet
    with pytest.raises(CameraError, match="an earlier stream's thread still hangs"):
        Capture(camera, TimeOuts())
    Capture(ScriptedCamera([[]]), TimeOuts())  # another one may be opened
    at_work_again.set()
    capture._thread.join(PATIENCE_SECONDS)
    assert not capture._thread.is_alive()
    assert camera.closed == 1
    Capture(camera, TimeOuts())


def test_frozen_picture_is_not_fresh():
    still = np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)
    frozen = FrozenPicture(50 * MS)
    assert not frozen.is_frozen(frame(0, still), 1000 * MS)
    assert not frozen.is_frozen(frame(1, still), 1050 * MS)
    assert frozen.is_frozen(frame(2, still), 1051 * MS)
    moved = still.copy()
    moved[8, 8] ^= 1
    assert not frozen.is_frozen(frame(3, moved), 1060 * MS)
    assert frozen.is_frozen(frame(3, still), 1111 * MS)  # another picture, but the stamp stands still
    frozen.forget()
    assert not frozen.is_frozen(frame(3, still), 1112 * MS)


class FreezingCamera:
    """A live camera with 100 pictures a second; those from 5 to 39 are all picture 4."""

    name, band, dtype, channels, fps = "freezing", "nir", "uint8", 1, 100.0
    live, can_vanish, ended = True, False, False

    def __init__(self, clock: HandClock, go_on: threading.Event) -> None:
        self.clock, self.go_on, self.count = clock, go_on, 0

    def open(self) -> None: ...

    def close(self) -> None: ...

    def read(self, timeout_seconds: float) -> Frame | None:
        if self.count == 40 and not self.go_on.wait(0.01):
            return None
        if self.count == 42:
            return None
        picture = 4 if 5 <= self.count < 40 else self.count
        made = Frame(np.full((16, 16), picture, np.uint8), self.clock.advance(10), self.count, self.name)
        self.count += 1
        return made


def test_frozen_frames_are_not_handed_over_and_begin_another_window_afterwards():
    clock, go_on = HandClock(), threading.Event()
    capture = started(FreezingCamera(clock, go_on), clock)
    try:
        wait_for(lambda: capture.counters.frozen == 25)  # frames 15 to 39: frozen for more than 100 ms
        before = capture.get(0)
        assert (before.frame.frame_id, before.cut) == (14, Cut())
        assert capture.get(0) is None
        go_on.set()
        wait_for(lambda: capture.counters.captured == 42)
        after = capture.get(PATIENCE_SECONDS)
        assert after.frame.frame_id in (40, 41)
        assert after.cut.number > 0
        assert after.cut.cause.detail == "frozen picture"
        assert capture.counters.frozen == 25
    finally:
        capture.stop()


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_what_a_driver_raises_beside_exceptions_reopens_it_too(error):
    capture = started(ScriptedCamera([[frame(0), error], [frame(1)]]))
    try:
        wait_for(lambda: capture.counters.captured == 2)
        assert capture.counters.reconnects == 1
        assert not capture.ended
    finally:
        capture.stop()


def test_a_read_that_gives_no_frame_is_a_mistake_that_ends_it():
    capture = started(ScriptedCamera([[frame(0), np.zeros((4, 4), np.uint8)], [frame(1)]]))
    try:
        wait_for(lambda: capture.error is not None)
        assert "gave ndarray. Expected a kd_edge.types.Frame" in str(capture.error)
        assert capture.counters.reconnects == 0
    finally:
        capture.stop()


def test_a_read_that_gives_nothing_before_its_time_is_no_silence(monkeypatch):
    """A driver that polls: nothing, and nothing, and a frame; by a clock that hardly moves meanwhile."""
    camera = ScriptedCamera([[None, None, frame(0), None, None, frame(1)]])
    clock = HandClock()
    camera.open()
    capture = Capture(camera, FAST, clock)  # not told of the clock: its reads take no time
    capture.start()
    try:
        wait_for(lambda: capture.counters.captured == 2)
        assert (camera.opened, capture.counters.reconnects) == (1, 0)
    finally:
        capture.stop()


def test_a_camera_whose_closing_hangs_does_not_hold_up_the_end(monkeypatch, caplog):
    monkeypatch.setattr("kd_edge.runtime.capture.STOP_SECONDS", 0.01)
    at_work_again = threading.Event()
    camera = ScriptedCamera([[frame(0)]])
    camera.close = lambda: at_work_again.wait(PATIENCE_SECONDS)
    capture = started(camera)
    wait_for(lambda: capture.counters.captured == 1)
    capture.stop()
    assert "its thread is abandoned" in caplog.text
    at_work_again.set()
    capture._thread.join(PATIENCE_SECONDS)
    assert not capture._thread.is_alive()


class Numbered(ScriptedCamera):
    clock_kind = "arrival"


def test_a_camera_without_stamps_is_frozen_only_by_its_picture():
    """Every stamp is 0, which is what ``clock = "arrival"`` is for."""
    clock, go_on = HandClock(), [threading.Event() for _ in range(20)]
    session = [x for k in range(20) for x in (go_on[k], Frame(np.full((16, 16), k, np.uint8), 0, k, "script"))]
    camera = Numbered([session])
    capture = started(camera, clock)
    try:
        for k in range(20):  # two seconds, and a frame is frozen after 0.1
            clock.advance(100)
            go_on[k].set()
            wait_for(lambda k=k: capture.counters.captured == k + 1)
        assert capture.counters.frozen == 0
    finally:
        capture.stop()


@pytest.mark.parametrize(
    "image", [None, [[1]], np.zeros(3, np.uint8), np.zeros((), np.uint8), np.zeros((0, 4), np.uint8)]
)
def test_what_is_no_picture_is_one_frame_lost(image):
    bad = Frame(image, 0, 0, "script")
    capture = started(ScriptedCamera([[frame(0), bad, frame(1)]]))
    try:
        wait_for(lambda: capture.counters.captured == 2)
        assert (capture.counters.damaged, capture.counters.reconnects) == (1, 0)
    finally:
        capture.stop()


def test_numbers_and_truths_are_what_they_are_said_to_be():
    odd = Frame(np.ones((8, 8), np.uint8), 5_000_000_000, None, "script", truth=5)
    capture = started(ScriptedCamera([[odd]], live=False))
    got = capture.get(PATIENCE_SECONDS).frame
    capture.stop()
    assert (got.frame_id, got.truth) == (0, "5")


def test_stamps_that_are_wrong_again_and_again_are_told_once_in_a_while(caplog):
    clock = HandClock()
    hour = 3_600_000 * MS
    frames = [
        Frame(np.full((8, 8), k % 250, np.uint8), clock.ns + (hour if k % 2 else 0), k, "script") for k in range(200)
    ]
    capture = started(ScriptedCamera([frames]), clock)
    try:
        wait_for(lambda: capture.counters.captured == 200)
        assert capture.counters.misdated == 100
        assert sum("ahead of now" in r.getMessage() for r in caplog.records) == 1
    finally:
        capture.stop()


@pytest.mark.parametrize("can_vanish", [True, False])
def test_a_driver_that_fails_at_once_for_ever_does_not_spin(monkeypatch, can_vanish):
    """Nothing but damaged pictures, each at once: there is a pause after every one."""
    count = 30
    camera = ScriptedCamera([[BadPictureError("damaged", "a picture", "cable")] * count])
    camera.can_vanish = can_vanish
    camera.open()
    capture = Capture(camera, FAST, HandClock())
    pauses = []
    wait = capture._stop.wait
    monkeypatch.setattr(capture._stop, "wait", lambda seconds: pauses.append(seconds) or wait(seconds))
    capture.start()
    try:
        wait_for(lambda: capture.counters.damaged == count)
        assert pauses[: count - 1] == [EARLY_SECONDS] * (count - 1)
    finally:
        capture.stop()
