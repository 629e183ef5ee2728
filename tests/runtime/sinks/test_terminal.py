"""What a person sees."""

from __future__ import annotations

import io

import numpy as np
import pytest

from kd_edge.runtime.sinks import TerminalSink
from kd_edge.runtime.sinks.terminal import describe
from kd_edge.types import LabelState, Reason
from tests.runtime.sinks.conftest import prediction


def test_terminal_that_is_no_tty_gets_a_line_per_change():
    out = io.StringIO()
    sink = TerminalSink(out)
    sink.open()
    for p in (
        prediction(0, LabelState.WARMING), prediction(1, LabelState.WARMING), prediction(2), prediction(3),
        prediction(4, truth="clap"), prediction(5, LabelState.UNKNOWN), prediction(6, LabelState.STALE),
    ):  # fmt: skip
        sink.write(p)
    sink.close()
    lines = out.getvalue().splitlines()
    assert [line.split()[2] for line in lines] == ["warming", "ok", "ok", "unknown", "stale"]
    assert lines[0] == "      0.00 s  warming   (gap: why)"
    assert lines[1].split()[:5] == ["0.20", "s", "ok", "wave", "75%"]
    assert lines[2].endswith("truth: clap")
    assert "wave" not in lines[3]


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_terminal_updates_one_line():
    out = Tty()
    sink = TerminalSink(out)
    sink.open()
    for p in (prediction(0), prediction(1), prediction(2, label="clap", state=LabelState.UNKNOWN)):
        sink.write(p)
    sink.close()
    sink.close()
    text = out.getvalue()
    assert text.count("\r") == 2
    assert text.count("\n") == 2
    assert "\r      0.10 s" in text


def test_terminal_that_shows_several_cameras_gets_a_line_per_change_with_the_name():
    for out, breaks in ((Tty(), "\r"), (io.StringIO(), "")):
        sink = TerminalSink(out)
        sink.open()
        for number, source, label in (
            (0, "ir0", "wave"), (1, "corridor", "wave"), (2, "ir0", "wave"), (3, "corridor", "throw"),
            (4, "ir0", "wave"), (5, "ir0", "throw"),
        ):  # fmt: skip
            sink.write(prediction(number, label=label, index=len(label), source=source))
        sink.close()
        lines = [line.split() for line in out.getvalue().replace("\r", "").splitlines()]
        assert [line[0] for line in lines] == ["0.00", "corridor", "corridor", "ir0"]
        assert [line[4] for line in lines[1:]] == ["wave", "throw", "throw"]
        assert out.getvalue().count("\r") == len(breaks)


@pytest.mark.parametrize("where", ["label", "truth", "detail"])
def test_nothing_that_steers_a_terminal_is_shown(where):
    shown = describe(prediction(**{"truth": "clap", where: "\x1b]0;mine\x07\r\n\x9b2J\u202eevaw\ud800"}))
    assert shown.isprintable()
    assert r"\x1b]0;mine\x07\r\n\x9b2J\u202eevaw\ud800" in shown


@pytest.mark.parametrize(
    ("confidence", "bar"), [(float("nan"), 0), (float("inf"), 0), (1e9, 20), (-1.0, 0), (np.float32(0.5), 10)]
)
def test_a_confidence_that_is_none_is_shown_without_a_fault(confidence, bar):
    assert describe(prediction(confidence=confidence)).count("#") == bar


@pytest.mark.parametrize(
    ("reason", "detail", "shown"),
    [
        (Reason.DARK, "mean 0 below 7.91", "(dark: mean 0 below 7.91)"),
        (Reason.DARK, "dark: mean 0", "(dark: mean 0)"),
        (Reason.GAP, "", "(gap)"),
        (Reason.NONE, "slow", "(slow)"),
    ],
)
def test_the_reason_s_code_is_shown_once(reason, detail, shown):
    line = describe(prediction(state=LabelState.UNKNOWN, reason=reason, detail=detail))
    assert line.endswith(f"  {shown}")
    assert "(" not in describe(prediction())


def test_there_is_a_bar_only_where_there_is_a_label():
    assert "75% ###" in describe(prediction())
    unknown = describe(prediction(state=LabelState.UNKNOWN))
    assert " 75% " in unknown
    assert "#" not in unknown
