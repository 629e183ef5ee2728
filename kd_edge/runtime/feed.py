"""The cameras of a stream: each with its capture thread, its last cut, and when its labels become stale."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from kd_edge.errors import ConfigError, KdEdgeError, printable
from kd_edge.runtime.cameras.base import Camera, timeouts_of
from kd_edge.runtime.capture import LONGEST_NAP_NS, Capture, fault_of, stop_together
from kd_edge.runtime.clock import Clock, duration, stamp_of
from kd_edge.runtime.mailbox import Captured, Cut
from kd_edge.runtime.overload import Load
from kd_edge.runtime.watchdog import Watchdog
from kd_edge.types import Cause, Frame, Reason

log = logging.getLogger("kd_edge.runtime")

TOGETHER_NS = 5_000_000
"""Frames of several recordings whose stamps are at most this far apart are labelled in one step."""


class Feed:
    """One camera of a stream and its state.

    Args:
        camera: Not open yet.
        clock: The stream's clock.
        arrived: Notified when a frame has come, or no more will come.

    Attributes:
        camera: As given.
        name: Name of the open camera, the ``source`` of its predictions.
        capture: Its capture thread.
        load: Whether the machine keeps up with it.
        skipped: Number of frames that were too old when their turn came.
        last_frame: The last frame with a prediction; None before the first one.
    """

    def __init__(self, camera: Camera, clock: Clock, arrived: threading.Condition | None = None) -> None:
        self.camera, self.name, self.load, self.skipped = camera, camera.name, Load(), 0
        self._clock, self._cut = clock, Cut()
        self._timeouts = timeouts_of(camera)
        self.capture = Capture(camera, self._timeouts, clock, arrived)
        self.last_frame: Frame | None = None
        self._too_old: Cause | None = None  # why the last frame was skipped
        self._end_is_logged = False  # that no more of its frames will come
        self._suspended_ns = clock.suspended_ns()

    @property
    def patience_seconds(self) -> float:
        """How long to wait for a frame before checking whether one can still come."""
        return self._timeouts.read_timeout_ms / 1e3

    @property
    def is_awaited(self) -> bool:
        """Whether a frame that belongs together with those of other cameras is still on its way."""
        return bool(getattr(self.camera, "on_its_way", False)) and self.capture.waiting is None

    def start(self, valid_ns: int) -> None:
        """Start capturing; the camera is open.

        Args:
            valid_ns: How long its labels are valid.
        """
        self.last_id, self.last_ns = -1, self._clock.now_ns()
        self._suspended_ns = self._clock.suspended_ns()
        self.watchdog = Watchdog(valid_ns, self.last_ns, self.name)
        self.capture.start()

    def cut_before(self, captured: Captured) -> Cause | None:
        """Why the window must restart before this frame, if it must; to be called once per frame."""
        if captured.cut == self._cut:
            return None
        self._cut = captured.cut
        return captured.cut.cause

    @property
    def slept_ns(self) -> int:
        """How long the machine was suspended since ``awoke``, which no frame's age shows; 0 if it was not."""
        slept_ns = self._clock.suspended_ns() - self._suspended_ns
        return slept_ns if slept_ns > LONGEST_NAP_NS else 0

    def awoke(self) -> None:
        """Note that frames from now on are from after the last suspend."""
        self._suspended_ns = self._clock.suspended_ns()

    def is_too_old(self, frame: Frame, now_ns: int, longest_ms: float | None) -> bool:
        """Whether a frame is too old and is skipped in favour of the next one."""
        age_ns = now_ns - frame.captured_ns
        if longest_ms is None or age_ns <= longest_ms * 1e6:
            self._too_old = None
            return False
        self.skipped += 1
        self._too_old = Cause(
            Reason.LATE,
            f"frames are {duration(age_ns)} old when their turn comes and skipped (max_age_ms {longest_ms:g})",
        )
        return True

    def pushed(self, frame: Frame) -> None:
        """Note a frame with a prediction."""
        self.last_id, self.last_ns, self.last_frame = frame.frame_id, frame.captured_ns, frame

    def due_cause(self, now_ns: int) -> Cause | None:
        """Why its labels are stale, if a ``stale`` prediction is due; it then counts as given."""
        if not self.watchdog.is_due(now_ns):
            return None
        self.watchdog.told(now_ns)
        silence = f"no fresh frame for {duration(now_ns - self.last_ns)}"
        if self.capture.ended:
            return self._over(silence)
        if trouble := self.capture.trouble or self._too_old:
            return Cause(trouble.reason, f"{silence}: {trouble.detail}")
        return Cause(Reason.NO_FRAME, silence)

    def _over(self, silence: str) -> Cause:
        """Cause for a camera that has ended while others go on; logged the first time."""
        error = self.capture.error
        why = "it has ended" if error is None else fault_of(error, self.name)
        if not self._end_is_logged:
            log.warning("camera %s gives no more frames, the others go on: %s", printable(self.name), printable(why))
        self._end_is_logged = True
        return Cause(Reason.NO_FRAME if error is None else Reason.CAMERA_LOST, f"{silence}: {why}")


