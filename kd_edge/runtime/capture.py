"""The capture thread: reads the camera, reopens it when it is gone, hands frames over."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kd_edge.errors import KdEdgeError
from kd_edge.runtime.cameras.base import Camera
from kd_edge.runtime.cameras.config import TimeOuts
from kd_edge.runtime.clock import MONOTONIC, Clock
from kd_edge.runtime.memory import START
from kd_edge.types import Cause, Frame, Reason

log = logging.getLogger("kd_edge.runtime")

FIRST_PAUSE_SECONDS = 0.1
STOP_SECONDS = 2.0
"""A thread that hangs inside a driver for longer than this is left behind (it is a daemon)."""
_GRID = 8  # every 8th pixel in both directions tells a frozen picture


@dataclass(slots=True)
class CaptureCounters:
    """What happened to the frames so far."""

    captured: int = 0
    dropped: int = 0
    frozen: int = 0
    reconnects: int = 0


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a stream does not go on as it was: another cut begins another window.

    Attributes:
        number: 0 at the start; each cut has a larger one than those before.
        cause: What happened there.
    """

    number: int = 0
    cause: Cause = START

    def next(self, cause: Cause) -> Cut:
        """A later cut."""
        return Cut(self.number + 1, cause)


@dataclass(frozen=True, slots=True)
class Captured:
    """A frame and the last cut before it."""

    frame: Frame
    cut: Cut


class Mailbox:
    """One slot between the capture thread and the consumer.

    Args:
        latest_wins: A new frame replaces one that was not fetched (live camera); else the giver waits (recording).
    """

    def __init__(self, *, latest_wins: bool) -> None:
        self._latest_wins = latest_wins
        self._changed = threading.Condition()
        self._frame: Captured | None = None
        self._closed = False

    def put(self, frame: Captured) -> bool:
        """Hand a frame over.

        Returns:
            False when another frame was replaced by it, or when the mailbox is closed.
        """
        with self._changed:
            if not self._latest_wins:  # as long as the consumer thinks: close() ends it
                self._changed.wait_for(lambda: self._frame is None or self._closed)
            kept = self._frame is None and not self._closed
            if not self._closed:
                self._frame = frame
                self._changed.notify_all()
            return kept

    def get(self, timeout_seconds: float) -> Captured | None:
        """Fetch the frame; None when none came in time or the mailbox is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._frame is not None or self._closed, timeout_seconds)
            frame, self._frame = self._frame, None
            self._changed.notify_all()
            return frame

    def close(self) -> None:
        """No more frames; a waiting giver and a waiting consumer go on at once."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        """Whether no more frames come; the last one may still be there."""
        with self._changed:
            return self._closed and self._frame is None


class Capture:
    """Runs one camera in a thread of its own.

    A recording ends the capture when it ends or fails. A live camera that is silent for its read time-out, or raises,
    is closed and reopened with growing pauses until ``stop``.

    Args:
        camera: What to read.
        timeouts: How long to wait for it.
        clock: Tells how long a picture has been frozen.

    Attributes:
        counters: Frames captured, dropped, frozen; reconnects.
        error: What ended the capture early.
    """

    def __init__(self, camera: Camera, timeouts: TimeOuts, clock: Clock = MONOTONIC) -> None:
        self.counters = CaptureCounters()
        self.error: KdEdgeError | None = None
        self._camera, self._timeouts, self._clock = camera, timeouts, clock
        self._mailbox = Mailbox(latest_wins=camera.live)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"kd-edge capture {camera.name}", daemon=True)
        self._frozen = FrozenPicture(timeouts.frozen_ms * 1_000_000)
        self._cut = Cut()

    def start(self) -> None:
        """Start; the camera is open already, so that its absence was reported to the caller."""
        self._thread.start()

    def get(self, timeout_seconds: float) -> Captured | None:
        """The newest frame not yet fetched; None when none came in time or the recording has ended."""
        return self._mailbox.get(timeout_seconds)

    @property
    def ended(self) -> bool:
        """Whether no frame will come any more."""
        return self._mailbox.closed

    def stop(self) -> None:
        """Stop and close the camera, within bounded time."""
        self._stop.set()
        self._mailbox.close()
        if self._thread.ident is not None:
            self._thread.join(STOP_SECONDS)
        if self._thread.is_alive():
            log.warning("camera %s does not stop; its thread is left behind", self._camera.name)
        else:
            self._camera.close()

    def _run(self) -> None:
        try:
            if self._camera.live and self._camera.can_vanish:
                self._run_live()
            else:
                self._read_until_silent()
        except KdEdgeError as error:
            self.error = error
        except Exception as error:  # a driver's own exception must reach the consumer, not vanish with the thread
            self.error = KdEdgeError(f"camera {self._camera.name} failed ({error!r})", "frames", "kd-edge cameras")
        finally:
            self._mailbox.close()

    def _run_live(self) -> None:
        while not self._stop.is_set():
            try:
                self._read_until_silent()
                why = f"no frame for {self._timeouts.read_timeout_ms} ms"
            except KdEdgeError as error:
                why = error.found
            if self._stop.is_set() or self._camera.ended:
                return
            log.warning("camera %s: %s; reopening", self._camera.name, why)
            self._reopen()

    def _read_until_silent(self) -> None:
        """Hand over frames until the stop, the end, or a read that timed out."""
        while not self._stop.is_set() and not self._camera.ended:
            frame = self._camera.read(self._timeouts.read_timeout_ms / 1e3)
            if frame is None:
                if self._camera.can_vanish:
                    return
                continue
            self.counters.captured += 1
            if self._camera.live and self._frozen.is_frozen(frame, self._clock.now_ns()):
                self.counters.frozen += 1
                self._cut = self._cut.next(Cause(Reason.FROZEN, "frozen picture"))
            elif not self._mailbox.put(Captured(frame, self._cut)):
                self.counters.dropped += 1

    def _reopen(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        self._camera.close()
        while not self._stop.wait(pause):
            try:
                self._camera.open()
            except KdEdgeError as error:
                log.debug("camera %s: %s", self._camera.name, error.found)
                pause = min(2 * pause, self._timeouts.reconnect_max_ms / 1e3)
                continue
            self.counters.reconnects += 1
            self._cut = self._cut.next(Cause(Reason.RECONNECT, "reconnect"))
            self._frozen.forget()
            log.warning("camera %s is back", self._camera.name)
            return


class FrozenPicture:
    """Tells a camera that hangs: a real sensor's noise never gives the same picture for long. Has no clock of its own.

    Args:
        longest_ns: The same picture for longer than this is frozen.
    """

    def __init__(self, longest_ns: int) -> None:
        self._longest_ns = longest_ns
        self.forget()

    def forget(self) -> None:
        """Start anew."""
        self._grid: npt.NDArray[np.generic] | None = None
        self._stamp_ns = -1
        self._since_ns = 0

    def is_frozen(self, frame: Frame, now_ns: int) -> bool:
        """Whether picture or stamp have not changed for too long, this frame, read at ``now_ns``, included."""
        grid = frame.image[::_GRID, ::_GRID]
        same = self._grid is not None and np.array_equal(grid, self._grid)
        if not same and frame.captured_ns != self._stamp_ns:
            self._grid, self._stamp_ns, self._since_ns = grid.copy(), frame.captured_ns, now_ns
        return now_ns - self._since_ns > self._longest_ns
