"""What a sink is, and the thread that keeps it away from the labels."""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import Protocol

from kd_edge.errors import reason
from kd_edge.types import Prediction

log = logging.getLogger("kd_edge.runtime")

QUEUE_LENGTH = 64
STUCK_SECONDS = 5.0
"""A sink of a recording that takes nothing for so long is broken."""
DRAIN_SECONDS = 1.0
"""How long closing waits for a sink to write what is queued."""


class Sink(Protocol):
    """Takes predictions; used by one thread only.

    Attributes:
        name: For messages, usually its URI.
    """

    name: str

    def open(self) -> None:
        """Open it.

        Raises:
            KdEdgeError: It cannot be written to.
        """
        ...

    def write(self, prediction: Prediction) -> None:
        """Take one prediction; any exception ends this sink."""
        ...

    def close(self) -> None:
        """Flush and release it."""
        ...


class SinkThread:
    """A sink behind a bounded queue that drops the oldest prediction when it is full.

    Args:
        sink: What to write to.
        lossless: Wait for room instead of dropping: for recordings, where every label counts and no robot waits.

    Attributes:
        dropped: Predictions that were never written.
        fault: What broke the sink, one line; None while it works.
    """

    def __init__(self, sink: Sink, *, lossless: bool = False) -> None:
        self.sink = sink
        self._lossless = lossless
        self.dropped = 0
        self.fault: str | None = None
        self._queue: deque[Prediction] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=f"kd-edge sink {sink.name}", daemon=True)

    def open(self) -> None:
        """Open the sink here, so that the caller learns about a wrong path, then start writing."""
        self.sink.open()
        self._thread.start()

    def put(self, prediction: Prediction) -> None:
        """Queue a prediction; never waits for the sink, unless it is lossless."""
        with self._changed:
            if self._lossless and not self._changed.wait_for(self._has_room, STUCK_SECONDS):
                self._fail(f"it took nothing for {STUCK_SECONDS:.0f} s")
            if self.fault is not None:
                return
            if len(self._queue) == QUEUE_LENGTH:
                self._queue.popleft()
                self.dropped += 1
            self._queue.append(prediction)
            self._changed.notify()

    def close(self) -> None:
        """Write what is queued and close, within bounded time."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(STUCK_SECONDS if self._lossless else DRAIN_SECONDS)
        if self._thread.is_alive():
            self.dropped += len(self._queue)
            log.warning("sink %s does not take what is queued; it is left behind", self.sink.name)

    def _run(self) -> None:
        try:
            while (prediction := self._next()) is not None:
                self.sink.write(prediction)
        except Exception as error:  # whatever breaks a sink, the labels and the other sinks go on
            self._break(error)
        try:
            self.sink.close()
        except Exception as error:
            self._break(error)

    def _next(self) -> Prediction | None:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing)
            prediction = self._queue.popleft() if self._queue else None
            self._changed.notify_all()
            return prediction

    def _has_room(self) -> bool:
        return len(self._queue) < QUEUE_LENGTH or self.fault is not None

    def _break(self, error: Exception) -> None:
        with self._changed:
            self._fail(getattr(error, "strerror", None) or reason(error))

    def _fail(self, fault: str) -> None:
        """Note what broke the sink, once; the lock is held."""
        if self.fault is not None:
            return
        self.fault = fault
        self.dropped += len(self._queue) + 1
        self._queue.clear()
        self._changed.notify_all()
        log.warning("sink %s stopped: %s; labels go on without it", self.sink.name, fault)
