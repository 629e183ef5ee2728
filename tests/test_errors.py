from __future__ import annotations

import pytest

from kd_edge.errors import (
    ConfigError,
    KdEdgeError,
    did_you_mean,
    is_bug,
    printable,
    reason,
)


def test_one_line_with_found_expected_and_fix() -> None:
    error = ConfigError("epochs is -3.", "a number from 1", "set epochs = 20")
    assert str(error) == "epochs is -3. Expected a number from 1. Fix: set epochs = 20"
    assert isinstance(error, KdEdgeError)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("wave, größe, 手を振る, \U0001f916, a\xa0b", None),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\x1b]0;title\x07\x1b[2J\x9b1m\x7f", r"\x1b]0;title\x07\x1b[2J\x9b1m\x7f"),
        ("\u202egnp.exe\u2066\u200b\ufeff\u2028", r"\u202egnp.exe\u2066\u200b\ufeff\u2028"),
        ("\ud800 \U000e0001", r"\ud800 \U000e0001"),
    ],
)
def test_nothing_that_steers_a_terminal_is_printed(text: str, shown: str | None) -> None:
    assert printable(text) == (text if shown is None else shown)
    assert str(ConfigError(text, "a", "b")) == f"{printable(text)}. Expected a. Fix: b"


class LibraryError(ValueError):
    """A library's own, as FFmpeg's ``InvalidDataError``."""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        *((error, True) for error in (KeyError("exposure"), TypeError(), ZeroDivisionError(), ValueError("shape"))),
        *((error, False) for error in (OSError(19, "gone"), RuntimeError("USB"), MemoryError(), LibraryError())),
        (ConfigError("a", "b", "c"), False),
    ],
)
def test_a_bug_is_of_a_kind_that_neither_devices_nor_libraries_raise(error: BaseException, expected: bool) -> None:
    assert is_bug(error) is expected


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("quikstart", " (did you mean 'quickstart'?)"),  # a typing error
        ("zzz", ""),  # nothing close
    ],
)
def test_did_you_mean(word: str, expected: str) -> None:
    assert did_you_mean(word, ["quickstart", "bundled"]) == expected


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("cut off", "cut off"),
        ("cut off\nat byte 7", "cut off"),
        ("", "EOFError"),
        (" \n\n", "EOFError"),
        ("\n  cut off  \n", "cut off"),
        ("Error(s) in loading state_dict for Clip:\n\tMissing key(s)\n\tsize mismatch", "Missing key(s)"),
        ("in the file:", "in the file:"),
    ],
)
def test_the_reason_is_one_line_whatever_the_message(message: str, line: str) -> None:
    assert reason(EOFError(message)) == line
