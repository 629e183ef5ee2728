"""The sink that a URI names."""

from __future__ import annotations

import io
import sys
from contextlib import suppress
from typing import TextIO

from kd_edge.errors import ConfigError, did_you_mean
from kd_edge.runtime.clock import MONOTONIC, Clock
from kd_edge.runtime.sinks.base import Sink
from kd_edge.runtime.sinks.jsonl import JsonlSink, JsonlStream
from kd_edge.runtime.sinks.terminal import TerminalSink
from kd_edge.runtime.uri import parse

SCHEMES = ("terminal", "jsonl")


def open_sink(uri: str, stdout: TextIO | io.TextIOBase | None = None, clock: Clock = MONOTONIC) -> Sink:
    """Make the sink a URI names: ``terminal:`` or ``jsonl:PATH[?max_mb=N]`` (``-`` is standard output); not yet opened.

    Args:
        uri: Where predictions go.
        stdout: Stands for standard output.
        clock: Says when to look whether a file was moved away.

    Raises:
        ConfigError: Unknown kind, a missing path, or a bound that is no positive number.
    """
    scheme, target, query = parse(uri)
    stream = sys.stdout if stdout is None else stdout
    if scheme == "terminal":
        return TerminalSink(stream)
    if scheme == "jsonl" and target:
        max_mb = _max_mb(uri, query)
        return JsonlStream(stream) if target == "-" else JsonlSink(target, max_mb, clock)
    raise ConfigError(f"sink '{uri}'{_hint(uri, scheme)}", "terminal:, jsonl:PATH or jsonl:-", "correct --sink")


def _hint(uri: str, scheme: str) -> str:
    """What a faulty URI lacks or was meant to be."""
    if scheme == "jsonl":
        return " without a path"
    if scheme:
        return did_you_mean(scheme, SCHEMES)
    is_path = "/" in uri or "." in uri
    return f" (did you mean 'jsonl:{uri}'?)" if is_path else did_you_mean(f"{uri}:", [f"{s}:" for s in SCHEMES])


def _max_mb(uri: str, query: dict[str, str]) -> float | None:
    if not query:
        return None
    with suppress(KeyError, ValueError):
        if len(query) == 1 and 0 < float(query["max_mb"]) < float("inf"):
            return float(query["max_mb"])
    raise ConfigError(f"sink '{uri}'", "jsonl:PATH?max_mb=N with N above 0", "correct --sink")
