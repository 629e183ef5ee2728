"""Labels for a person to read: one line that updates on a terminal, one line per change elsewhere."""

from __future__ import annotations

import io
from typing import TextIO

from kd_edge.types import LabelState, Prediction

_BAR = 20


class TerminalSink:
    """Writes to a text stream.

    Args:
        stream: A terminal gets one line that is rewritten, and a new line when the label changes; a pipe or file gets
            a line only when label or state change.
    """

    name = "terminal:"

    def __init__(self, stream: TextIO | io.TextIOBase) -> None:
        self._stream = stream
        self._tty = False
        self._shown: tuple[LabelState, int, bool | None] | None = None
        self._width = 0

    def open(self) -> None:
        """See whether a person is looking."""
        self._tty = self._stream.isatty()

    def write(self, prediction: Prediction) -> None:
        """Show one prediction."""
        right = None if prediction.truth is None else prediction.label == prediction.truth
        shown = (prediction.state, prediction.index if prediction.label else -1, right)
        changed = shown != self._shown
        if not self._tty:
            if changed:
                self._stream.write(describe(prediction) + "\n")
                self._stream.flush()
        else:
            line = describe(prediction)
            start = "\n" if changed and self._shown is not None else "\r"
            self._stream.write(start + line.ljust(0 if start == "\n" else self._width))
            self._stream.flush()
            self._width = len(line)
        self._shown = shown

    def close(self) -> None:
        """End the line."""
        if self._tty and self._shown is not None:
            self._stream.write("\n")
            self._stream.flush()


def describe(prediction: Prediction) -> str:
    """One line: moment, state, label with confidence, truth where known, what is wrong."""
    bar = "#" * round(_BAR * prediction.confidence)
    parts = [f"{prediction.captured_ns / 1e9:10.2f} s", f"{prediction.state.value:8}"]
    if prediction.index >= 0:
        parts.append(f"{prediction.label or '-':24} {prediction.confidence:4.0%} {bar:{_BAR}}")
    if prediction.truth is not None and prediction.label is not None:
        parts.append("right" if prediction.label == prediction.truth else f"truth: {prediction.truth}")
    if prediction.detail:
        parts.append(f"({prediction.detail})")
    return "  ".join(parts).rstrip()
