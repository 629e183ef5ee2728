"""What is asked of publishers and which policy does not match; without ROS."""

from __future__ import annotations

from typing import Any

import pytest

from kd_edge.errors import ConfigError
from kd_edge.runtime.ros.qos import Asked, Offer, TopicQos, decided, mismatch

IMAGE = "sensor_msgs/msg/Image"
RELIABLE, BEST_EFFORT = Offer(IMAGE, True, False), Offer(IMAGE, False, False)
KEPT = Offer(IMAGE, True, True)


@pytest.mark.parametrize(
    ("reliability", "offered", "reliable"),
    [
        ("auto", [RELIABLE], True),
        ("auto", [RELIABLE, KEPT], True),
        ("auto", [BEST_EFFORT], False),
        ("auto", [RELIABLE, BEST_EFFORT], False),
        ("reliable", [BEST_EFFORT], True),
        ("best_effort", [RELIABLE], False),
    ],
)
def test_auto_asks_for_what_all_offer(reliability: Any, offered: list[Offer], reliable: bool) -> None:
    assert decided(TopicQos(reliability=reliability), offered) == Asked(reliable, transient_local=False)


@pytest.mark.parametrize(
    ("asked", "offered", "policy"),
    [
        (Asked(True, False), [RELIABLE], None),
        (Asked(True, False), [RELIABLE, BEST_EFFORT], "RELIABILITY"),
        (Asked(False, False), [RELIABLE, BEST_EFFORT], None),
        (Asked(True, True), [RELIABLE], "DURABILITY"),
        (Asked(True, True), [KEPT], None),
        (Asked(True, True), [BEST_EFFORT], "RELIABILITY"),
        (Asked(False, False), [KEPT], None),
        (Asked(True, True), [], None),
    ],
)
def test_the_policy_that_does_not_match_is_named(asked: Asked, offered: list[Offer], policy: str | None) -> None:
    assert mismatch(asked, offered) == policy


def test_words_for_people() -> None:
    assert (str(KEPT), str(BEST_EFFORT)) == ("reliable, transient local", "best effort, volatile")
    assert str(Asked(True, False)) == "reliable, volatile"


@pytest.mark.parametrize(
    "wrong", [{"reliability": "sometimes"}, {"durability": "for ever"}, {"depth": 0}, {"depth": 101}, {"depth": "5"}]
)
def test_what_cannot_be_asked_is_one_line(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        TopicQos(**wrong)
    key, value = next(iter(wrong.items()))
    assert str(caught.value).startswith(f"{key} {value!r}. Expected ")
