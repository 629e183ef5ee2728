"""One camera while recording: its capture thread hands frames over here, and they go straight to the clip's writer."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from kd_edge.errors import CameraError, printable
from kd_edge.record.writer import FrameWriter
from kd_edge.runtime.mailbox import Captured, Mailbox
from kd_edge.types import Frame

RATE_FRAMES = 64
"""The frame rate is told of so many."""


@dataclass(slots=True)
class Taking:
    """What a clip takes of a camera.

    Attributes:
        writer: Where frames go.
        begin_ns: No frame before it.
        end_ns: No frame from it on; None until that is known.
        cut: Number of the last cut before its first frame.
        last_ns: Of the last frame that was taken.
        is_over: A frame from after its end has come.
        broken: Why it goes on no further.
        following: What takes the frames from its end on.
    """

    writer: FrameWriter
    begin_ns: int
    end_ns: int | None = None
    cut: int | None = None
    last_ns: int = -1
    is_over: bool = False
    broken: str = ""
    following: Taking | None = None


class Track(Mailbox):
    """Takes a camera's frames; those of a clip go to its writer, others are looked at and forgotten.

    Args:
        name: The camera's.

    Attributes:
        first: Its first frame, which all others must be like; None before.
        frames: How many were taken for clips.
        fault: What it delivers that no clip of this folder can hold.
    """

    def __init__(self, name: str) -> None:
        super().__init__(latest_wins=True)
        self.first: Frame | None = None
        self.frames = 0
        self.fault: CameraError | None = None
        self._name = name
        self._lock = threading.Lock()
        self._taking: Taking | None = None
        self._recent_ns: deque[int] = deque(maxlen=RATE_FRAMES)

    def put(self, captured: Captured) -> bool:
        """A frame has come; whether it was taken, or nobody wanted it."""
        frame = captured.frame
        with self._lock:
            self.first = self.first or frame
            if not _are_alike(self.first, frame):
                self.fault = self.fault or self._other(self.first, frame)
                return True
            self._recent_ns.append(frame.captured_ns)
            taking = self._taking
            if taking is not None and taking.following is not None and frame.captured_ns >= taking.following.begin_ns:
                taking.is_over = True
                taking = self._taking = taking.following
            if taking is None or not _wants(taking, captured):
                return True
            taking.last_ns = frame.captured_ns
            if not taking.writer.put(frame):
                return False
            self.frames += 1
            return True

    def take(
        self, writer: FrameWriter, begin_ns: int, end_ns: int | None = None, after: Taking | None = None
    ) -> Taking:
        """Hand frames to a writer: from now on, or where another clip ends, so that none is lost between them."""
        with self._lock:
            taking = Taking(writer, begin_ns, end_ns)
            if after is None or self._taking is not after:
                self._taking = taking
            else:
                after.end_ns, after.following = begin_ns, taking
            return taking

    def leave(self, taking: Taking) -> None:
        """Hand no more frames to its writer; a clip that follows, or began meanwhile, has those that come."""
        with self._lock:
            if self._taking is taking:
                self._taking = taking.following

    @property
    def last_ns(self) -> int | None:
        """Moment of capture of its newest frame; None before the first."""
        with self._lock:
            return self._recent_ns[-1] if self._recent_ns else None

    @property
    def fps(self) -> float:
        """Frames per second of late; 0 of fewer than two."""
        with self._lock:
            span_ns = self._recent_ns[-1] - self._recent_ns[0] if len(self._recent_ns) > 1 else 0
            return (len(self._recent_ns) - 1) * 1e9 / span_ns if span_ns > 0 else 0.0

    def _other(self, first: Frame, frame: Frame) -> CameraError:
        return CameraError(
            f"camera {printable(self._name)} now delivers {kind_of(frame)}",
            f"{kind_of(first)}, as before",
            "set its size and pixel format in the camera file",
        )


def kind_of(frame: Frame) -> str:
    """Size, type and channels for a message."""
    height, width = frame.image.shape[:2]
    return f"{width}x{height} {frame.image.dtype}{' colour' if frame.image.ndim == 3 else ''}"


def _are_alike(one: Frame, other: Frame) -> bool:
    return one.image.shape == other.image.shape and one.image.dtype == other.image.dtype


def _wants(taking: Taking, captured: Captured) -> bool:
    """Whether a clip takes this frame; one after a cut belongs to no clip that began before it."""
    stamp_ns = captured.frame.captured_ns
    if taking.broken or stamp_ns < taking.begin_ns or stamp_ns <= taking.last_ns:
        return False
    if taking.end_ns is not None and stamp_ns >= taking.end_ns:
        taking.is_over = True
        return False
    if taking.cut is not None and taking.cut != captured.cut.number:
        taking.broken = captured.cut.cause.detail
        return False
    taking.cut = captured.cut.number
    return True
