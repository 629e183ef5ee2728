"""The value types that cross between rooms. Times are monotonic nanoseconds unless a field says otherwise."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

LARGEST_AHEAD_NS = 60_000_000_000
"""No camera's stamps are let lie further ahead of now, whatever is set."""
MAX_AHEAD_NS = 50_000_000
"""How far a stamp may lie ahead of now: two clocks of one machine are read one after the other."""


class LabelState(str, enum.Enum):
    """What a label is worth to a robot."""

    WARMING = "warming"
    """The ring does not span the window yet (start, gap, size change, reconnect): no label to act on."""
    OK = "ok"
    """Label and confidence are valid until ``valid_until_ns``."""
    UNKNOWN = "unknown"
    """The window is valid, and the confidence is below the fitted threshold or the pictures show nothing known."""
    STALE = "stale"
    """No fresh frame came in time; emitted by the stream's watchdog."""
    DEGRADED = "degraded"
    """Valid, but on a fallback engine, at a slower rate, of doubtful pictures or after a failed self-test the user
    accepted."""

    def __str__(self) -> str:
        return self.value


class Reason(str, enum.Enum):
    """Why a label is not ``ok``: a code for programs; ``Prediction.detail`` says it to people. See docs/faults.md."""

    NONE = ""
    """Nothing is wrong."""
    START = "start"
    """The window is filling for the first time."""
    RESET = "reset"
    """The program emptied the window."""
    RECONNECT = "reconnect"
    """The camera was reopened."""
    GAP = "gap"
    """No frame came for longer than a window may miss."""
    SIZE_CHANGE = "size_change"
    """Frames have another size than before."""
    SUSPENDED = "suspended"
    """The machine slept."""
    CLOCK_AHEAD = "clock_ahead"
    """A stamp lies ahead of now: the camera's clock is not the one that was declared."""
    CLOCK_BEHIND = "clock_behind"
    """A stamp lies far behind now: as above."""
    CLOCK_JUMP = "clock_jump"
    """The camera's clock stepped or wrapped."""
    CLOCK_INVALID = "clock_invalid"
    """A stamp is no moment in time."""
    NO_FRAME = "no_frame"
    """No fresh frame came in time."""
    CAMERA_LOST = "camera_lost"
    """The camera is gone and is being reopened."""
    BAD_PICTURE = "bad_picture"
    """Pictures cannot be decoded."""
    FROZEN = "frozen"
    """The camera repeats one picture."""
    LATE = "late"
    """The label was made after it had run out: an old frame, or a machine that stood still."""
    OVERLOAD = "overload"
    """The engine is too slow for the camera."""
    SLOW_PROGRAM = "slow_program"
    """The program takes too long between two labels."""
    SLOW_RATE = "slow_rate"
    """Frames come too seldom for the model's window."""
    SPARSE = "sparse"
    """Some frames of this window lie too far apart."""
    DARK = "dark"
    """The picture is too dark, or the lens is covered."""
    SATURATED = "saturated"
    """Too much of the picture is at the sensor's limit."""
    FLAT = "flat"
    """The picture has no contrast."""
    STATIC = "static"
    """The picture has not even noise."""
    BLURRED = "blurred"
    """The picture has no fine structure."""
    NOISE = "noise"
    """The picture is mostly noise."""
    UNFAMILIAR = "unfamiliar"
    """What the network sees is far from everything it was trained on."""
    LOW_CONFIDENCE = "low_confidence"
    """No class is probable enough."""
    ENGINE_FAILED = "engine_failed"
    """The engine could not run the model on this frame."""
    NOT_FINITE = "not_finite"
    """The network gave no numbers."""
    FALLBACK = "fallback"
    """The model runs on another engine or provider than was asked for."""
    SELF_TEST = "self_test"
    """The self-test failed and the user accepted that."""

    def __str__(self) -> str:
        return self.value


class Cause(NamedTuple):
    """A reason with its words.

    Attributes:
        reason: For programs.
        detail: For people, with figures.
    """

    reason: Reason
    detail: str


