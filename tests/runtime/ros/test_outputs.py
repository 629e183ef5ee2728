"""Fields of messages, worked out by hand."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from kd_edge.runtime.ros.events import Event, EventKind
from kd_edge.runtime.ros.outputs import (
    Changes,
    Origin,
    event_json,
    label_json,
    set_classification,
    set_event,
    set_label,
)
from kd_edge.types import LabelState, Prediction, Reason
from tests.runtime.ros.predictions import (
    LABELS,
    ActionEvent,
    ActionLabel,
    Classification,
    Header,
    Moment,
    ObjectHypothesis,
    predicted,
    stale,
)

ORIGIN = Origin(1_795_000_000_900_000_000, "camera_infra1")
STAMP = {"sec": 1_795_000_000, "nanosec": 900_000_000}


def label_of(prediction: Prediction, origin: Origin = ORIGIN) -> ActionLabel:
    message = ActionLabel()
    set_label(message, prediction, origin)
    message.probabilities = list(message.probabilities)
    return message


def test_a_label_with_everything() -> None:
    assert label_of(predicted("clap", 0.75, anomaly=0.5)) == ActionLabel(
        header=Header(Moment(1_795_000_000, 900_000_000), "camera_infra1"),
        source="ir",
        state=1,
        label="clap",
        index=1,
        confidence=0.75,
        probabilities=[0.125, 0.75, 0.125],
        reason="",
        detail="",
        anomaly=0.5,
        valid_until=Moment(1_795_000_001, 200_000_000),  # 300 ms after the stamp
        frame_number=7,
    )


def test_a_label_that_ran_out_has_none() -> None:
    message = label_of(stale())
    assert math.isnan(message.anomaly)
    message.anomaly = 0.0
    assert message == ActionLabel(
        header=Header(Moment(1_795_000_000, 900_000_000), "camera_infra1"),
        source="ir",
        state=3,
        index=-1,
        reason="no_frame",
        detail="no fresh frame for 350 ms",
        probabilities=[],
        valid_until=Moment(1_795_000_001, 250_000_000),
        frame_number=7,
    )


@pytest.mark.parametrize(
    ("state", "number"),
    [
        (LabelState.WARMING, 0),
        (LabelState.OK, 1),
        (LabelState.UNKNOWN, 2),
        (LabelState.STALE, 3),
        (LabelState.DEGRADED, 4),
    ],
)
def test_states_are_those_of_the_message(state: LabelState, number: int) -> None:
    assert label_of(predicted(state=state)).state == number


def test_before_the_first_frame_its_number_is_none() -> None:
    assert label_of(stale(frame_id=-1)).frame_number == 0


def test_stamps_of_zero_and_beyond_2038_have_room() -> None:
    assert label_of(predicted(), Origin(0, "")).valid_until == Moment(0, 300_000_000)
    assert label_of(predicted(), Origin(2**62, "")).header.stamp.sec == 2**31 - 1
    assert label_of(predicted(valid_until_ns=4_000_000_000), Origin(0, "")).valid_until == Moment(-1, 0)


def test_words_that_no_message_can_hold_are_replaced() -> None:
    message = label_of(predicted(source="a\0b\udcff", detail="x" * 3000))
    assert message.source == "a?b?"
    assert len(message.detail) == 2000


def test_an_anomaly_that_no_float32_holds() -> None:
    assert label_of(predicted(anomaly=1e300)).anomaly == 3.4e38


def test_the_same_as_json() -> None:
    assert json.loads(label_json(predicted("clap", 0.75, anomaly=0.5), ORIGIN)) == {
        "header": {"stamp": STAMP, "frame_id": "camera_infra1"},
        "source": "ir",
        "state": "ok",
        "label": "clap",
        "index": 1,
        "confidence": 0.75,
        "probabilities": [0.125, 0.75, 0.125],
        "reason": "",
        "detail": "",
        "anomaly": 0.5,
        "valid_until": {"sec": 1_795_000_001, "nanosec": 200_000_000},
        "frame_number": 7,
    }


def test_json_of_what_ran_out() -> None:
    told = json.loads(label_json(stale(), ORIGIN))
    assert (told["state"], told["label"], told["probabilities"], told["anomaly"]) == ("stale", "", [], None)


ENDED = Event(EventKind.ENDED, "ir", "wave", 0.875, 1_795_000_000_600_000_000, 300_000_000, "label")


def test_an_event() -> None:
    message = ActionEvent()
    set_event(message, ENDED, ORIGIN)
    assert message == ActionEvent(
        header=Header(Moment(1_795_000_000, 900_000_000), "camera_infra1"),
        source="ir",
        kind=1,
        label="wave",
        confidence=0.875,
        began=Moment(1_795_000_000, 600_000_000),
        lasted=Moment(0, 300_000_000),
        reason="label",
    )


def test_an_event_as_json() -> None:
    assert json.loads(event_json(ENDED, ORIGIN)) == {
        "header": {"stamp": STAMP, "frame_id": "camera_infra1"},
        "source": "ir",
        "kind": "ended",
        "label": "wave",
        "confidence": 0.875,
        "began": {"sec": 1_795_000_000, "nanosec": 600_000_000},
        "lasted": {"sec": 0, "nanosec": 300_000_000},
        "reason": "label",
    }


def classified(prediction: Prediction) -> Classification:
    message = Classification()
    set_classification(message, ObjectHypothesis, prediction, ORIGIN, LABELS)
    return message


def test_a_classification_has_every_class_the_likeliest_first() -> None:
    probabilities = np.array([0.25, 0.625, 0.125], np.float32)
    assert classified(predicted("clap", 0.625, probabilities=probabilities)) == Classification(
        Header(Moment(1_795_000_000, 900_000_000), "camera_infra1"),
        [ObjectHypothesis("clap", 0.625), ObjectHypothesis("wave", 0.25), ObjectHypothesis("throw", 0.125)],
    )


@pytest.mark.parametrize("prediction", [stale(), predicted(None)])
def test_a_classification_of_what_may_not_be_acted_on_has_no_results(prediction: Prediction) -> None:
    assert classified(prediction).results == []


def at(ms: int, label: str | None = "wave", **changes: Any) -> Prediction:
    return predicted(label, captured_ns=ms * 1_000_000, valid_until_ns=(ms + 300) * 1_000_000, **changes)


def test_changes_are_told_and_a_label_that_goes_on_before_half_of_its_time_is_over() -> None:
    changes = Changes()
    told = [k for k in range(0, 500, 50) if changes.is_due(at(k))]
    assert told == [0, 150, 300, 450]
    assert changes.is_due(at(460, "clap"))
    assert changes.is_due(at(470, None))
    assert not changes.is_due(at(900, None))  # nobody acts on that
    assert changes.is_due(stale())
    assert not changes.is_due(stale(detail="no fresh frame for 600 ms"))
    assert changes.is_due(stale(Reason.CAMERA_LOST))
    assert changes.is_due(stale(Reason.CAMERA_LOST, source="other"))


def test_a_stamp_of_a_clock_that_is_ahead_does_not_prolong_a_label() -> None:
    tai = Origin(1_795_000_037_000_000_000, "ir", captured_ns=1_795_000_000_000_000_000)  # 37 s ahead of ROS time
    label = label_of(predicted(), tai)
    assert (label.header.stamp, label.valid_until) == (Moment(1_795_000_037, 0), Moment(1_795_000_000, 300_000_000))
