"""Derive begin and end events of actions from the labels of each camera."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from kd_edge.types import Prediction, Reason

ANOTHER_LABEL = "label"
"""Reason of an action's end if another label followed; every other end has the reason code of its prediction."""


class EventKind(enum.Enum):
    """Kind of an event."""

    BEGAN = "began"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Event:
    """The begin or end of an action.

    Attributes:
        kind: Begin or end.
        source: Name of the camera.
        label: The action.
        confidence: Confidence of its first label; at its end, the highest one during the action.
        began_ns: Stamp of the frame that completed its first window.
        lasted_ns: Time from then to the frame that ended it, or to the last one before it expired; 0 at its beginning.
        reason: Why it ended: ``label`` for another label, or a code of docs/faults.md; empty at its beginning.
    """

    kind: EventKind
    source: str
    label: str
    confidence: float
    began_ns: int
    lasted_ns: int = 0
    reason: str = ""


@dataclass(slots=True)
class _Running:
    """An action in progress."""

    label: str
    began: Prediction
    began_ns: int
    highest: float

    def ended(self, prediction: Prediction, reason: str) -> Event:
        lasted_ns = max(0, prediction.captured_ns - self.began.captured_ns)
        return Event(EventKind.ENDED, prediction.source, self.label, self.highest, self.began_ns, lasted_ns, reason)


class Events:
    """Tracks the labels of several cameras.

    An action begins with a label of sufficient confidence and continues while the label stays, at any confidence. It
    ends with another label, or with a prediction without one.

    Args:
        min_confidence: Confidence at which an action begins; may be changed at any time.
    """

    def __init__(self, min_confidence: float = 0.0) -> None:
        self.min_confidence = min_confidence
        self._running: dict[str, _Running] = {}

    def see(self, prediction: Prediction, stamp_ns: int) -> list[Event]:
        """Return the events of a camera's newest prediction: at most one end, then at most one beginning.

        Args:
            prediction: A prediction in any state.
            stamp_ns: Stamp of its frame, by the clock of the events.
        """
        running, events = self._running.get(prediction.source), []
        if running is not None and prediction.label == running.label:
            running.highest = max(running.highest, prediction.confidence)
            return []
        if running is not None:
            reason = ANOTHER_LABEL if prediction.label is not None else _code(prediction.reason)
            events.append(running.ended(prediction, reason))
            del self._running[prediction.source]
        if prediction.label is not None and prediction.confidence >= self.min_confidence:
            self._running[prediction.source] = _Running(prediction.label, prediction, stamp_ns, prediction.confidence)
            events.append(Event(EventKind.BEGAN, prediction.source, prediction.label, prediction.confidence, stamp_ns))
        return events


def _code(reason: Reason) -> str:
    return reason.value
