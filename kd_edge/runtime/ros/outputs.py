"""Publish labels and events: as kd_edge_msgs or JSON, and as vision_msgs if available."""

from __future__ import annotations

import array
import json
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple

from kd_edge.runtime.ros.events import Event, EventKind
from kd_edge.runtime.ros.loading import load
from kd_edge.runtime.ros.parameters import Parameters
from kd_edge.types import LabelState, Prediction

STATES = {
    LabelState.WARMING: 0,
    LabelState.OK: 1,
    LabelState.UNKNOWN: 2,
    LabelState.STALE: 3,
    LabelState.DEGRADED: 4,
}
"""``state`` of ActionLabel.msg."""
KINDS = {EventKind.BEGAN: 0, EventKind.ENDED: 1}
"""``kind`` of ActionEvent.msg."""
LONGEST_TEXT = 2000
ARRIVAL_SECONDS = 0.5
"""Time for the last messages to arrive before their publishers are destroyed; they are lost if the process ends."""
_MOST_SECONDS = 2**31 - 1


class Origin(NamedTuple):
    """Origin of a label's frame, for the header.

    Attributes:
        stamp_ns: Its stamp as received, nanoseconds of ROS time.
        frame_id: The coordinate frame.
        captured_ns: Capture time by ROS time if the stamp is from another clock; None: ``stamp_ns``.
    """

    stamp_ns: int
    frame_id: str
    captured_ns: int | None = None


def valid_until_ns(prediction: Prediction, origin: Origin) -> int:
    """Until when a label may be acted on, by ROS time; a stamp from a clock that is ahead does not prolong it."""
    captured_ns = origin.stamp_ns if origin.captured_ns is None else origin.captured_ns
    return captured_ns + (prediction.valid_until_ns - prediction.captured_ns)


def set_time(message: Any, ns: int) -> None:
    """Write nanoseconds into a ``Time`` or ``Duration``, limited to their range (until 2038)."""
    sec, message.nanosec = divmod(ns, 1_000_000_000)
    message.sec = max(-_MOST_SECONDS, min(sec, _MOST_SECONDS))


def set_header(header: Any, origin: Origin) -> None:
    """Write a header."""
    set_time(header.stamp, origin.stamp_ns)
    header.frame_id = _text(origin.frame_id)


def set_label(message: Any, prediction: Prediction, origin: Origin) -> None:
    """Write a prediction into an ``ActionLabel``."""
    has_window = prediction.index >= 0
    set_header(message.header, origin)
    message.source = _text(prediction.source)
    message.state = STATES[prediction.state]
    message.label = _text(prediction.label or "")
    message.index = prediction.index
    message.confidence = float(prediction.confidence)
    message.probabilities = array.array("f", prediction.probabilities.tobytes() if has_window else b"")
    message.reason = prediction.reason.value
    message.detail = _text(prediction.detail)
    message.anomaly = math.nan if prediction.anomaly is None else _single(prediction.anomaly)
    set_time(message.valid_until, valid_until_ns(prediction, origin))
    message.frame_number = max(0, prediction.frame_id)


def set_event(message: Any, event: Event, origin: Origin) -> None:
    """Write an event into an ``ActionEvent``; the header is that of the frame that began or ended the action."""
    set_header(message.header, origin)
    message.source = _text(event.source)
    message.kind = KINDS[event.kind]
    message.label = _text(event.label)
    message.confidence = float(event.confidence)
    set_time(message.began, event.began_ns)
    set_time(message.lasted, event.lasted_ns)
    message.reason = event.reason


def set_classification(
    message: Any, hypothesis: Callable[[], Any], prediction: Prediction, origin: Origin, labels: Sequence[str]
) -> None:
    """Write a prediction into a ``vision_msgs/Classification``: every class, the most probable one first.

    It has no results if there is no label to act on, because the message has no field for states.

    Args:
        message: Message to fill.
        hypothesis: ``vision_msgs/ObjectHypothesis``.
        prediction: The prediction.
        origin: Origin of its frame.
        labels: Labels of the model.
    """
    set_header(message.header, origin)
    results = []
    for k in prediction.probabilities.argsort(kind="stable")[::-1] if prediction.label is not None else ():
        result = hypothesis()
        result.class_id, result.score = _text(labels[k]), float(prediction.probabilities[k])
        results.append(result)
    message.results = results


