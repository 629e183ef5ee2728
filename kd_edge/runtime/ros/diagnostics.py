"""Diagnostics of the node on /diagnostics: one status for the node and one for each camera."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kd_edge.runtime.statistics import Statistics
from kd_edge.types import LabelState, Prediction, Reason

PICTURE = frozenset(
    {Reason.DARK, Reason.SATURATED, Reason.FLAT, Reason.STATIC, Reason.BLURRED, Reason.NOISE, Reason.FROZEN}
    | {Reason.BAD_PICTURE}
)
"""Reasons that concern the pictures themselves."""
EXPECTED = frozenset({Reason.NONE, Reason.START, Reason.RESET, Reason.LOW_CONFIDENCE, Reason.UNFAMILIAR})
"""Reasons without a fault of camera or machine: no known action is performed, or the window is still filling."""
SILENT = frozenset({Reason.NO_FRAME, Reason.LATE, Reason.SUSPENDED})
"""Reasons for a stale label that end as soon as fresh frames arrive."""
RATE_FRAMES = 60
"""Number of frames over which the rate is measured."""


class Level(enum.IntEnum):
    """``level`` of DiagnosticStatus.msg."""

    OK = 0
    WARN = 1
    ERROR = 2
    STALE = 3


@dataclass(frozen=True, slots=True)
class Status:
    """One status, with the fields of DiagnosticStatus.msg.

    Attributes:
        level: Severity.
        name: Name of the node or camera.
        message: One line.
        hardware_id: Name of the model.
        values: Figures, by name.
    """

    level: Level
    name: str
    message: str
    hardware_id: str = ""
    values: Mapping[str, str] = field(default_factory=dict)


def level_of(prediction: Prediction) -> Level:
    """Return the severity of a prediction's state for the robot's operator."""
    if prediction.reason in EXPECTED:
        return Level.OK
    if prediction.state is LabelState.STALE:
        return Level.STALE if prediction.reason in SILENT else Level.ERROR
    return Level.WARN


def picture_of(prediction: Prediction) -> str:
    """Return the health of the pictures: ``good``, a reason code, or ``not known``."""
    if prediction.reason in PICTURE:
        return prediction.reason.value
    return "good" if prediction.index >= 0 else "not known"


class Rate:
    """Frames per second of one camera, over its last frames."""

    def __init__(self) -> None:
        self._captured_ns: deque[int] = deque(maxlen=RATE_FRAMES)

    def see(self, captured_ns: int) -> None:
        """Count a labelled frame."""
        if self._captured_ns and captured_ns < self._captured_ns[-1]:
            self._captured_ns.clear()
        if not self._captured_ns or captured_ns > self._captured_ns[-1]:
            self._captured_ns.append(captured_ns)

    def fps(self, now_ns: int) -> float:
        """Return the current rate, which falls once a camera has been silent for more than two frame periods."""
        stamps = tuple(self._captured_ns)
        if len(stamps) < 2:
            return 0.0
        intervals, span_ns = len(stamps) - 1, stamps[-1] - stamps[0]
        is_silent = now_ns - stamps[-1] > 2 * span_ns / intervals
        return intervals * 1e9 / (now_ns - stamps[0] if is_silent else span_ns)


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """State of an image topic.

    Attributes:
        name: Resolved name.
        publishers: Number of publishers.
        mismatch: Name of the QoS policy that an offer does not match; None if all match.
        silence: Why no message arrives, as far as known.
        received: Number of messages received.
        replaced: Number of messages that newer ones replaced before they were taken.
    """

    name: str
    publishers: int
    mismatch: str | None
    silence: str
    received: int
    replaced: int


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """State of one camera.

    Attributes:
        name: Source name.
        prediction: The newest prediction; None before the first.
        age_ms: Time since its frame was captured; None before the first.
        fps: Labels per second.
        topic: State of its topic; None if it is not a topic.
    """

    name: str
    prediction: Prediction | None
    age_ms: float | None
    fps: float
    topic: TopicFacts | None = None


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """State of the node.

    Attributes:
        name: Fully qualified name.
        lifecycle: ``unconfigured``, ``inactive``, ``active`` or ``finalized``.
        fault: What ended it or keeps it from starting, in one line; empty without a fault.
        model: Name of the model; empty before it is loaded.
        engine: Engine that runs the model.
        degraded: Why all its labels are degraded; empty if they are not.
        namesakes: Number of other nodes with the same name.
        is_simulated: Whether ``use_sim_time`` is set.
        standstill: Why simulated time does not advance; empty if it does.
        statistics: Statistics of the stream; None before the first stream.
        waits: Number of callers waiting for a label.
    """

    name: str
    lifecycle: str
    fault: str = ""
    model: str = ""
    engine: str = ""
    degraded: str = ""
    namesakes: int = 0
    is_simulated: bool = False
    standstill: str = ""
    statistics: Statistics | None = None
    waits: int = 0


def node_status(facts: NodeFacts) -> Status:
    """Return the status of the node itself; its most severe problem is the message."""
    level, message = _node_trouble(facts)
    values = {"lifecycle": facts.lifecycle, "model": facts.model, "engine": facts.engine, "degraded": facts.degraded}
    values |= {"other nodes of this name": str(facts.namesakes), "waiting callers": str(facts.waits)}
    values |= {"simulated time": _clock(facts)}
    counted = facts.statistics
    if counted is not None:
        names = ("pushed", "captured", "dropped", "skipped", "misdated", "damaged", "frozen", "reconnects")
        values |= {name: str(getattr(counted, name)) for name in names}
        values |= {"engine failures": str(counted.engine_failures)}
    return Status(level, facts.name, message, facts.model, values)


def _node_trouble(facts: NodeFacts) -> tuple[Level, str]:
    if facts.fault:
        return Level.ERROR, facts.fault
    if facts.standstill:
        return Level.ERROR, facts.standstill
    if facts.namesakes:
        return Level.WARN, f"{facts.namesakes + 1} nodes are called {facts.name}: give each a name of its own"
    if facts.degraded:
        return Level.WARN, f"labels are degraded: {facts.degraded}"
    return Level.OK, facts.lifecycle


def _clock(facts: NodeFacts) -> str:
    if not facts.is_simulated:
        return "not used"
    return facts.standstill or "goes on"


def source_status(node: NodeFacts, facts: SourceFacts) -> Status:
    """Return the status of one camera; it is brief before its first label and while the node is not active."""
    prediction, topic = facts.prediction, facts.topic
    mismatch = "" if topic is None or topic.mismatch is None else topic.silence
    if node.lifecycle != "active" or prediction is None:
        level, message = Level.OK, "no label yet" if node.lifecycle == "active" else node.lifecycle
    else:
        level, message = level_of(prediction), _summary(prediction)
    if mismatch and (prediction is None or level is not Level.OK):
        level, message = Level.ERROR, message if mismatch in message else f"{message}; {mismatch}"
    values = {} if prediction is None else _prediction_values(prediction, facts)
    values |= {} if topic is None else _topic_values(topic)
    return Status(level, f"{node.name}: {facts.name}", message, node.model, values)


def _summary(prediction: Prediction) -> str:
    """Summarise a prediction: ``ok: wave``, ``stale (no_frame: no fresh frame for 350 ms)``."""
    state = prediction.state.value if prediction.label is None else f"{prediction.state.value}: {prediction.label}"
    return f"{state} ({prediction.reason.value}: {prediction.detail})" if prediction.reason else state


def _prediction_values(prediction: Prediction, facts: SourceFacts) -> dict[str, str]:
    return {
        "state": prediction.state.value,
        "reason": prediction.reason.value,
        "detail": prediction.detail,
        "label": prediction.label or "",
        "confidence": f"{prediction.confidence:.3f}",
        "anomaly": "not known" if prediction.anomaly is None else f"{prediction.anomaly:.2f}",
        "picture": picture_of(prediction),
        "age ms": "not known" if facts.age_ms is None else f"{facts.age_ms:.0f}",
        "rate": f"{facts.fps:.1f}",
    }


def _topic_values(topic: TopicFacts) -> dict[str, str]:
    return {
        "topic": topic.name,
        "publishers": str(topic.publishers),
        "QoS mismatch": topic.mismatch or "none",
        "received": str(topic.received),
        "replaced": str(topic.replaced),
    }


def diagnostic_array(statuses: list[Status], array: Any, status: Any, key_value: Any) -> Any:
    """Convert statuses to a ``DiagnosticArray`` with an unstamped header.

    Args:
        statuses: The statuses to publish.
        array: ``diagnostic_msgs/DiagnosticArray``.
        status: ``diagnostic_msgs/DiagnosticStatus``.
        key_value: ``diagnostic_msgs/KeyValue``.
    """
    message = array()
    for each in statuses:
        entry = status()
        entry.level, entry.name, entry.message = bytes([each.level]), _clean(each.name), _clean(each.message)
        entry.hardware_id = _clean(each.hardware_id)
        entry.values = [key_value(key=key, value=_clean(value)) for key, value in each.values.items()]
        message.status.append(entry)
    return message


def _clean(text: str) -> str:
    return text[:2000].replace("\0", "?").encode("utf-8", "replace").decode("utf-8")