NO_CAUSE = Cause(Reason.NONE, "")
"""There is nothing to say."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One camera frame; equal only to itself, as comparing pictures would cost too much.

    Attributes:
        image: (H, W) one channel or (H, W, 3) in R, G, B order; uint8 or uint16.
        captured_ns: Moment of capture on the host's monotonic clock.
        frame_id: Camera's frame counter, 0-based, strictly increasing.
        source: Name of the camera.
        truth: The action really performed, where the camera knows it (synthetic figure, labelled recording).
        cut: What happened between the frame before and this one, where the camera knows it: the window starts anew.
    """

    image: Image
    captured_ns: int
    frame_id: int
    source: str
    truth: str | None = None
    cut: Cause | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """One modality of one recorded sample; equal only to itself.

    Attributes:
        frames: Images (T, H, W) or (T, H, W, 3), uint8 or uint16; or a signal (T, ...), float32.
        stamps_ns: (T,) int64, strictly increasing, 0 at the start of the sample: modalities of one sample share it.
    """

    frames: npt.NDArray[Any]
    stamps_ns: Int64

    def __len__(self) -> int:
        return len(self.stamps_ns)

    @property
    def seconds(self) -> float:
        """Duration from the first to the last frame, in seconds."""
        return float(self.stamps_ns[-1] - self.stamps_ns[0]) / 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The label of one source at one moment; built by keyword, and without a label unless one is given.

    Two are equal when all else than their probabilities is, of which ``index`` and ``confidence`` tell the most.

    Attributes:
        source: Name of the camera.
        label: Class name, only where a robot may act on it (``ok`` or ``degraded``); otherwise None.
        index: Position of the most probable class in the artifact's labels, -1 while warming or stale.
        confidence: Calibrated probability of that class, in [0, 1]; 0.0 while warming or stale.
        probabilities: (K,) float32, sums to 1; zeros while warming or stale.
        state: What the label is worth.
        frame_id: The frame that completed the window.
        captured_ns: Moment of capture of that frame.
        emitted_ns: Moment the prediction was made; None from a bare ``push`` without ``now_ns``.
        valid_until_ns: A robot must not act on the label after this moment.
        reason: Why the state is not ``ok``, as a code; ``Reason.NONE``, which is false, otherwise.
        detail: The same in words, with figures; empty when there is no reason.
        anomaly: How far the window is from all that the model was trained on, above 1 too far, as of the last look at
            it, some ten a second; None while warming or stale, and of a model that does not know.
        truth: The action really performed, where the camera knows it.
    """

    source: str
    label: str | None = None
    index: int = -1
    confidence: float = 0.0
    probabilities: Float32 = field(compare=False)
    state: LabelState
    frame_id: int
    captured_ns: int
    emitted_ns: int | None
    valid_until_ns: int
    reason: Reason = Reason.NONE
    detail: str = ""
    anomaly: float | None = None
    truth: str | None = None

    def is_stale(self, now_ns: int) -> bool:
        """Whether the label must not be acted on at ``now_ns``: not any more, or not by that clock.

        Args:
            now_ns: This moment, ``time.monotonic_ns()``; one well before the capture is of another clock or unit.
        """
        captured_ns = self.captured_ns  # half of it: another unit is a thousand times another, also just after a boot
        earliest_ns = max(captured_ns - LARGEST_AHEAD_NS, min(captured_ns, captured_ns // 2))
        is_now = earliest_ns <= now_ns <= self.valid_until_ns  # never so for what is no number
        return self.state is LabelState.STALE or not is_now

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, probabilities rounded to 6 digits.

        What JSON has no word for is replaced: a number that is not finite by None, half a surrogate pair (a byte of a
        file name that is no UTF-8) by a question mark.
        """
        return {
            "source": _well_formed(self.source),
            "label": _well_formed(self.label),
            "index": int(self.index),
            "confidence": _finite(self.confidence),
            "state": self.state.value,
            "reason": self.reason.value,
            "detail": _well_formed(self.detail),
            "anomaly": None if self.anomaly is None else _finite(self.anomaly),
            "frame_id": int(self.frame_id),
            "captured_ns": int(self.captured_ns),
            "emitted_ns": None if self.emitted_ns is None else int(self.emitted_ns),
            "valid_until_ns": int(self.valid_until_ns),
            "truth": _well_formed(self.truth),
            "probabilities": [_finite(p) for p in self.probabilities],
        }


def _finite(value: float) -> float | None:
    return round(float(value), 6) if math.isfinite(value) else None


def _well_formed(text: str | None) -> str | None:
    return None if text is None else text.encode("utf-8", "replace").decode("utf-8")
