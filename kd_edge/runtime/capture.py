"""The capture thread: reads the camera, reopens it when it is gone, hands frames over."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from weakref import WeakSet

import numpy as np
import numpy.typing as npt

from kd_edge.errors import (
    BadPictureError,
    CameraError,
    ConfigError,
    KdEdgeError,
    UnexpectedError,
    is_bug,
    printable,
    reason,
)
from kd_edge.runtime.backoff import Backoff
from kd_edge.runtime.cameras.base import Camera, clock_of
from kd_edge.runtime.cameras.config import TimeOuts
from kd_edge.runtime.clock import MONOTONIC, STAMP_LIMIT_NS, Clock, StampMapper, duration
from kd_edge.runtime.log_throttle import LogThrottle
from kd_edge.runtime.mailbox import Captured, Cut, Mailbox
from kd_edge.types import Cause, Frame, Reason

log = logging.getLogger("kd_edge.runtime")

FIRST_PAUSE_SECONDS = 0.1
STOP_SECONDS = 2.0
"""A thread that hangs inside a driver for longer than this is left behind (it is a daemon)."""
EARLY_SECONDS = 0.005
"""The pause after a read that gave nothing before its time-out, or no picture: a driver may fail at once, for ever."""
LONGEST_NAP_NS = 100_000_000
"""Two readings of two clocks differ by less than this unless the machine slept."""
MOST_CAUSES = 8
"""So many causes of one absence are told in the log."""
_GRID = 8  # every 8th pixel in both directions tells a frozen picture


@dataclass(slots=True)
class CaptureCounters:
    """What happened to the frames so far.

    Attributes:
        captured: Read from the camera.
        dropped: Replaced by a newer one before they were fetched.
        frozen: Not handed over because the picture was frozen.
        misdated: Not handed over because the stamp broke the clock's rule.
        damaged: Could not be decoded.
        reconnects: How often the camera was reopened.
    """

    captured: int = 0
    dropped: int = 0
    frozen: int = 0
    misdated: int = 0
    damaged: int = 0
    reconnects: int = 0

    @classmethod
    def together(cls, counters: Sequence[CaptureCounters]) -> CaptureCounters:
        """The counts of several cameras."""
        return cls(*(sum(getattr(c, field.name) for c in counters) for field in fields(cls)))


class Capture:
    """Runs one camera in a thread of its own.

    A recording ends the capture when it ends or fails. A live camera that is silent for its read time-out, or raises
    whatever it may, is closed and reopened with growing pauses until ``stop``. A picture that cannot be decoded, or
    whose stamp breaks the clock's rule, is lost; the camera goes on.

    Args:
        camera: What to read.
        timeouts: How long to wait for it.
        clock: Turns its stamps into moments, and tells how long a picture has been frozen.
        arrived: Notified when a frame is there; the captures of one stream share it.
        mailbox: Takes the frames; None: one slot, of which ``get`` and ``waiting`` tell.

    Raises:
        CameraError: An earlier capture of this camera still hangs inside its driver.

    Attributes:
        counters: What happened to its frames.
        trouble: Why no frame is handed over just now; None when nothing is known to be wrong.
        error: What ended the capture early.
    """

    def __init__(
        self,
        camera: Camera,
        timeouts: TimeOuts,
        clock: Clock = MONOTONIC,
        arrived: threading.Condition | None = None,
        mailbox: Mailbox | None = None,
    ) -> None:
        self.counters = CaptureCounters()
        self.trouble: Cause | None = None
        self.error: KdEdgeError | None = None
        _check_free(camera)
        self._camera, self._timeouts, self._clock = camera, timeouts, clock
        self._moments = StampMapper(clock_of(camera), timeouts.max_ahead_ms * 1_000_000, clock)
        self._mailbox = mailbox or Mailbox(latest_wins=camera.live, changed=arrived)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"kd-edge capture {camera.name}", daemon=True)
        self._frozen = FrozenPicture(timeouts.frozen_ms * 1_000_000)
        self._cut = Cut()
        self._causes: set[str] = set()  # of its absence, that were told
        self._suspended_ns, self._awake_ns = clock.suspended_ns(), -STAMP_LIMIT_NS
        self._good_ns = 0  # when the last good frame came, or the camera was opened
        longest_seconds = timeouts.reconnect_max_ms / 1e3
        settled_seconds = longest_seconds + timeouts.read_timeout_ms / 1e3
        self._backoff = Backoff(clock, FIRST_PAUSE_SECONDS, longest_seconds, settled_seconds)
        self._is_back = False
        self._heard_ns = 0  # when any frame came last, or the camera was opened
        self._log_throttle = LogThrottle(clock)

    def start(self) -> None:
        """Start; the camera is open already, so that its absence was reported to the caller."""
        self._good_ns = self._heard_ns = self._clock.now_ns()
        self._thread.start()

    def get(self, timeout_seconds: float) -> Captured | None:
        """The newest frame not yet fetched; None when none came in time or the recording has ended."""
        return self._mailbox.get(timeout_seconds)

    @property
    def waiting(self) -> Captured | None:
        """The frame that would be fetched now; it stays."""
        return self._mailbox.waiting

    @property
    def ended(self) -> bool:
        """Whether no frame will come any more."""
        return self._mailbox.closed

    def abandon(self, error: KdEdgeError) -> None:
        """Hand over no more frames, because of a fault that only the consumer sees; ``stop`` waits for the thread."""
        self.error = error
        self.ask_to_stop()
        self._mailbox.get(0)  # nobody will fetch it

    def ask_to_stop(self) -> None:
        """Hand over no more frames; ``stop`` waits for the thread."""
        self._stop.set()
        self._mailbox.close()
        interrupt = getattr(self._camera, "interrupt", None)
        if interrupt is not None:  # what waits for a server should not
            try:
                interrupt()
            except Exception as error:  # a driver's: its thread is left behind as without it
                self._log_traceback("cannot be interrupted", error)

    def stop(self, timeout_seconds: float | None = None) -> None:
        """Stop; the thread closes its camera. Takes bounded time, however long a driver hangs.

        Args:
            timeout_seconds: How long to wait for it; None: ``STOP_SECONDS``.
        """
        self.ask_to_stop()
        if self._thread.ident is None:
            self._close()
            return
        self._thread.join(STOP_SECONDS if timeout_seconds is None else timeout_seconds)
        if self._thread.is_alive():
            _left_behind.add(self)
            log.warning("camera %s does not stop; its thread is left behind", printable(self._camera.name))

    def holds(self, camera: Camera) -> bool:
        """Whether its thread is at work on a camera, and will close it."""
        return self._camera is camera and self._thread.is_alive()

    def _run(self) -> None:
        try:
            if self._camera.live and self._camera.can_vanish:
                self._run_live()
            else:
                self._run_once()
        except KdEdgeError as error:
            self.error = error
        except BaseException as error:  # a driver's own exception must reach the consumer, not vanish with the thread
            self.error = UnexpectedError(f"camera {self._camera.name} failed ({self._fault(error)})", "frames", error)
            log.error("camera %s failed here:", printable(self._camera.name), exc_info=error)
        finally:
            self._mailbox.close()
            self._close()

    def _run_once(self) -> None:
        """A recording, or what behaves like one: its faults end it, but for a single picture of a live one."""
        while not self._finished:
            try:
                frame = self._read()
            except BadPictureError:
                if not self._camera.live:
                    raise
                frame = None
            if frame is None:
                self._stop.wait(EARLY_SECONDS)
            else:
                self._deliver(frame)

    @property
    def _finished(self) -> bool:
        return self._stop.is_set() or self._camera.ended

    def _run_live(self) -> None:
        while not self._finished:
            fault = self._read_until_fault()
            if not self._finished:
                self._reopen(fault)

    def _read_until_fault(self) -> BaseException | str:
        """Hand over frames until the stop, the end, or a fault that only reopening can mend; what it was."""
        while not self._finished:
            try:
                frame = self._read()
            except BadPictureError as error:
                if self._silent_ms() > self._timeouts.read_timeout_ms:
                    return error
                self._stop.wait(EARLY_SECONDS)
                continue
            except ConfigError:  # a mistake in its program: no reopening mends that
                raise
            except BaseException as error:  # whatever a driver raises
                return error
            if frame is not None:
                self._deliver(frame)
            elif self._clock.now_ns() - self._heard_ns >= self._timeouts.read_timeout_ms * 1_000_000:
                return f"no frame for {self._timeouts.read_timeout_ms} ms"
            else:
                self._stop.wait(EARLY_SECONDS)
        return ""

    def _silent_ms(self) -> float:
        """How long there has been no good frame."""
        return (self._clock.now_ns() - self._good_ns) / 1e6

    def _read(self) -> Frame | None:
        """The camera's next frame, which has a picture."""
        try:
            frame = self._camera.read(self._timeouts.read_timeout_ms / 1e3)
            if frame is not None and not isinstance(frame, Frame):
                raise ConfigError(
                    f"read() of camera {self._camera.name} gave {type(frame).__name__}",
                    "kd_edge.types.Frame, or None when nothing came in time",
                    "correct the camera's read()",
                )
            if frame is not None and not (isinstance(frame.image, np.ndarray) and _is_picture(frame.image)):
                raise BadPictureError(f"camera {self._camera.name} gave no picture", "pixels", "check its cable")
        except BadPictureError as error:
            self.counters.damaged += 1
            self.trouble = Cause(Reason.BAD_PICTURE, self._fault(error))
            raise
        if frame is None:
            return None
        self._heard_ns = self._clock.now_ns()
        return _in_order(frame, self.counters.captured)

    def _deliver(self, frame: Frame) -> None:
        """Judge a frame's stamp and picture, and hand it over if they are good."""
        self.counters.captured += 1
        if frame.cut is not None:
            self._cut = self._cut.next(frame.cut)
        if self._camera.live:
            now_ns = self._clock.now_ns()
            moment_ns = self._moment(frame, now_ns)
            if moment_ns is None:
                return
            if moment_ns != frame.captured_ns:
                frame = replace(frame, captured_ns=moment_ns)
            if self._is_frozen(frame, now_ns):
                return
            self._told_back(now_ns)
        if not self._mailbox.put(Captured(frame, self._cut)):
            self.counters.dropped += 1

    def _moment(self, frame: Frame, now_ns: int) -> int | None:
        """When a frame was captured by our clock; None where its stamp does not tell."""
        self._see_suspend(now_ns)
        moment = self._moments.moment(frame.captured_ns, now_ns)
        if not isinstance(moment, Cause) and moment <= self._awake_ns:
            moment = Cause(Reason.SUSPENDED, "a frame from before the machine slept")
        if not isinstance(moment, Cause):
            return moment
        self.counters.misdated += 1
        if self._log_throttle.is_due(moment.reason):
            log.warning("camera %s: %s", printable(self._camera.name), printable(moment.detail))
        self.trouble = moment
        if moment.reason is Reason.CLOCK_JUMP:
            self._cut = self._cut.next(moment)
        return None

    def _see_suspend(self, now_ns: int) -> None:
        """Frames from before and after the machine slept are no window, though our clock stood still meanwhile.

        When it fell asleep is not known: what was captured before the first frame after it came may be from before.
        """
        slept_ns = self._clock.suspended_ns() - self._suspended_ns
        if slept_ns > LONGEST_NAP_NS:
            self._suspended_ns += slept_ns
            self._awake_ns = now_ns
            self._moments.restart()
            self._cut = self._cut.next(Cause(Reason.SUSPENDED, f"the machine slept for {duration(slept_ns)}"))

    def _is_frozen(self, frame: Frame, now_ns: int) -> bool:
        """Whether the camera repeats itself; the frames after that begin another window."""
        if not self._frozen.is_frozen(frame, now_ns):
            return False
        self.counters.frozen += 1
        self.trouble = Cause(Reason.FROZEN, f"the same picture for over {self._timeouts.frozen_ms} ms")
        self._cut = self._cut.next(Cause(Reason.FROZEN, "frozen picture"))
        return True

    def _told_back(self, now_ns: int) -> None:
        """Take note of a good frame; the first one after a reconnect is news."""
        if self.trouble is not None and self.trouble.reason is Reason.CAMERA_LOST:
            log.warning("camera %s is back", printable(self._camera.name))
        self.trouble = None
        self._good_ns = now_ns
        if not self._is_back:
            self._is_back = True
            self._backoff.came_back()

    def _told_lost(self, fault: BaseException | str) -> None:
        """Take note of why the camera is gone; each cause is news once, whatever its figures, until it is back."""
        why = printable(fault if isinstance(fault, str) else self._fault(fault))
        if self.trouble is None or self.trouble.reason is not Reason.CAMERA_LOST:  # else it never really came back
            self._causes.clear()
        self.trouble = Cause(Reason.CAMERA_LOST, f"{why}; reopening")
        cause = re.sub(r"\d+", "", why)
        if cause not in self._causes and len(self._causes) < MOST_CAUSES:
            self._causes.add(cause)
            log.warning("camera %s: %s; reopening", printable(self._camera.name), why)
            if isinstance(fault, BaseException):
                self._log_traceback("was lost", fault)

    def _log_traceback(self, what: str, error: BaseException) -> None:
        """A bug's at error level, but once in a while: a camera that is reopened meets it again. Others' at debug."""
        if not is_bug(error):
            log.debug("camera %s %s here:", printable(self._camera.name), what, exc_info=error)
        elif self._log_throttle.is_due(f"{what}: {type(error).__name__}"):
            log.error("camera %s %s here:", printable(self._camera.name), what, exc_info=error)

    def _reopen(self, fault: BaseException | str) -> None:
        """Close the camera and try until it opens again, or until the stop."""
        self._told_lost(fault)
        self._close()
        while not self._stop.wait(self._backoff.next_seconds()):
            try:
                self._camera.open()
            except BaseException as error:  # whatever a driver raises
                self._told_lost(error)
                self._close()
                continue
            self.counters.reconnects += 1
            self._cut = self._cut.next(Cause(Reason.RECONNECT, "reconnect"))
            self._moments.reopened()
            self._frozen.forget()
            self._good_ns = self._heard_ns = self._clock.now_ns()
            self._is_back = False
            return

    def _fault(self, error: BaseException) -> str:
        return fault_of(error, self._camera.name)

    def _close(self) -> None:
        try:
            self._camera.close()
        except BaseException as error:  # a device that is gone cannot be closed; it is opened anew
            self._log_traceback("cannot be closed", error)


