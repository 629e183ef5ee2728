"""One camera while recording: its capture thread passes frames to the writer of the running clip."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from kd_edge.errors import CameraError, printable
from kd_edge.record.writer import FrameWriter
from kd_edge.runtime.mailbox import Captured, Mailbox
from kd_edge.types import Frame

RATE_FRAMES = 64
"""Number of recent frames from which the frame rate is computed."""


@dataclass(slots=True)
class Taking:
    """The frames of a camera that a clip takes.

    Attributes:
        writer: The writer of the frames.
        begin_ns: Time of the begin (inclusive).
        end_ns: Time of the end (exclusive); None until it is known.
        cut: Number of the last cut before its first frame.
        last_ns: Capture time of the last frame taken.
        is_over: Whether a frame from after its end has arrived.
        broken: Why it takes no more frames; empty if it does.
        following: Takes the frames after its end.
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
    """Receives a camera's frames and passes those of a clip to its writer; others are only checked.

    Args:
        name: Name of the camera.

    Attributes:
        first: Its first frame; all others must have its size and type. None before the first.
        frames: Number of frames taken for clips.
        fault: Set if the camera changed its frame size or type.
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
        """Receive a frame; False if it was lost because the writer had no room."""
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
        """Pass frames to a writer from now on, or from the end of another clip, without losing any between them."""
        with self._lock:
            taking = Taking(writer, begin_ns, end_ns)
            if after is None or self._taking is not after:
                self._taking = taking
            else:
                after.end_ns, after.following = begin_ns, taking
            return taking

    def leave(self, taking: Taking) -> None:
        """Stop passing frames to its writer; a following clip, or one begun since, receives the next ones."""
        with self._lock:
            if self._taking is taking:
                self._taking = taking.following

    @property
    def last_ns(self) -> int | None:
        """Capture time of its newest frame; None before the first."""
        with self._lock:
            return self._recent_ns[-1] if self._recent_ns else None

    @property
    def fps(self) -> float:
        """Recent frames per second; 0 with fewer than two frames."""
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
    """Return size, type and channels as text."""
    height, width = frame.image.shape[:2]
    return f"{width}x{height} {frame.image.dtype}{' colour' if frame.image.ndim == 3 else ''}"


def _are_alike(one: Frame, other: Frame) -> bool:
    return one.image.shape == other.image.shape and one.image.dtype == other.image.dtype


def _wants(taking: Taking, captured: Captured) -> bool:
    """Whether a clip takes this frame; a frame after a cut does not belong to a clip that began before it."""
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
