"""Labels for people: one updating line on a terminal, one line per change elsewhere."""

from __future__ import annotations

import io
import math
from typing import TextIO

from kd_edge.errors import printable
from kd_edge.runtime.sinks.standard import Standard
from kd_edge.types import LabelState, Prediction

_BAR = 20
_LONGEST_NAME = 24  # longer names are shown in full


class TerminalSink:
    """Writes to a text stream.

    Args:
        stream: On a terminal, one line is rewritten, and a new line is started when the label changes; on a pipe or
            file, or with several cameras, a line is written only when label or state change. None if standard output
            was closed before the program started.
    """

    name = "terminal:"
    reopens = False

    def __init__(self, stream: TextIO | io.TextIOBase | None) -> None:
        self._output = Standard(self.name, stream)
        self._tty = False
        self._shown: dict[str, tuple[LabelState, int, bool | None, str]] = {}  # by camera
        self._first = ""  # the line of the first camera, which was shown without its name
        self._width = self._origin_ns = 0

    def open(self) -> None:
        """Find out whether the stream is a terminal.

        Raises:
            ConfigError: Standard output is closed.
        """
        self._tty = self._output.open().isatty()

    def write(self, prediction: Prediction) -> None:
        """Show one prediction."""
        right = None if prediction.truth is None else prediction.label == prediction.truth
        why = prediction.reason.value if prediction.state is LabelState.STALE else ""
        shown = (prediction.state, prediction.index if prediction.label else -1, right, why)
        changed, is_first = shown != self._shown.get(prediction.source), not self._shown
        self._shown[prediction.source] = shown
        self._origin_ns = prediction.captured_ns if is_first else self._origin_ns
        several, line = len(self._shown) > 1, describe(prediction, self._origin_ns)
        if several:
            self._name_first()
            line = self._named(prediction.source) + line
        else:
            self._first = line
        if self._tty and not (several and not changed):
            self._rewrite(line, changed and not is_first)
        elif changed and not self._tty:
            self._output.write(line + "\n")
        else:
            self._output.check()

    def _name_first(self) -> None:
        """Once there are several cameras, repeat the first one's line with its name."""
        if self._first:
            line = self._named(next(iter(self._shown))) + self._first
            self._output.write(f"\n{line}" if self._tty else f"{line}\n")
        self._first = ""

    def _named(self, source: str) -> str:
        """The column of the cameras' names."""
        width = min(max(len(printable(name)) for name in self._shown), _LONGEST_NAME)
        return f"{printable(source):{width}}  "

    def _rewrite(self, line: str, anew: bool) -> None:
        self._output.write(("\n" if anew else "\r") + line.ljust(0 if anew else self._width))
        self._width = len(line)

    def close(self) -> None:
        """End the line."""
        if self._tty and self._shown:
            self._shown, self._first = {}, ""
            self._output.write("\n")


def describe(prediction: Prediction, origin_ns: int = 0) -> str:
    """One line: time, state, label with confidence, truth if known, reason; free of control characters.

    Args:
        prediction: The prediction.
        origin_ns: Time shown as 0 s.
    """
    seconds = max(0.0, (prediction.captured_ns - origin_ns) / 1e9)  # another camera's first frame may be earlier
    parts = [f"{seconds:10.2f} s", f"{prediction.state.value:8}"]
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
    """Code and text of the reason; only the text if it starts with the code."""
    code, detail = prediction.reason.value, prediction.detail
    return detail if detail.startswith(code) else ": ".join(part for part in (code, detail) if part)


def _bar(share: float) -> str:
    return "#" * round(_BAR * min(max(share, 0.0), 1.0)) if math.isfinite(share) else ""
