"""Where labels go: each sink behind a queue of its own, so that a slow or dead one never delays a label."""

from __future__ import annotations

import io
import sys
from typing import TextIO

from kd_edge.errors import ConfigError, did_you_mean
from kd_edge.runtime.sinks.base import Sink, SinkThread
from kd_edge.runtime.sinks.jsonl import JsonlSink
from kd_edge.runtime.sinks.terminal import TerminalSink

__all__ = ["JsonlSink", "Sink", "SinkThread", "TerminalSink", "open_sink"]

SCHEMES = ("terminal", "jsonl")


def open_sink(uri: str, stdout: TextIO | io.TextIOBase | None = None) -> Sink:
    """Make the sink a URI names: ``terminal:`` or ``jsonl:PATH`` (``-`` is standard output). It is not opened yet.

    Args:
        uri: Of the sink.
        stdout: Stands for standard output.

    Raises:
        ConfigError: Unknown kind, or a missing path.
    """
    scheme, colon, target = uri.partition(":")
    stream = sys.stdout if stdout is None else stdout
    if colon and scheme == "terminal":
        return TerminalSink(stream)
    if colon and scheme == "jsonl" and target:
        return JsonlSink(target, stream)
    raise ConfigError(
        f"sink '{uri}'{did_you_mean(scheme, SCHEMES)}", "terminal:, jsonl:PATH or jsonl:-", "correct --sink"
    )
