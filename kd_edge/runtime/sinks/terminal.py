"""Labels for a person to read: one line that updates on a terminal, one line per change elsewhere."""

from __future__ import annotations

import io
import math
from typing import TextIO

from kd_edge.errors import printable
from kd_edge.runtime.sinks.standard import Standard
from kd_edge.types import LabelState, Prediction

_BAR = 20


class TerminalSink:
    """Writes to a text stream.

    Args:
        stream: A terminal gets one line that is rewritten, and a new line when the label changes; a pipe or file gets
            a line only when label or state change. None where standard output was closed before the program began.
    """

    name = "terminal:"
    reopens = False

    def __init__(self, stream: TextIO | io.TextIOBase | None) -> None:
        self._output = Standard(self.name, stream)
        self._tty = False
        self._shown: tuple[LabelState, int, bool | None] | None = None
        self._width = 0

    def open(self) -> None:
        """See whether a person is looking.

        Raises:
            ConfigError: Standard output is closed.
        """
        self._tty = self._output.open().isatty()

    def write(self, prediction: Prediction) -> None:
        """Show one prediction."""
        right = None if prediction.truth is None else prediction.label == prediction.truth
        shown = (prediction.state, prediction.index if prediction.label else -1, right)
        changed = shown != self._shown
        if self._tty:
            self._rewrite(describe(prediction), changed)
        elif changed:
            self._output.write(describe(prediction) + "\n")
        else:
            self._output.check()
        self._shown = shown

    def _rewrite(self, line: str, changed: bool) -> None:
        start = "\n" if changed and self._shown is not None else "\r"
        self._output.write(start + line.ljust(0 if start == "\n" else self._width))
        self._width = len(line)

    def close(self) -> None:
        """End the line."""
        if self._tty and self._shown is not None:
            self._shown = None
            self._output.write("\n")


def describe(prediction: Prediction) -> str:
    """One line: moment, state, label with confidence, truth where known, reason; nothing steers a terminal."""
    parts = [f"{prediction.captured_ns / 1e9:10.2f} s", f"{prediction.state.value:8}"]
    if prediction.index >= 0:
        label = printable(prediction.label or "-")
        bar = "" if prediction.label is None else _bar(prediction.confidence)
        parts.append(f"{label:24} {prediction.confidence:4.0%} {bar:{_BAR}}")
    if prediction.truth is not None and prediction.label is not None:
        right = prediction.label == prediction.truth
        parts.append("right" if right else f"truth: {printable(prediction.truth)}")
    if cause := _cause(prediction):
        parts.append(f"({printable(cause)})")
    return "  ".join(parts).rstrip()


def _cause(prediction: Prediction) -> str:
    """Code and words; the words alone where they begin with the code."""
    code, detail = prediction.reason.value, prediction.detail
    return detail if detail.startswith(code) else ": ".join(part for part in (code, detail) if part)


def _bar(share: float) -> str:
    return "#" * round(_BAR * min(max(share, 0.0), 1.0)) if math.isfinite(share) else ""
