"""Creates the threads of the sinks given as ``sinks=``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from kd_edge.errors import ConfigError
from kd_edge.runtime.clock import Clock
from kd_edge.runtime.sinks.base import Sink, SinkThread
from kd_edge.runtime.sinks.jsonl import JsonlSink
from kd_edge.runtime.sinks.named import open_sink

METHODS = ("open", "write", "close")


def sinks_asked(sinks: object) -> tuple[str | Path | Sink, ...]:
    """One or several sinks, as a tuple.

    Raises:
        ConfigError: An object that is not a sink.
    """
    asked = tuple(sinks) if isinstance(sinks, (list, tuple)) else (sinks,)
    for sink in asked:
        if not isinstance(sink, (str, Path)):
            _check_is_sink(sink)
    return asked


def _check_is_sink(sink: object) -> None:
    is_class = isinstance(sink, type)
    lacks = [name for name in METHODS if not callable(getattr(sink, name, None))]
    if not isinstance(getattr(sink, "name", None), str):
        lacks.insert(0, "name")
    if not lacks and not is_class:
        return
    lacking = f" without {', '.join(lacks)}" if lacks else ", which is a class"
    raise ConfigError(
        f"sink {sink!r:.60}{lacking}",
        "a URI, a Path of a file for JSON lines, an object with all that kd_edge.runtime.sinks.Sink lists, or a list "
        "of these",
        f"make one: {sink.__name__}()" if isinstance(sink, type) and not lacks else "correct it",
    )


def sink_threads(asked: Sequence[str | Path | Sink], *, lossless: bool, clock: Clock) -> list[SinkThread]:
    """A thread for each sink, not open yet; sinks of the same name are numbered.

    Args:
        asked: See ``sinks_asked``.
        lossless: See ``SinkThread``.
        clock: See ``SinkThread``.

    Raises:
        ConfigError: An invalid URI.
    """
    names: Counter[str] = Counter()
    threads = []
    for wish in asked:
        sink = _made(wish, clock)
        names[sink.name] += 1
        threads.append(SinkThread(sink, lossless=lossless, clock=clock, number=names[sink.name]))
    return threads


def _made(wish: str | Path | Sink, clock: Clock) -> Sink:
    if isinstance(wish, Path):
        return JsonlSink(str(wish), clock=clock)
    return open_sink(wish, clock=clock) if isinstance(wish, str) else wish
