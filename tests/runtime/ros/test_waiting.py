"""Waiting for a label, without ROS: who is answered when, and with what."""

from __future__ import annotations

from typing import Any

import pytest

from kd_edge.runtime.ros.waiting import Answer, Waits, Wanted
from kd_edge.types import LabelState, Prediction, Reason
from tests.runtime.ros.predictions import LABELS, predicted, stale


class Future:
    """A stand-in for ``rclpy.task.Future``."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []

    def set_result(self, answer: Answer) -> None:
        self.answers.append(answer)


class Waiting:
    """Waits on a clock that is moved by hand."""

    def __init__(self, most: int = 2) -> None:
        self.now = 100.0
        self.woken = 0
        self.waits = Waits(Future, self._wake, lambda: self.now)
        self.waits.open(most)

    def _wake(self) -> None:
        self.woken += 1

    def begin(
        self, *held: Prediction, on_change: Any = None, is_cancelled: Any = lambda: False, **wanted: Any
    ) -> Future:
        values = {"label": "wave", "source": "", "min_confidence": 0.5, "seconds": 2.0, **wanted}
        future: Future = self.waits.begin(Wanted(**values), held, on_change, is_cancelled)
        return future


def test_the_label_that_comes_is_the_answer() -> None:
    waiting = Waiting()
    future = waiting.begin()
    for other in (stale(), predicted("clap"), predicted("wave", 0.4375)):
        waiting.waits.see(other)
    assert (future.answers, waiting.woken, len(waiting.waits)) == ([], 0, 1)
    came = predicted("wave", 0.5)
    waiting.waits.see(came)
    assert (future.answers, waiting.woken, len(waiting.waits)) == ([Answer(True, came)], 1, 0)
    waiting.waits.see(came)
    assert len(future.answers) == 1


def test_a_label_that_holds_is_the_answer_at_once() -> None:
    held = predicted("wave", 0.75)
    assert Waiting().begin(stale(source="other"), held).answers == [Answer(True, held)]


def test_nothing_in_time() -> None:
    waiting = Waiting()
    future = waiting.begin()
    last = stale(Reason.CAMERA_LOST)
    waiting.waits.see(last)
    waiting.now = 101.999
    waiting.waits.look()
    assert future.answers == []
    waiting.now = 102.0
    waiting.waits.look()
    assert future.answers == [Answer(False, last, "no 'wave' in 2 s: the last was stale (camera_lost)")]
    assert waiting.woken == 1


def test_nothing_at_all() -> None:
    waiting = Waiting()
    future = waiting.begin()
    waiting.now = 200.0
    waiting.waits.look()
    assert future.answers == [Answer(False, None, "no 'wave' in 2 s: no label came at all")]


def test_no_time_asks_what_holds_now() -> None:
    held = predicted("clap")
    assert Waiting().begin(held, seconds=0.0).answers == [Answer(False, held, "no 'wave' in 0 s: the last was clap")]


def test_only_the_wanted_camera_counts() -> None:
    waiting = Waiting()
    future = waiting.begin(source="left")
    waiting.waits.see(predicted("wave"))
    assert future.answers == []
    came = predicted("wave", source="left")
    waiting.waits.see(came)
    assert future.answers == [Answer(True, came)]


def test_degraded_is_a_label_and_unknown_is_none() -> None:
    waiting = Waiting()
    future = waiting.begin()
    waiting.waits.see(predicted(None, 0.75))  # its likeliest class is wave
    assert future.answers == []
    came = predicted("wave", state=LabelState.DEGRADED, reason=Reason.SPARSE)
    waiting.waits.see(came)
    assert future.answers == [Answer(True, came)]


def test_so_many_may_wait_and_no_more() -> None:
    waiting = Waiting(most=2)
    first, second, third = waiting.begin(), waiting.begin(), waiting.begin()
    assert (first.answers, second.answers) == ([], [])
    assert third.answers == [Answer(False, None, "2 callers wait already (max_waits)")]
    waiting.waits.see(predicted())
    assert waiting.begin().answers == []


def test_a_caller_that_takes_it_back() -> None:
    waiting, taken_back = Waiting(), []
    future, other = waiting.begin(is_cancelled=lambda: bool(taken_back)), waiting.begin()
    waiting.waits.look()
    assert future.answers == []
    taken_back.append(True)
    waiting.waits.look()
    assert future.answers == [Answer(False, None, "cancelled", is_cancelled=True)]
    assert other.answers == []


def test_closing_lets_all_go_and_takes_nobody() -> None:
    waiting = Waiting()
    future = waiting.begin()
    waiting.waits.close("the node is not active")
    refused = Answer(False, None, "the node is not active")
    assert (future.answers, waiting.begin().answers) == ([refused], [refused])
    assert Waits(Future, lambda: None).begin(Wanted("wave", "", 0, 1), ()).answers == [refused]


def test_changes_are_told_meanwhile() -> None:
    waiting, told = Waiting(), []
    held = predicted("clap")
    waiting.begin(held, on_change=told.append)
    for prediction in (predicted("clap", 0.9), stale(), stale(), predicted("wave", 0.25), predicted("wave", 0.9)):
        waiting.waits.see(prediction)
    assert [(p.label, p.confidence) for p in told] == [("clap", 0.75), (None, 0.0), ("wave", 0.25)]


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({}, ""),
        ({"source": "left"}, ""),
        (
            {"label": "wve"},
            "label 'wve' is not one of the model's (did you mean 'wave'?). Expected one of wave, clap, throw",
        ),
        ({"label": ""}, "label '' is not one of the model's. Expected one of wave, clap, throw"),
        ({"source": "up"}, "source 'up' is not a camera of this node. Expected left, right, or none"),
        ({"min_confidence": 1.5}, "min_confidence 1.5. Expected 0 to 1"),
        ({"min_confidence": float("nan")}, "min_confidence nan. Expected 0 to 1"),
        ({"seconds": -1.0}, "timeout -1 s. Expected 0 to 3600 s"),
        ({"seconds": 3601.0}, "timeout 3601 s. Expected 0 to 3600 s"),
    ],
)  # fmt: skip
def test_what_can_never_come_is_refused(changes: dict[str, Any], fault: str) -> None:
    values = {"label": "wave", "source": "", "min_confidence": 0.5, "seconds": 2.0, **changes}
    assert Wanted(**values).fault(LABELS, ("left", "right")) == fault


def test_a_label_that_ran_out_before_anybody_could_act_on_it_ends_no_wait() -> None:
    waiting = Waiting()
    future = waiting.begin()
    waiting.waits.see(predicted("wave", 0.75), is_valid=False)
    assert (future.answers, len(waiting.waits)) == ([], 1)
