"""Predictions for tests, and plain classes with the fields of messages (stand-ins: nothing of ROS is in them)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kd_edge.types import LabelState, Prediction, Reason

LABELS = ("wave", "clap", "throw")


def predicted(label: str | None = "wave", confidence: float = 0.75, **changes: Any) -> Prediction:
    """A prediction of frame 7, captured at 5 s, valid for 300 ms; without a label it is unknown."""
    index = LABELS.index(label) if label is not None else 0
    probabilities = np.full(3, (1 - confidence) / 2, np.float32)
    probabilities[index] = confidence
    values: dict[str, Any] = {
        "source": "ir", "label": label, "index": index, "confidence": confidence, "probabilities": probabilities,
        "state": LabelState.OK if label is not None else LabelState.UNKNOWN, "frame_id": 7,
        "captured_ns": 5_000_000_000, "emitted_ns": 5_001_000_000, "valid_until_ns": 5_300_000_000,
        "reason": Reason.NONE if label is not None else Reason.LOW_CONFIDENCE,
    }  # fmt: skip
    return Prediction(**{**values, **changes})


def stale(reason: Reason = Reason.NO_FRAME, detail: str = "no fresh frame for 350 ms", **changes: Any) -> Prediction:
    """The same frame's, run out at 5.35 s."""
    values: dict[str, Any] = {
        "index": -1, "confidence": 0.0, "probabilities": np.zeros(3, np.float32), "state": LabelState.STALE,
        "valid_until_ns": 5_350_000_000, "reason": reason, "detail": detail,
    }  # fmt: skip
    return predicted(None, **{**values, **changes})


@dataclass
class Moment:
    """``builtin_interfaces/Time`` and ``Duration``."""

    sec: int = 0
    nanosec: int = 0


@dataclass
class Header:
    """``std_msgs/Header``."""

    stamp: Moment = field(default_factory=Moment)
    frame_id: str = ""


@dataclass
class ActionLabel:
    """``kd_edge_msgs/ActionLabel``."""

    header: Header = field(default_factory=Header)
    source: str = ""
    state: int = 0
    label: str = ""
    index: int = 0
    confidence: float = 0.0
    probabilities: Any = ()
    reason: str = ""
    detail: str = ""
    anomaly: float = 0.0
    valid_until: Moment = field(default_factory=Moment)
    frame_number: int = 0


@dataclass
class ActionEvent:
    """``kd_edge_msgs/ActionEvent``."""

    header: Header = field(default_factory=Header)
    source: str = ""
    kind: int = 0
    label: str = ""
    confidence: float = 0.0
    began: Moment = field(default_factory=Moment)
    lasted: Moment = field(default_factory=Moment)
    reason: str = ""


@dataclass
class ObjectHypothesis:
    """``vision_msgs/ObjectHypothesis``."""

    class_id: str = ""
    score: float = 0.0


@dataclass
class Classification:
    """``vision_msgs/Classification``."""

    header: Header = field(default_factory=Header)
    results: list[ObjectHypothesis] = field(default_factory=list)
