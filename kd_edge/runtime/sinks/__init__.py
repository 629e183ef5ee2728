"""Where labels go: each sink behind a queue of its own, so that a slow or dead one never delays a label."""

from __future__ import annotations

from kd_edge.runtime.sinks.asked import sink_threads, sinks_asked
from kd_edge.runtime.sinks.base import Sink, SinkState, SinkThread, close_together, none_left
from kd_edge.runtime.sinks.jsonl import JsonlSink, JsonlStream
from kd_edge.runtime.sinks.named import open_sink
from kd_edge.runtime.sinks.terminal import TerminalSink

__all__ = [
    "JsonlSink",
    "JsonlStream",
    "Sink",
    "SinkState",
    "SinkThread",
    "TerminalSink",
    "close_together",
    "none_left",
    "open_sink",
    "sink_threads",
    "sinks_asked",
]
