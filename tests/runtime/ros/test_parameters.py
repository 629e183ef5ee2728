"""Parameters of the node: ranges, what may change when, and the words of a refusal."""

from __future__ import annotations

import math
from typing import Any

import pytest

from kd_edge.errors import ConfigError
from kd_edge.runtime.ros.parameters import BY_NAME, PARAMETERS, Parameters, refusal

LIVE = {"max_age_ms", "publish", "event_min_confidence", "annotated_fps", "diagnostics_period_s"}


def test_defaults_are_in_their_own_ranges() -> None:
    assert {each.name: each.fault(each.default) for each in PARAMETERS} == dict.fromkeys(BY_NAME, "")
    assert Parameters.of({each.name: each.default for each in PARAMETERS}) == Parameters()


def test_every_parameter_says_what_it_is() -> None:
    for each in PARAMETERS:
        assert each.description.endswith("."), each.name
        assert "\n" not in each.description, each.name
        if each.kind in ("int", "float"):
            assert each.least is not None, each.name
            assert each.most is not None, each.name


def test_only_what_is_safe_may_change_live() -> None:
    assert {each.name for each in PARAMETERS if each.live} == LIVE
    for each in PARAMETERS:
        refused = refusal(each.name, each.default, is_configured=True)
        assert (refused == "") == each.live, each.name


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("depth", 0, "parameter depth is 0. Expected 1 to 100"),
        ("depth", 101, "parameter depth is 101. Expected 1 to 100"),
        ("depth", 5.0, "parameter depth is 5.0. Expected a whole number"),
        ("depth", True, "parameter depth is True. Expected a whole number"),
        ("strict", 1, "parameter strict is 1. Expected true or false"),
        ("annotated_fps", 5, "parameter annotated_fps is 5. Expected a number with a decimal point (5.0)"),
        ("annotated_fps", math.nan, "parameter annotated_fps is nan. Expected 0 to 60"),
        ("annotated_fps", math.inf, "parameter annotated_fps is inf. Expected 0 to 60"),
        ("event_min_confidence", 1.5, "parameter event_min_confidence is 1.5. Expected 0 to 1"),
        ("publish", "all", "parameter publish is 'all'. Expected one of every, change"),
        ("band", "uv", "parameter band is 'uv'. Expected one of '', nir, lwir, depth, rgb"),
        ("clock", "monotonic", "parameter clock is 'monotonic'. Expected one of wall, device, arrival"),
        ("model", None, "parameter model is None. Expected a text"),
        ("model", "x" * 1025, f"parameter model is '{'x' * 79}. Expected at most 1024 characters"),
        ("topics", [], "parameter topics is 0 entries. Expected 1 to 16"),
        ("topics", ["a", ""], "parameter topics is the entry ''. Expected a text that is not empty"),
        ("topics", "image", "parameter topics is 'image'. Expected a list of texts ([/left/image, /right/image])"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(name: str, value: Any, why: str) -> None:
    assert refusal(name, value, is_configured=False) == why


def test_what_is_read_when_the_node_is_configured_changes_only_before() -> None:
    assert refusal("model", "m.onnx", is_configured=False) == ""
    assert refusal("model", "m.onnx", is_configured=True) == (
        "parameter model is read when the node is configured: deactivate and clean it up first"
    )
    assert "deactivate" in refusal("use_sim_time", True, is_configured=True)
    assert refusal("use_sim_time", True, is_configured=False) == ""


def test_autostart_is_read_once() -> None:
    assert refusal("autostart", False, is_configured=False, is_started=False) == ""
    assert "read once" in refusal("autostart", False, is_configured=False)


def test_others_parameters_are_none_of_ours() -> None:
    assert refusal("qos_overrides./image.depth", 7, is_configured=True) == ""


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"valid_ms": 0.5}, "parameter valid_ms 0.5"),
        ({"camera": "ir0", "pair_slop_ms": 5.0}, "parameter pair_slop_ms together with camera"),
    ],
)
def test_what_does_not_go_together_is_refused(values: dict[str, Any], found: str) -> None:
    with pytest.raises(ConfigError) as told:
        Parameters.of(values)
    assert told.value.found == found
