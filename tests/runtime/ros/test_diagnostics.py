"""What stands in diagnostics."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from kd_edge.runtime.ros.diagnostics import (
    Level,
    NodeFacts,
    Rate,
    SourceFacts,
    Status,
    TopicFacts,
    diagnostic_array,
    level_of,
    node_status,
    source_status,
)
from kd_edge.runtime.statistics import Statistics
from kd_edge.types import LabelState, Prediction, Reason
from tests.runtime.ros.predictions import predicted, stale

NODE = NodeFacts("/left/action_recognition", "active", model="tiny", engine="onnxruntime")
TOPIC = TopicFacts("/image", 1, None, "the publisher of /image is silent", 120, 3)


@pytest.mark.parametrize(
    ("prediction", "level"),
    [
        (predicted(), Level.OK),
        (predicted(None), Level.OK),  # nobody does what the model knows: no fault
        (predicted(None, reason=Reason.UNFAMILIAR), Level.OK),
        (predicted(None, state=LabelState.WARMING, reason=Reason.START), Level.OK),
        (predicted(None, state=LabelState.WARMING, reason=Reason.GAP), Level.WARN),
        (predicted(None, reason=Reason.DARK), Level.WARN),
        (predicted(state=LabelState.DEGRADED, reason=Reason.FALLBACK), Level.WARN),
        (stale(), Level.STALE),
        (stale(Reason.LATE), Level.STALE),
        (stale(Reason.CAMERA_LOST), Level.ERROR),
        (stale(Reason.CLOCK_AHEAD), Level.ERROR),
        (stale(Reason.FROZEN), Level.ERROR),
        (stale(Reason.ENGINE_FAILED), Level.ERROR),
    ],
)
def test_how_bad_a_state_is(prediction: Prediction, level: Level) -> None:
    assert level_of(prediction) is level


def test_a_camera_that_works() -> None:
    told = source_status(NODE, SourceFacts("ir", predicted(anomaly=0.5), 41.6, 29.97, TOPIC))
    assert told == Status(
        Level.OK,
        "/left/action_recognition: ir",
        "ok: wave",
        "tiny",
        {
            "state": "ok", "reason": "", "detail": "", "label": "wave", "confidence": "0.750", "anomaly": "0.50",
            "picture": "good", "age ms": "42", "rate": "30.0", "topic": "/image", "publishers": "1",
            "QoS mismatch": "none", "received": "120", "replaced": "3",
        },
    )  # fmt: skip


def test_a_camera_that_is_silent() -> None:
    told = source_status(NODE, SourceFacts("ir", stale(), 350.2, 12.0))
    assert (told.level, told.message) == (Level.STALE, "stale (no_frame: no fresh frame for 350 ms)")
    assert told.values["picture"] == "not known"
    assert "topic" not in told.values


def test_a_dark_picture_is_told_by_its_reason() -> None:
    prediction = predicted(None, reason=Reason.DARK, detail="mean 2")
    told = source_status(NODE, SourceFacts("ir", prediction, 1.0, 30.0))
    assert (told.level, told.message, told.values["picture"]) == (Level.WARN, "unknown (dark: mean 2)", "dark")


def test_qos_that_cannot_match_is_told_by_the_name_of_the_policy() -> None:
    topic = replace(TOPIC, mismatch="RELIABILITY", silence="1 publisher of /image, but RELIABILITY does not match")
    before = source_status(NODE, SourceFacts("ir", None, None, 0.0, topic))
    assert (before.level, before.message) == (Level.ERROR, f"no label yet; {topic.silence}")
    assert before.values["QoS mismatch"] == "RELIABILITY"
    lost = source_status(NODE, SourceFacts("ir", stale(), 350.0, 0.0, topic))
    assert (lost.level, lost.message) == (
        Level.ERROR, f"stale (no_frame: no fresh frame for 350 ms); {topic.silence}"
    )  # fmt: skip
    detail = f"no fresh frame for 2 s: camera ir: {topic.silence}; reopening"
    gone = source_status(NODE, SourceFacts("ir", stale(Reason.CAMERA_LOST, detail), 2000.0, 0.0, topic))
    assert gone.message == f"stale (camera_lost: {detail})"  # once is enough
    fine = source_status(NODE, SourceFacts("ir", predicted(), 1.0, 30.0, topic))  # of another publisher it comes
    assert (fine.level, fine.message) == (Level.OK, "ok: wave")


def test_a_node_that_is_not_active_says_so_of_its_cameras() -> None:
    told = source_status(replace(NODE, lifecycle="inactive"), SourceFacts("ir", None, None, 0.0, TOPIC))
    assert (told.level, told.message) == (Level.OK, "inactive")


@pytest.mark.parametrize(
    ("changes", "level", "message"),
    [
        ({}, Level.OK, "active"),
        ({"degraded": "fallback"}, Level.WARN, "labels are degraded: fallback"),
        (
            {"namesakes": 1},
            Level.WARN,
            "2 nodes are called /left/action_recognition: give each a name of its own",
        ),
        ({"is_simulated": True, "standstill": "it stands still"}, Level.ERROR, "it stands still"),
        ({"fault": "no such model", "namesakes": 2, "standstill": "too"}, Level.ERROR, "no such model"),
    ],
)
def test_the_nodes_worst_trouble_is_its_message(changes: dict[str, Any], level: Level, message: str) -> None:
    told = node_status(replace(NODE, **changes))
    assert (told.level, told.message) == (level, message)


def test_the_node_tells_its_counters() -> None:
    counted = Statistics(120, 3, 1, 5, 6, 7, 2, 104, 8, {}, {}, 30.0, {}, 0, 0)
    told = node_status(replace(NODE, statistics=counted, waits=2))
    assert told.values == {
        "lifecycle": "active", "model": "tiny", "engine": "onnxruntime", "degraded": "",
        "other nodes of this name": "0", "waiting callers": "2", "simulated time": "not used", "pushed": "104",
        "captured": "120", "dropped": "3", "skipped": "1", "misdated": "6", "damaged": "7", "frozen": "5",
        "reconnects": "2", "engine failures": "8",
    }  # fmt: skip


def test_the_rate_of_a_camera_and_of_one_that_falls_silent() -> None:
    rate = Rate()
    assert rate.fps(0) == 0.0
    for k in range(11):
        rate.see(k * 100_000_000)
    rate.see(1_000_000_000)  # told of again: no frame
    assert rate.fps(1_150_000_000) == pytest.approx(10.0)
    assert rate.fps(3_000_000_000) == pytest.approx(10 / 3)
    rate.see(0)  # another run
    assert rate.fps(0) == 0.0


@dataclass
class KeyValue:
    key: str = ""
    value: str = ""


@dataclass
class DiagnosticStatus:
    level: bytes = b"\0"
    name: str = ""
    message: str = ""
    hardware_id: str = ""
    values: list[KeyValue] = field(default_factory=list)


@dataclass
class DiagnosticArray:
    status: list[DiagnosticStatus] = field(default_factory=list)


def test_the_message() -> None:
    told = diagnostic_array(
        [Status(Level.ERROR, "n", "a\0b\udcff", "tiny", {"k": "v"})], DiagnosticArray, DiagnosticStatus, KeyValue
    )
    assert told == DiagnosticArray([DiagnosticStatus(b"\2", "n", "a?b?", "tiny", [KeyValue("k", "v")])])