def check_together(cameras: Sequence[Camera]) -> None:
    """Refuse cameras that cannot be labelled by one stream.

    Raises:
        ConfigError: None, two of one name, or live ones beside recordings.
    """
    names = [camera.name for camera in cameras]
    twice = next((name for name in names if names.count(name) > 1), None)
    if not names:
        raise ConfigError("no camera", "at least one", "name one: kd-edge cameras shows them")
    if twice is not None:
        raise ConfigError(
            f"two cameras called '{twice}'",
            "a different name for each: labels carry it",
            "name them, as in --camera left=URI --camera right=URI, or by camera files",
        )
    if len({camera.live for camera in cameras}) > 1:
        kinds = ", ".join(f"{camera.name} {'live' if camera.live else 'a recording'}" for camera in cameras)
        raise ConfigError(kinds, "all of them live, or all of them recordings", "--realtime paces a recording")


class Feeds:
    """All cameras of a stream; either all are live, or all are recordings.

    Args:
        cameras: At least one, each with a name of its own; not open yet.
        clock: Of the stream.

    Attributes:
        all: One a camera.
        live: Whether they are live: late frames are dropped, and one that fails does not end the others.
    """

    def __init__(self, cameras: Sequence[Camera], clock: Clock) -> None:
        self._arrived = threading.Condition()
        self.all = tuple(Feed(camera, clock, self._arrived) for camera in cameras)
        self.live = all(camera.live for camera in cameras)
        self._over: list[Feed] = []  # in the order in which they ended, as far as that was seen

    def stop(self) -> None:
        """Stop all of them; takes the time of one."""
        stop_together([feed.capture for feed in self.all])

    @property
    def ended(self) -> bool:
        """Whether no frame will come any more."""
        return all(feed.capture.ended for feed in self.all)

    @property
    def error(self) -> KdEdgeError | None:
        """What ends the stream early: the fault of any recording, or of the live camera that ended last."""
        if not self.live:
            return next((f.capture.error for f in self.all if f.capture.ended and f.capture.error is not None), None)
        self._see_ends()
        return self._over[-1].capture.error if len(self._over) == len(self.all) else None

    def _see_ends(self) -> None:
        self._over += [feed for feed in self.all if feed.capture.ended and feed not in self._over]

    def wait_seconds(self, now_ns: int) -> float:
        """How long to wait for a frame: until a stale prediction is due; recordings are never late."""
        if not self.live:
            return min(feed.patience_seconds for feed in self.all)
        return min(feed.watchdog.wait_seconds(now_ns) for feed in self.all)

    def get(self, timeout_seconds: float) -> list[tuple[Feed, Captured]]:
        """The frames to label next, at most one a camera; none when none came in time or none will come.

        Of live cameras whatever is there, and what belongs together with it; of recordings the earliest, with those
        that were captured together with it.
        """
        with self._arrived:
            self._arrived.wait_for(self._is_ready, timeout_seconds)
            self._see_ends()
            ready = self.all if self.live else self._earliest()
            return [(feed, captured) for feed in ready if (captured := feed.capture.get(0)) is not None]

    def _is_ready(self) -> bool:
        if self.live:
            is_there = any(feed.capture.waiting is not None for feed in self.all)
            return (is_there and not any(feed.is_awaited for feed in self.all)) or self.ended
        return all(feed.capture.waiting is not None or feed.capture.ended for feed in self.all)

    def _earliest(self) -> list[Feed]:
        """The recordings whose frames are next; none before each has shown its next frame, or where one has failed."""
        if not self._is_ready() or self.error is not None:
            return []
        waiting = [feed for feed in self.all if feed.capture.waiting is not None]
        if len(self.all) == 1:
            return waiting
        stamps = {feed: stamp_of(w.frame.captured_ns) for feed in waiting if (w := feed.capture.waiting) is not None}
        for feed, stamp in stamps.items():
            if isinstance(stamp, Cause):  # no moment to wait for: the recogniser refuses it
                return [feed]
        moments = {feed: stamp for feed, stamp in stamps.items() if not isinstance(stamp, Cause)}
        first_ns = min(moments.values(), default=0)
        return [feed for feed, moment_ns in moments.items() if moment_ns - first_ns <= TOGETHER_NS]
