"""What a step's numbers become: a label and how far it may be trusted, or the cause why there is none."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kd_edge.artifact import Manifest
from kd_edge.engines import Binding
from kd_edge.health import Familiarity
from kd_edge.metrics import softmax_row
from kd_edge.runtime.rate import NeededRate
from kd_edge.runtime.source import SourceState
from kd_edge.types import NO_CAUSE, Cause, Float32, LabelState, Prediction, Reason


class Pushed(NamedTuple):
    """A frame in one batched step."""

    source: str
    state: SourceState
    captured_ns: int
    frame_id: int
    truth: str | None


class Labeller:
    """Creates the predictions of one model.

    Attributes:
        valid_ns: How long a label may be acted on after its frame's capture.
        needed_rate: Frame rate that the model's window needs.
    """

    def __init__(self, manifest: Manifest, valid_ns: int) -> None:
        self.valid_ns = valid_ns
        self.needed_rate = NeededRate.of(manifest)
        self._manifest = manifest
        self._known_error_ns = round(manifest.segment_error_ms * 1e6)
        self._familiarity = None if manifest.familiar is None else Familiarity(manifest.familiar)
        self._zeros: Float32 = np.zeros(len(manifest.labels), dtype=np.float32)
        self._zeros.flags.writeable = False

    def label(
        self, p: Pushed, binding: Binding, row: int, error_ns: int, degraded: Cause, now_ns: int | None
    ) -> Prediction:
        """The prediction of a full window.

        Args:
            p: Its newest frame.
            binding: The engine's outputs.
            row: Row of this source in them.
            error_ns: Largest distance of a segment's frame from its nominal time.
            degraded: Why labels are at best ``degraded``; without a reason if the engine is fine.
            now_ns: Becomes ``emitted_ns``.
        """
        logits = p.state.answer(binding, row)
        probabilities: Float32 = np.array(softmax_row(logits, self._manifest.temperature), dtype=np.float32)
        rounded = probabilities.tolist()
        confidence = max(rounded)
        index = rounded.index(confidence)
        anomaly = None if self._familiarity is None else p.state.anomaly(self._familiarity, binding, row)
        state, cause = self._judge(p, confidence, anomaly, error_ns, degraded)
        return Prediction(
            source=p.source,
            label=self._manifest.labels[index] if state in (LabelState.OK, LabelState.DEGRADED) else None,
            index=index,
            confidence=confidence,
            probabilities=probabilities,
            state=state,
            frame_id=p.frame_id,
            captured_ns=p.captured_ns,
            emitted_ns=now_ns,
            valid_until_ns=p.captured_ns + self.valid_ns,
            reason=cause.reason,
            detail=cause.detail,
            anomaly=anomaly,
            truth=p.truth,
        )

    def warming(self, p: Pushed, what: str, now_ns: int | None) -> Prediction:
        """The prediction while ``what`` is not full: after a start, or because the frame rate is too low."""
        cause = self._too_slow(p, self.needed_rate.least_fps)
        if cause is None:
            cause = p.state.cause._replace(detail=f"{p.state.cause.detail}: {what} not full")
        return self.unlabelled(p, LabelState.WARMING, cause, now_ns)

    def unlabelled(self, p: Pushed, state: LabelState, cause: Cause, now_ns: int | None) -> Prediction:
        """The prediction of a frame without a label."""
        return Prediction(
            source=p.source,
            probabilities=self._zeros,
            state=state,
            frame_id=p.frame_id,
            captured_ns=p.captured_ns,
            emitted_ns=now_ns,
            valid_until_ns=p.captured_ns + self.valid_ns,
            reason=cause.reason,
            detail=cause.detail,
            truth=p.truth,
        )

    def stale(self, source: str, frame_id: int, captured_ns: int, now_ns: int, cause: Cause) -> Prediction:
        """A ``stale`` prediction."""
        return Prediction(
            source=source,
            probabilities=self._zeros,
            state=LabelState.STALE,
            frame_id=frame_id,
            captured_ns=captured_ns,
            emitted_ns=now_ns,
            valid_until_ns=now_ns,
            reason=cause.reason,
            detail=cause.detail,
        )

    def _too_slow(self, p: Pushed, needed_fps: float) -> Cause | None:
        """``slow_rate`` if the source's frame rate is below ``needed_fps``."""
        fps = p.state.fps
        if fps is None or fps >= needed_fps:
            return None
        return Cause(Reason.SLOW_RATE, f"{fps:.1f} frames/s: the window needs {self.needed_rate}")

    def _judge(
        self, p: Pushed, confidence: float, anomaly: float | None, error_ns: int, degraded: Cause
    ) -> tuple[LabelState, Cause]:
        picture = p.state.finding
        if picture.state is LabelState.UNKNOWN:
            return picture
        if anomaly is not None and anomaly > 1:
            strange = Cause(Reason.UNFAMILIAR, f"{anomaly:.2f} times as far from all classes as familiar windows are")
            return LabelState.UNKNOWN, picture.cause if picture.cause.reason else strange
        if confidence < self._manifest.unknown_threshold:
            low = f"confidence {confidence:.3f} below {self._manifest.unknown_threshold:.3f}"
            return LabelState.UNKNOWN, Cause(Reason.LOW_CONFIDENCE, low)
        if degraded.reason:
            return LabelState.DEGRADED, degraded
        if picture.state is LabelState.DEGRADED:
            return picture
        if error_ns * 4 > self._manifest.spacing_ns:  # half a spacing apart, frames are off by up to a quarter
            slow = self._too_slow(p, self.needed_rate.full_fps)
            if slow is not None or error_ns > self._known_error_ns:
                off = f"a segment is {error_ns / 1e6:.0f} ms off its moment"
                why = "frames far apart, or the window only just full"
                return LabelState.DEGRADED, slow or Cause(Reason.SPARSE, f"{off}: {why}")
        if p.state.stack is not None and p.state.stack.late_ns:
            sparse = Cause(Reason.SPARSE, "frames too far apart for the motion stack")
            return LabelState.DEGRADED, self._too_slow(p, self.needed_rate.full_fps) or sparse
        return LabelState.OK, NO_CAUSE