def label_json(prediction: Prediction, origin: Origin) -> str:
    """Convert a prediction to JSON with the fields of ``ActionLabel``; the state is a word, unknown values are null."""
    has_window = prediction.index >= 0
    plain = prediction.as_dict()
    return _json(
        {
            "header": _header(origin),
            "source": plain["source"],
            "state": plain["state"],
            "label": plain["label"] or "",
            "index": plain["index"],
            "confidence": plain["confidence"],
            "probabilities": plain["probabilities"] if has_window else [],
            "reason": plain["reason"],
            "detail": _text(prediction.detail),
            "anomaly": plain["anomaly"],
            "valid_until": _time(valid_until_ns(prediction, origin)),
            "frame_number": max(0, prediction.frame_id),
        }
    )


def event_json(event: Event, origin: Origin) -> str:
    """Convert an event to JSON with the fields of ``ActionEvent``; the kind is a word."""
    return _json(
        {
            "header": _header(origin),
            "source": _text(event.source),
            "kind": event.kind.value,
            "label": _text(event.label),
            "confidence": round(float(event.confidence), 6),
            "began": _time(event.began_ns),
            "lasted": _time(event.lasted_ns),
            "reason": event.reason,
        }
    )


def _json(fields: dict[str, Any]) -> str:
    return json.dumps(fields, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _header(origin: Origin) -> dict[str, Any]:
    return {"stamp": _time(origin.stamp_ns), "frame_id": _text(origin.frame_id)}


def _time(ns: int) -> dict[str, int]:
    sec, nanosec = divmod(ns, 1_000_000_000)
    return {"sec": max(-_MOST_SECONDS, min(sec, _MOST_SECONDS)), "nanosec": nanosec}


def _single(value: float) -> float:
    """Limit a number to the range of float32."""
    return max(-3.4e38, min(float(value), 3.4e38)) if math.isfinite(value) else value


def _text(text: str) -> str:
    """Make a text valid for a message: UTF-8 without NUL, of limited length."""
    return text[:LONGEST_TEXT].replace("\0", "?").encode("utf-8", "replace").decode("utf-8")


class Changes:
    """Selects the predictions to publish if only changes are published.

    A label that persists is published again once half of the last one's validity has passed, because subscribers may
    act on it until ``valid_until``.
    """

    def __init__(self) -> None:
        self._published: dict[str, Prediction] = {}

    def is_due(self, prediction: Prediction) -> bool:
        """Whether to publish this prediction; it then counts as published."""
        last = self._published.get(prediction.source)
        is_due = last is None or _content(last) != _content(prediction) or _is_half_over(last, prediction.captured_ns)
        if is_due:
            self._published[prediction.source] = prediction
        return is_due


def _content(prediction: Prediction) -> tuple[object, ...]:
    return prediction.label, prediction.state, prediction.reason


def _is_half_over(last: Prediction, now_ns: int) -> bool:
    return last.label is not None and 2 * (now_ns - last.captured_ns) >= last.valid_until_ns - last.captured_ns


@dataclass(frozen=True, slots=True)
class Messages:
    """Message types available on this machine; None for those that are not built.

    Attributes:
        label: ``kd_edge_msgs/ActionLabel``.
        event: ``kd_edge_msgs/ActionEvent``.
        service: ``kd_edge_msgs/WaitForLabel``, the service.
        action: ``kd_edge_msgs/WaitForLabel``, the action.
        classification: ``vision_msgs/Classification``.
        hypothesis: ``vision_msgs/ObjectHypothesis``.
    """

    label: Any = None
    event: Any = None
    service: Any = None
    action: Any = None
    classification: Any = None
    hypothesis: Any = None

    @classmethod
    def built(cls) -> Messages:
        """Import the message types that are available."""
        return cls(
            _built("kd_edge_msgs.msg", "ActionLabel"),
            _built("kd_edge_msgs.msg", "ActionEvent"),
            _built("kd_edge_msgs.srv", "WaitForLabel"),
            _built("kd_edge_msgs.action", "WaitForLabel"),
            _built("vision_msgs.msg", "Classification"),
            _built("vision_msgs.msg", "ObjectHypothesis"),
        )

    @property
    def are_typed(self) -> bool:
        """Whether kd_edge_msgs is completely available."""
        return None not in (self.label, self.event, self.service, self.action)


def _built(package: str, name: str) -> Any:
    """Import a message type; None if its package, or the type in it, is not built here."""
    try:
        return getattr(import_module(package), name, None)
    except (ImportError, OSError):
        return None


class Outputs:
    """The publishers of labels and events of one node.

    Args:
        node: The rclpy node.
        parameters: Parameters of the node.
        messages: The available message types.
        labels: Labels of the model.
    """

    def __init__(self, node: Any, parameters: Parameters, messages: Messages, labels: Sequence[str]) -> None:
        qos = load("rclpy.qos")
        self._string = load("std_msgs.msg").String
        self._node, self._messages, self._labels = node, messages, labels
        self._publishers: list[Any] = []
        reliable = qos.ReliabilityPolicy.RELIABLE
        # Late subscribers that request it receive the last labels, each of which has its valid_until.
        kept = qos.QoSProfile(depth=10, reliability=reliable, durability=qos.DurabilityPolicy.TRANSIENT_LOCAL)
        passing = qos.QoSProfile(depth=100, reliability=reliable)
        has_json = parameters.json == "always" or (parameters.json == "auto" and not messages.are_typed)
        has_classes = parameters.classification and None not in (messages.classification, messages.hypothesis)
        self._label = self._made(messages.label, "~/label", kept) if messages.are_typed else None
        self._event = self._made(messages.event, "~/event", passing) if messages.are_typed else None
        self._classification = self._made(messages.classification, "~/classification", kept) if has_classes else None
        self._label_json = self._made(self._string, "~/label_json", kept) if has_json else None
        self._event_json = self._made(self._string, "~/event_json", passing) if has_json else None

    def _made(self, kind: Any, topic: str, qos: Any) -> Any:
        publisher = self._node.create_publisher(kind, topic, qos)
        self._publishers.append(publisher)
        return publisher

    def label(self, prediction: Prediction, origin: Origin) -> None:
        """Publish a prediction in every form."""
        if self._label is not None:
            self._label.publish(self.label_message(prediction, origin))
        if self._classification is not None:
            message = self._messages.classification()
            set_classification(message, self._messages.hypothesis, prediction, origin, self._labels)
            self._classification.publish(message)
        if self._label_json is not None:
            self._label_json.publish(self._string(data=label_json(prediction, origin)))

    def label_message(self, prediction: Prediction, origin: Origin) -> Any:
        """Convert a prediction to ``ActionLabel``."""
        message = self._messages.label()
        set_label(message, prediction, origin)
        return message

    def event(self, event: Event, origin: Origin) -> None:
        """Publish an event in every form."""
        if self._event is not None:
            message = self._messages.event()
            set_event(message, event, origin)
            self._event.publish(message)
        if self._event_json is not None:
            self._event_json.publish(self._string(data=event_json(event, origin)))

    def close(self) -> None:
        """Destroy the publishers after the last messages have arrived, or ``ARRIVAL_SECONDS`` later."""
        end = time.monotonic() + ARRIVAL_SECONDS
        duration = load("rclpy.duration").Duration
        for publisher in self._publishers:
            with suppress(Exception):  # ROS may be gone
                publisher.wait_for_all_acked(duration(seconds=max(0.0, end - time.monotonic())))
            self._node.destroy_publisher(publisher)
        self._publishers.clear()
