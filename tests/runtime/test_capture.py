"""Mailbox, capture thread, reconnect, frozen pictures: with a camera that follows a script."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from kd_edge.errors import CameraError, DataError
from kd_edge.runtime.cameras.config import CameraConfig
from kd_edge.runtime.capture import Capture, Captured, FrozenPicture, Mailbox
from kd_edge.types import Frame

FAST = CameraConfig(uri="synthetic:", read_timeout_ms=50, reconnect_max_ms=150, frozen_ms=100)


def frame(k: int, image: np.ndarray | None = None) -> Frame:
    return Frame(np.full((8, 8), k, np.uint8) if image is None else image, k, k, "script")


def test_live_mailbox_keeps_the_latest():
    mailbox = Mailbox(latest_wins=True)
    assert mailbox.put(Captured(frame(0), 0, ""))
    assert not mailbox.put(Captured(frame(1), 0, ""))
    assert mailbox.get(0).frame.frame_id == 1
    assert mailbox.get(0.01) is None
    mailbox.close()
    assert mailbox.closed
    assert not mailbox.put(Captured(frame(2), 0, ""))
    assert mailbox.get(None) is None


def test_lossless_mailbox_hands_over_every_frame():
    mailbox = Mailbox(latest_wins=False)

    def give():
        for k in range(500):
            mailbox.put(Captured(frame(k % 256), 0, ""))
        mailbox.close()

    giver = threading.Thread(target=give)
    giver.start()
    got = []
    while (item := mailbox.get(1)) is not None:
        got.append(item.frame.frame_id)
    giver.join()
    assert got == [k % 256 for k in range(500)]


def test_closing_frees_a_waiting_giver():
    mailbox = Mailbox(latest_wins=False)
    mailbox.put(Captured(frame(0), 0, ""))
    giver = threading.Thread(target=mailbox.put, args=(Captured(frame(1), 0, ""),))
    giver.start()
    mailbox.close()
    giver.join(1)
    assert not giver.is_alive()
    assert mailbox.get(0).frame.frame_id == 0  # the last frame is still there
    assert mailbox.closed


class ScriptedCamera:
    """Each session (open to close) is a list of frames, None (silence) or an exception."""

    name, band, dtype, channels, fps = "script", None, "uint8", 1, 100.0

    def __init__(self, sessions, *, live=True):
        self.sessions, self.live, self.can_vanish, self.ended = list(sessions), live, live, False
        self.opened = self.closed = 0
        self.script = iter(())

    def open(self):
        self.opened += 1
        session = self.sessions.pop(0)
        if isinstance(session, Exception):
            raise session
        self.script = iter(session)

    def read(self, timeout_seconds):
        item = next(self.script, None)
        if isinstance(item, Exception):
            raise item
        if item is None:
            if not self.live:
                self.ended = True
                return None
            time.sleep(timeout_seconds)
            return None
        time.sleep(0.002)
        return item

    def close(self):
        self.closed += 1


def started(camera, config=FAST):
    camera.open()
    capture = Capture(camera, config)
    capture.start()
    return capture


def wait_for(condition, seconds=3.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


GONE = CameraError("gone", "frames", "cable")


@pytest.mark.parametrize("end", [GONE, None], ids=["error", "silence"])
def test_live_camera_is_reopened(end):
    camera = ScriptedCamera([[frame(0), end], GONE, GONE, [frame(1)]])
    capture = started(camera)
    try:
        first = capture.get(2)
        assert (first.frame.frame_id, first.cuts, first.cause) == (0, 0, "")
        wait_for(lambda: capture.counters.reconnects == 1)
        second = capture.get(2)
        assert (second.frame.frame_id, second.cuts, second.cause) == (1, 1, "reconnect")
        assert camera.opened == 4
        assert not capture.ended
    finally:
        capture.stop()
    assert camera.closed >= 2
    assert capture.ended


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
    while (item := capture.get(1)) is not None:
        got.append(item.frame.frame_id)
    capture.stop()
    assert got == list(range(40))
    assert capture.ended
    assert capture.error is None


@pytest.mark.parametrize("error", [DataError("a.png damaged", "an image", "x"), RuntimeError("driver")])
def test_error_in_a_recording_ends_it(error):
    capture = started(ScriptedCamera([[frame(0), error]], live=False))
    assert capture.get(1).frame.frame_id == 0
    assert capture.get(1) is None
    capture.stop()
    assert capture.error is error or "RuntimeError('driver')" in str(capture.error)


def test_stops_in_bounded_time_while_the_camera_is_gone():
    camera = ScriptedCamera([[GONE], *[GONE] * 1000])
    capture = started(camera, CameraConfig(uri="synthetic:", read_timeout_ms=50, reconnect_max_ms=60_000))
    wait_for(lambda: camera.opened >= 3)
    before = time.monotonic()
    capture.stop()
    assert time.monotonic() - before < 0.5


def test_frozen_picture_is_not_fresh():
    still = np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)
    frozen = FrozenPicture(0.05)
    assert not frozen.is_frozen(frame(0, still))
    assert not frozen.is_frozen(frame(1, still))
    time.sleep(0.06)
    assert frozen.is_frozen(frame(2, still))
    moved = still.copy()
    moved[8, 8] ^= 1
    assert not frozen.is_frozen(frame(3, moved))
    time.sleep(0.06)
    assert frozen.is_frozen(frame(3, still))  # another picture, but the stamp stands still
    frozen.forget()
    assert not frozen.is_frozen(frame(3, still))


def test_frozen_frames_are_not_handed_over():
    still = frame(1).image
    camera = ScriptedCamera([[Frame(still, k, k, "script") for k in range(2000)]])
    capture = started(camera)
    try:
        wait_for(lambda: capture.counters.frozen > 20)
        capture.get(0)
        assert capture.get(0.05) is None
    finally:
        capture.stop()


class FreezingCamera:
    """A live camera that delivers one picture for a while, then goes on."""

    name, band, dtype, channels, fps = "freezing", "nir", "uint8", 1, 100.0
    live, can_vanish, ended = True, True, False

    def __init__(self) -> None:
        self.count = 0
        self.rng = np.random.default_rng(0)
        self.image = np.zeros((16, 16), np.uint8)

    def open(self) -> None: ...

    def close(self) -> None: ...

    def read(self, timeout_seconds: float) -> Frame:
        time.sleep(0.01)
        self.count += 1
        if not 5 <= self.count < 40:
            self.image = self.rng.integers(0, 255, (16, 16), dtype=np.uint8)
        return Frame(self.image, time.monotonic_ns(), self.count, self.name)


def test_frames_after_a_frozen_picture_begin_another_window():
    capture = Capture(FreezingCamera(), CameraConfig(uri="synthetic:", frozen_ms=100))
    capture.start()
    try:
        deadline = time.monotonic() + 5
        while (captured := capture.get(1)) is None or captured.cuts == 0:
            assert time.monotonic() < deadline
    finally:
        capture.stop()
    assert captured.cause == "frozen picture"
    assert captured.frame.frame_id >= 40
    assert capture.counters.frozen >= 5
