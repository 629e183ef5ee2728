"""When actions begin and end."""

from __future__ import annotations

import pytest

from kd_edge.runtime.ros.events import Event, EventKind, Events
from kd_edge.types import LabelState, Prediction, Reason
from tests.runtime.ros.predictions import predicted, stale

BEGAN, ENDED = EventKind.BEGAN, EventKind.ENDED
STAMP = 1_795_000_000_000_000_000


def seen(events: Events, *predictions: Prediction) -> list[Event]:
    """Everything that predictions 100 ms apart begin and end."""
    told = []
    for k, prediction in enumerate(predictions):
        told += events.see(prediction, STAMP + k * 100_000_000)
    return told


def at(k: int, label: str | None, confidence: float = 0.75, **changes: object) -> Prediction:
    return predicted(label, confidence, captured_ns=5_000_000_000 + k * 100_000_000, **changes)


def test_a_label_begins_and_another_one_ends_it() -> None:
    told = seen(Events(), at(0, "wave", 0.75), at(1, "wave", 0.875), at(2, "wave", 0.5), at(3, "clap", 0.625))
    assert told == [
        Event(BEGAN, "ir", "wave", 0.75, STAMP),
        Event(ENDED, "ir", "wave", 0.875, STAMP, 300_000_000, "label"),
        Event(BEGAN, "ir", "clap", 0.625, STAMP + 300_000_000),
    ]


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        (at(1, None), "low_confidence"),
        (stale(captured_ns=5_100_000_000), "no_frame"),
        (stale(Reason.CAMERA_LOST, captured_ns=5_100_000_000), "camera_lost"),
        (at(1, None, state=LabelState.WARMING, reason=Reason.GAP), "gap"),
    ],
)
def test_a_prediction_without_a_label_ends_it_with_its_reason(last: Prediction, reason: str) -> None:
    assert seen(Events(), at(0, "wave"), last, last)[1:] == [
        Event(ENDED, "ir", "wave", 0.75, STAMP, 100_000_000, reason)
    ]


def test_a_degraded_label_is_one() -> None:
    told = seen(Events(), at(0, "wave", state=LabelState.DEGRADED, reason=Reason.SPARSE), at(1, "wave"))
    assert told == [Event(BEGAN, "ir", "wave", 0.75, STAMP)]


def test_an_action_begins_only_when_it_is_sure_enough_and_goes_on_when_it_is_not() -> None:
    told = seen(Events(0.7), at(0, "wave", 0.5), at(1, "wave", 0.75), at(2, "wave", 0.4), at(3, "clap", 0.6))
    assert told == [
        Event(BEGAN, "ir", "wave", 0.75, STAMP + 100_000_000),
        Event(ENDED, "ir", "wave", 0.75, STAMP + 100_000_000, 200_000_000, "label"),
    ]


def test_cameras_do_not_mix() -> None:
    events = Events()
    assert [e.source for e in seen(events, at(0, "wave"), at(1, "clap", source="other"), at(2, "wave"))] == [
        "ir",
        "other",
    ]


def test_a_stale_prediction_of_an_older_frame_lasts_no_negative_time() -> None:
    assert seen(Events(), at(3, "wave"), stale(captured_ns=5_000_000_000))[1].lasted_ns == 0


def test_nothing_begins_without_a_label() -> None:
    assert seen(Events(), stale(), at(1, None)) == []