_left_behind: WeakSet[Capture] = WeakSet()
"""Their threads close their cameras when they come back, whoever may have opened them meanwhile."""


def _check_free(camera: Camera) -> None:
    if any(capture.holds(camera) for capture in tuple(_left_behind)):
        raise CameraError(
            f"camera {camera.name} still hangs in its driver since it was left",
            "a driver that has come back",
            "enter again later, or make another camera object",
        )


def stop_together(captures: Sequence[Capture]) -> None:
    """Stop several; takes the time of one."""
    for capture in captures:
        capture.ask_to_stop()
    until = time.monotonic() + STOP_SECONDS
    for capture in captures:
        capture.stop(max(0.0, until - time.monotonic()))


def _is_picture(image: npt.NDArray[np.generic]) -> bool:
    return image.ndim in (2, 3) and image.size > 0


def _in_order(frame: Frame, count: int) -> Frame:
    """A frame whose number and truth are what they are said to be, whatever a driver puts there."""
    if isinstance(frame.frame_id, int) and (frame.truth is None or isinstance(frame.truth, str)):
        return frame
    frame_id = frame.frame_id if isinstance(frame.frame_id, int) else count
    return replace(frame, frame_id=frame_id, truth=None if frame.truth is None else str(frame.truth))


def fault_of(error: BaseException, name: str) -> str:
    """What an exception of a camera says, in one line, for whoever has named the camera already."""
    if isinstance(error, KdEdgeError):
        return error.found.removeprefix(f"camera {name}: ")
    return f"{type(error).__name__}: {reason(error)}"


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
