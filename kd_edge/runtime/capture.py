"""The capture thread: reads a camera, reopens it when it is lost, and hands over its frames."""

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
"""A thread that hangs in a driver for longer than this is abandoned (it is a daemon)."""
EARLY_SECONDS = 0.005
"""Pause after a read that returned early without a picture: a driver may fail immediately every time."""
LONGEST_NAP_NS = 100_000_000
"""The boot-time and monotonic clocks drift apart by less than this unless the machine was suspended."""
MOST_CAUSES = 8
"""At most this many causes of one outage are logged."""
_GRID = 8  # every 8th pixel in both directions is enough to detect a frozen picture


@dataclass(slots=True)
class CaptureCounters:
    """Counters of a camera's frames.

    Attributes:
        captured: Frames read from the camera.
        dropped: Frames replaced by a newer one before they were fetched.
        frozen: Frames withheld because the picture was frozen.
        misdated: Frames withheld because their stamp violated the clock rule.
        damaged: Frames that could not be decoded.
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
        """The sum over several cameras."""
        return cls(*(sum(getattr(c, field.name) for c in counters) for field in fields(cls)))


class Capture:
    """Runs one camera in a thread of its own.

    With a recording, the capture ends when it ends or fails. A live camera that gives no frame within its read
    time-out, or raises any exception, is closed and reopened with growing pauses until ``stop``. A frame that cannot be
    decoded, or whose stamp violates the clock rule, is dropped.

    Args:
        camera: What to read.
        timeouts: Its time-outs.
        clock: The stream's clock, to which its stamps are mapped.
        arrived: Notified when a frame arrives; shared by the captures of one stream.
        mailbox: Receives the frames; None: a mailbox of one slot, read by ``get`` and ``waiting``.

    Raises:
        CameraError: An earlier capture of this camera still hangs inside its driver.

    Attributes:
        counters: Counters of its frames.
        trouble: Why no frame is being handed over; None if nothing is known to be wrong.
        error: The error that ended the capture early.
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
        self._causes: set[str] = set()  # of the current outage, already logged
        self._suspended_ns, self._awake_ns = clock.suspended_ns(), -STAMP_LIMIT_NS
        self._good_ns = 0  # time of the last good frame, or of opening
        longest_seconds = timeouts.reconnect_max_ms / 1e3
        settled_seconds = longest_seconds + timeouts.read_timeout_ms / 1e3
        self._backoff = Backoff(clock, FIRST_PAUSE_SECONDS, longest_seconds, settled_seconds)
        self._is_back = False
        self._heard_ns = 0  # time of the last frame of any kind, or of opening
        self._log_throttle = LogThrottle(clock)

    def start(self) -> None:
        """Start; the camera is already open, so that failing to open it was reported to the caller."""
        self._good_ns = self._heard_ns = self._clock.now_ns()
        self._thread.start()

    def get(self, timeout_seconds: float) -> Captured | None:
        """The newest unfetched frame; None if none came in time or the recording has ended."""
        return self._mailbox.get(timeout_seconds)

    @property
    def waiting(self) -> Captured | None:
        """The frame that ``get`` would return now, without fetching it."""
        return self._mailbox.waiting

    @property
    def ended(self) -> bool:
        """Whether no more frames will come."""
        return self._mailbox.closed

    def abandon(self, error: KdEdgeError) -> None:
        """Hand over no more frames because of a fault found by the consumer; ``stop`` waits for the thread."""
        self.error = error
        self.ask_to_stop()
        self._mailbox.get(0)  # discard the waiting frame

    def ask_to_stop(self) -> None:
        """Hand over no more frames; ``stop`` waits for the thread."""
        self._stop.set()
        self._mailbox.close()
        interrupt = getattr(self._camera, "interrupt", None)
        if interrupt is not None:  # such as a wait for a server
            try:
                interrupt()
            except Exception as error:  # of a driver: its thread is then abandoned if it hangs
                self._log_traceback("cannot be interrupted", error)

    def stop(self, timeout_seconds: float | None = None) -> None:
        """Stop; the thread closes its camera. Takes bounded time even if a driver hangs.

        Args:
            timeout_seconds: How long to wait for the thread; None: ``STOP_SECONDS``.
        """
        self.ask_to_stop()
        if self._thread.ident is None:
            self._close()
            return
        self._thread.join(STOP_SECONDS if timeout_seconds is None else timeout_seconds)
        if self._thread.is_alive():
            _left_behind.add(self)
            log.warning("camera %s does not stop; its thread is abandoned", printable(self._camera.name))

    def holds(self, camera: Camera) -> bool:
        """Whether its thread still uses a camera, and will close it."""
        return self._camera is camera and self._thread.is_alive()

    def _run(self) -> None:
        try:
            if self._camera.live and self._camera.can_vanish:
                self._run_live()
            else:
                self._run_once()
        except KdEdgeError as error:
            self.error = error
        except BaseException as error:  # any driver exception must reach the consumer
            self.error = UnexpectedError(f"camera {self._camera.name} failed ({self._fault(error)})", "frames", error)
            log.error("camera %s failed here:", printable(self._camera.name), exc_info=error)
        finally:
            self._mailbox.close()
            self._close()

    def _run_once(self) -> None:
        """Capture a recording, or a source like one: a fault ends it, except a single bad picture of a live source."""
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
        """Hand over frames until the stop, the end, or a fault that requires reopening; returns that fault."""
        while not self._finished:
            try:
                frame = self._read()
            except BadPictureError as error:
                if self._silent_ms() > self._timeouts.read_timeout_ms:
                    return error
                self._stop.wait(EARLY_SECONDS)
                continue
            except ConfigError:  # a mistake in the camera's program: reopening does not help
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
        """Time since the last good frame."""
        return (self._clock.now_ns() - self._good_ns) / 1e6

    def _read(self) -> Frame | None:
        """The camera's next frame; raises if it has no picture."""
        try:
            frame = self._camera.read(self._timeouts.read_timeout_ms / 1e3)
            if frame is not None and not isinstance(frame, Frame):
                raise ConfigError(
                    f"read() of camera {self._camera.name} gave {type(frame).__name__}",
                    "a kd_edge.types.Frame, or None if no frame came in time",
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
        return _typed(frame, self.counters.captured)

    def _deliver(self, frame: Frame) -> None:
        """Check a frame's stamp and picture, and hand it over if they are good."""
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
            self._note_good_frame(now_ns)
        if not self._mailbox.put(Captured(frame, self._cut)):
            self.counters.dropped += 1

    def _moment(self, frame: Frame, now_ns: int) -> int | None:
        """When a frame was captured, by the stream's clock; None if its stamp is not usable."""
        self._check_suspend(now_ns)
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

    def _check_suspend(self, now_ns: int) -> None:
        """Restart the window after a suspend, during which the monotonic clock stood still.

        The time of falling asleep is not known: anything captured before the first frame read afterwards may be older.
        """
        slept_ns = self._clock.suspended_ns() - self._suspended_ns
        if slept_ns > LONGEST_NAP_NS:
            self._suspended_ns += slept_ns
            self._awake_ns = now_ns
            self._moments.restart()
            self._cut = self._cut.next(Cause(Reason.SUSPENDED, f"the machine slept for {duration(slept_ns)}"))

    def _is_frozen(self, frame: Frame, now_ns: int) -> bool:
        """Whether the picture is frozen; frames after that begin a new window."""
        if not self._frozen.is_frozen(frame, now_ns):
            return False
        self.counters.frozen += 1
        self.trouble = Cause(Reason.FROZEN, f"the same picture for over {self._timeouts.frozen_ms} ms")
        self._cut = self._cut.next(Cause(Reason.FROZEN, "frozen picture"))
        return True

    def _note_good_frame(self, now_ns: int) -> None:
        """Note a good frame; the first one after a reconnect is logged."""
        if self.trouble is not None and self.trouble.reason is Reason.CAMERA_LOST:
            log.warning("camera %s is back", printable(self._camera.name))
        self.trouble = None
        self._good_ns = now_ns
        if not self._is_back:
            self._is_back = True
            self._backoff.came_back()

    def _note_lost(self, fault: BaseException | str) -> None:
        """Note why the camera is lost; each cause is logged once per outage, ignoring the figures in it."""
        why = printable(fault if isinstance(fault, str) else self._fault(fault))
        if self.trouble is None or self.trouble.reason is not Reason.CAMERA_LOST:  # otherwise it never really came back
            self._causes.clear()
        self.trouble = Cause(Reason.CAMERA_LOST, f"{why}; reopening")
        cause = re.sub(r"\d+", "", why)
        if cause not in self._causes and len(self._causes) < MOST_CAUSES:
            self._causes.add(cause)
            log.warning("camera %s: %s; reopening", printable(self._camera.name), why)
            if isinstance(fault, BaseException):
                self._log_traceback("was lost", fault)

    def _log_traceback(self, what: str, error: BaseException) -> None:
        """Log a traceback: of a bug as an error, rate-limited since each reopening may hit it; others for debugging."""
        if not is_bug(error):
            log.debug("camera %s %s here:", printable(self._camera.name), what, exc_info=error)
        elif self._log_throttle.is_due(f"{what}: {type(error).__name__}"):
            log.error("camera %s %s here:", printable(self._camera.name), what, exc_info=error)

    def _reopen(self, fault: BaseException | str) -> None:
        """Close the camera and retry until it opens again, or until the stop."""
        self._note_lost(fault)
        self._close()
        while not self._stop.wait(self._backoff.next_seconds()):
            try:
                self._camera.open()
            except BaseException as error:  # whatever a driver raises
                self._note_lost(error)
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
        except BaseException as error:  # a lost device may not close; it is reopened anyway
            self._log_traceback("cannot be closed", error)


_left_behind: WeakSet[Capture] = WeakSet()
"""Captures whose threads hang; they close their cameras on return, even if opened again by then."""


def _check_free(camera: Camera) -> None:
    if any(capture.holds(camera) for capture in tuple(_left_behind)):
        raise CameraError(
            f"camera {camera.name}: an earlier stream's thread still hangs in its driver",
            "a driver that has returned",
            "enter again later, or create another camera object",
        )


def stop_together(captures: Sequence[Capture]) -> None:
    """Stop several captures in the time of one."""
    for capture in captures:
        capture.ask_to_stop()
    until = time.monotonic() + STOP_SECONDS
    for capture in captures:
        capture.stop(max(0.0, until - time.monotonic()))


def _is_picture(image: npt.NDArray[np.generic]) -> bool:
    return image.ndim in (2, 3) and image.size > 0


def _typed(frame: Frame, count: int) -> Frame:
    """A frame whose number and truth have the right types, whatever the driver gave."""
    if isinstance(frame.frame_id, int) and (frame.truth is None or isinstance(frame.truth, str)):
        return frame
    frame_id = frame.frame_id if isinstance(frame.frame_id, int) else count
    return replace(frame, frame_id=frame_id, truth=None if frame.truth is None else str(frame.truth))


def fault_of(error: BaseException, name: str) -> str:
    """A camera's exception in one line, without the camera's name."""
    if isinstance(error, KdEdgeError):
        return error.found.removeprefix(f"camera {name}: ")
    return f"{type(error).__name__}: {reason(error)}"


class FrozenPicture:
    """Detects a hanging camera: with sensor noise a picture never stays exactly the same for long.

    Args:
        longest_ns: A picture unchanged for longer than this is frozen.
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
        """Whether picture or stamp have been unchanged for too long, including this frame, read at ``now_ns``."""
        grid = frame.image[::_GRID, ::_GRID]
        same = self._grid is not None and np.array_equal(grid, self._grid)
        if not same and frame.captured_ns != self._stamp_ns:
            self._grid, self._stamp_ns, self._since_ns = grid.copy(), frame.captured_ns, now_ns
        return now_ns - self._since_ns > self._longest_ns
