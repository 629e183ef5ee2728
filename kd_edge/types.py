"""Value types shared by all packages. Times are monotonic nanoseconds unless a field's documentation differs."""

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
"""Upper limit for any camera's setting of how far stamps may lie ahead of now."""
MAX_AHEAD_NS = 50_000_000
"""How far a stamp may lie ahead of now by default: two clocks of one machine are read one after the other."""


class LabelState(str, enum.Enum):
    """Whether and how far a robot may rely on a label."""

    WARMING = "warming"
    """The stored frames do not span the window yet (start, gap, size change, reconnect): no label to act on."""
    OK = "ok"
    """Label and confidence are valid until ``valid_until_ns``."""
    UNKNOWN = "unknown"
    """The window is valid, but the confidence is below the fitted threshold or the pictures show nothing known."""
    STALE = "stale"
    """No fresh frame arrived in time; emitted by the stream's watchdog."""
    DEGRADED = "degraded"
    """Valid, but produced by a fallback engine, at a slower rate, from doubtful pictures, or after a failed self-test
    that the user accepted."""

    def __str__(self) -> str:
        return self.value


class Reason(str, enum.Enum):
    """Code for why a label is not ``ok``; ``Prediction.detail`` has the text for people. See docs/faults.md."""

    NONE = ""
    """Nothing is wrong."""
    START = "start"
    """The window is filling for the first time."""
    RESET = "reset"
    """The program emptied the window."""
    RECONNECT = "reconnect"
    """The camera was reopened."""
    GAP = "gap"
    """No frame arrived for longer than the window tolerates."""
    SIZE_CHANGE = "size_change"
    """The frame size has changed."""
    SUSPENDED = "suspended"
    """The machine slept."""
    CLOCK_AHEAD = "clock_ahead"
    """A stamp lies ahead of now: the camera's clock is not the declared one."""
    CLOCK_BEHIND = "clock_behind"
    """A stamp lies far behind now: the camera's clock is not the declared one."""
    CLOCK_JUMP = "clock_jump"
    """The camera's clock stepped or wrapped."""
    CLOCK_INVALID = "clock_invalid"
    """A stamp is not a valid time."""
    NO_FRAME = "no_frame"
    """No fresh frame arrived in time."""
    CAMERA_LOST = "camera_lost"
    """The camera was lost and is being reopened."""
    BAD_PICTURE = "bad_picture"
    """Pictures cannot be decoded."""
    FROZEN = "frozen"
    """The camera repeats one picture."""
    LATE = "late"
    """The label had expired before it was emitted: the frame was old, or the machine stalled."""
    OVERLOAD = "overload"
    """The engine is too slow for the camera."""
    SLOW_PROGRAM = "slow_program"
    """The program takes too long between two labels."""
    SLOW_RATE = "slow_rate"
    """The frame rate is too low for the model's window."""
    SPARSE = "sparse"
    """Some frames of this window lie too far apart."""
    DARK = "dark"
    """The picture is too dark, or the lens is covered."""
    SATURATED = "saturated"
    """Too much of the picture is at the sensor's limit."""
    FLAT = "flat"
    """The picture has no contrast."""
    STATIC = "static"
    """The picture does not change, not even by noise."""
    BLURRED = "blurred"
    """The picture has no fine detail."""
    NOISE = "noise"
    """The picture is mostly noise."""
    UNFAMILIAR = "unfamiliar"
    """The window's features are far from everything the model was trained on."""
    LOW_CONFIDENCE = "low_confidence"
    """No class reaches the fitted confidence threshold."""
    ENGINE_FAILED = "engine_failed"
    """The engine could not run the model on this frame."""
    NOT_FINITE = "not_finite"
    """The network's output is not finite."""
    FALLBACK = "fallback"
    """The model runs on a different engine or provider than requested."""
    SELF_TEST = "self_test"
    """The self-test failed and the user accepted this."""

    def __str__(self) -> str:
        return self.value


class Cause(NamedTuple):
    """A reason with an explanation.

    Attributes:
        reason: Code for programs.
        detail: Text for people, with figures.
    """

    reason: Reason
    detail: str


NO_CAUSE = Cause(Reason.NONE, "")
"""Nothing is wrong."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One camera frame; compared by identity, because comparing images is expensive.

    Attributes:
        image: (H, W) one channel or (H, W, 3) in R, G, B order; uint8 or uint16.
        captured_ns: Time of capture on the host's monotonic clock.
        frame_id: The camera's frame counter, 0-based, strictly increasing.
        source: Name of the camera.
        truth: The action actually performed, if the camera knows it (synthetic figure, labelled recording).
        cut: Why the stream was interrupted before this frame, if the camera knows it; the window is then restarted.
    """

    image: Image
    captured_ns: int
    frame_id: int
    source: str
    truth: str | None = None
    cut: Cause | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """One modality of one recorded sample; compared by identity.

    Attributes:
        frames: Images (T, H, W) or (T, H, W, 3), uint8 or uint16; or a signal (T, ...), float32.
        stamps_ns: (T,) int64, strictly increasing, 0 at the start of the sample, which all its modalities share.
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
    """The label of one source at one moment.

    Equality compares all fields except ``probabilities``, which ``index`` and ``confidence`` summarise.

    Attributes:
        source: Name of the camera.
        label: Class name if a robot may act on it (``ok`` or ``degraded``); otherwise None.
        index: Position of the most probable class in the artifact's labels, -1 while warming or stale.
        confidence: Calibrated probability of that class, in [0, 1]; 0.0 while warming or stale.
        probabilities: (K,) float32, sums to 1; zeros while warming or stale.
        state: Whether the label may be acted on.
        frame_id: The frame that completed the window.
        captured_ns: Time of capture of that frame.
        emitted_ns: Time the prediction was made; None from a bare ``push`` without ``now_ns``.
        valid_until_ns: A robot must not act on the label after this time.
        reason: Why the state is not ``ok``, as a code; ``Reason.NONE``, which is falsy, otherwise.
        detail: The reason as text, with figures; empty if there is no reason.
        anomaly: Distance of the window from the training data, as of the last check (about ten per second); above 1 is
            too far. None while warming or stale, and for models without a reference.
        truth: The action actually performed, if the camera knows it.
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
        """Whether the label must not be acted on at ``now_ns``, because it has expired or the clock does not match.

        Args:
            now_ns: The current time, ``time.monotonic_ns()``; a time well before the capture comes from another clock
                or has another unit.
        """
        # Half of captured_ns detects another unit, which differs by a factor of 1000, even just after a boot.
        captured_ns = self.captured_ns
        earliest_ns = max(captured_ns - LARGEST_AHEAD_NS, min(captured_ns, captured_ns // 2))
        is_now = earliest_ns <= now_ns <= self.valid_until_ns  # False for NaN
        return self.state is LabelState.STALE or not is_now

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, with probabilities rounded to 6 digits.

        Values that JSON cannot represent are replaced: numbers that are not finite by None, lone surrogates (bytes of a
        file name that are not UTF-8) by question marks.
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
