"""The sink interface, and the thread that decouples a sink from the labels."""

from __future__ import annotations

import enum
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

from kd_edge.errors import KdEdgeError, SinkError, printable, reason
from kd_edge.runtime.backoff import Backoff
from kd_edge.runtime.clock import MONOTONIC, Clock
from kd_edge.runtime.scheduling import at_ease
from kd_edge.types import Prediction

log = logging.getLogger("kd_edge.runtime")

QUEUE_LENGTH = 64
STUCK_SECONDS = 30.0
"""A sink that accepts nothing for this long counts as broken. An erasing memory card or a reconnecting network drive
stalls for seconds; giving up early would cost the rest of a recording, waiting costs nothing."""
DRAIN_SECONDS = 1.0
"""How long closing waits for a live sink to write what is queued."""
FIRST_RETRY_SECONDS = 0.1
LONGEST_RETRY_SECONDS = 5.0
SETTLED_SECONDS = 10.0
"""A sink that breaks sooner than this after a reopening has not recovered: its back-off keeps doubling."""


class Sink(Protocol):
    """Takes predictions; used by one thread only.

    A custom sink needs no more than this. With an attribute ``reopens = False`` it is not reopened after a fault.
    """

    @property
    def name(self) -> str:
        """Name for messages, usually the URI; may be a plain attribute."""
        ...

    def open(self) -> None:
        """Open the sink, or reopen it after ``close``.

        Raises:
            KdEdgeError: It is misconfigured: the stream does not start.
            OSError: It is not available yet (broker, reader, disk space): a live stream starts without it.
        """
        ...

    def write(self, prediction: Prediction) -> None:
        """Write one prediction; after any exception the sink is closed, and reopened if possible."""
        ...

    def close(self) -> None:
        """Flush and release resources; a second call does nothing."""
        ...


class SinkState(str, enum.Enum):
    """Whether a sink accepts labels."""

    WORKING = "working"
    """It accepts labels."""
    DOWN = "down"
    """It failed and is being reopened with back-off, or it hangs; its labels are dropped."""
    DEAD = "dead"
    """It will not be reopened: standard output without a reader, or a recording's sink that lost a label."""

    def __str__(self) -> str:
        return self.value


class SinkThread:
    """A sink behind a bounded queue that drops the oldest prediction when it is full.

    Args:
        sink: The sink.
        lossless: Wait for room instead of dropping, and stop at the first fault: for recordings, where every label
            counts and no robot waits.
        clock: Measures how long a sink has worked or hung.
        number: Number among sinks of the same name.

    Attributes:
        name: Printable name of the sink, with its number from the second one on.
        state: Whether it accepts labels.
        fault: Current fault, in one line; None while it works.
        dropped: Predictions that were never written.
        reopened: How often it was reopened.
    """

    def __init__(self, sink: Sink, *, lossless: bool = False, clock: Clock = MONOTONIC, number: int = 1) -> None:
        self.sink = sink
        self.name = printable(sink.name) + (f" ({number})" if number > 1 else "")
        self.state = SinkState.WORKING
        self.fault: str | None = None
        self.dropped = self.reopened = 0
        self._lossless = lossless
        self._reopens = not lossless and getattr(sink, "reopens", True)
        self._clock = clock
        self._backoff = Backoff(clock, FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS, SETTLED_SECONDS)
        self._queue: deque[Prediction] = deque()
        self._changed = threading.Condition()
        self._open = self._closing = self._ended = False
        self._written, self._moved_ns = 0, clock.now_ns()
        self._thread = threading.Thread(target=self._run, name=f"kd-edge sink {self.name}", daemon=True)

    def open(self) -> None:
        """Open the sink in this thread, so that the caller learns about a wrong path, then start writing.

        A live stream starts without a sink that is not available yet, and opens it later.

        Raises:
            KdEdgeError: The sink is misconfigured, or must be available and is not.
        """
        try:
            self.sink.open()
            self._open = True
        except KdEdgeError:
            raise
        except Exception as error:
            if not (self._reopens and isinstance(error, OSError)):
                raise SinkError(
                    f"sink {self.name} cannot be opened ({_words(error)})",
                    "a sink that accepts labels",
                    "correct the sink",
                ) from error
            self._broke(error)
        self._thread.start()

    def put(self, prediction: Prediction) -> None:
        """Queue a prediction; waits for the sink only if it is lossless."""
        with self._changed:
            is_news = self._is_stuck() and self._note(_stuck(), SinkState.DEAD if self._lossless else SinkState.DOWN)
            self._take(prediction)
            self._changed.notify_all()
        if is_news:
            self._tell()

    def check(self) -> None:
        """Check that no label of a recording was lost; to be called after every ``put`` and after ``close``.

        Raises:
            SinkError: A lossless sink has broken.
        """
        if self._lossless and self.fault is not None:
            raise SinkError(
                f"sink {self.name} stopped: {self.fault}",
                "a sink that accepts every label of a recording",
                "fix or replace the sink and label the recording again",
            )

    def ask_to_close(self) -> None:
        """Start to write queued predictions and close; ``close`` waits for the end."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def close(self, timeout_seconds: float | None = None) -> None:
        """Write queued predictions and close: a live sink within bounded time, a lossless one as long as it progresses.

        Args:
            timeout_seconds: How long to wait for a live one; None: ``DRAIN_SECONDS``.
        """
        if self._thread.ident is None:  # never opened
            return
        self.ask_to_close()
        with self._changed:
            has_ended = self._has_ended(DRAIN_SECONDS if timeout_seconds is None else timeout_seconds)
            is_news = not has_ended and self._lossless and self._note(_stuck(), SinkState.DEAD)
            self._drop_queued()
        if has_ended:
            self._thread.join()
        elif is_news:
            self._tell()
        elif not self._lossless:
            log.warning("sink %s does not take what is queued; it is left behind", self.name)

    def _run(self) -> None:
        at_ease()
        while self._can_write() and (prediction := self._next()) is not None:
            try:
                self.sink.write(prediction)
            except BaseException as error:  # labels and other sinks go on whatever a sink raises
                self._broke(error, lost=1)
            else:
                self._wrote()
        if self._open:
            try:
                self.sink.close()
            except Exception as error:  # the last labels may not have been written
                self._broke(error)
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _can_write(self) -> bool:
        """Wait until the sink is open; returns False if it will never be."""
        while not self._open:
            if self.state is SinkState.DEAD or self._closes_within(self._backoff.next_seconds()):
                return False
            try:
                self.sink.open()
            except Exception as error:
                self._broke(error)
            else:
                self._open = True
        return True

    def _closes_within(self, seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._closing, seconds)

    def _next(self) -> Prediction | None:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing or self.state is SinkState.DEAD)
            self._moved_ns = self._clock.now_ns()
            prediction = self._queue.popleft() if self._queue else None
            self._changed.notify_all()
            return prediction

    def _wrote(self) -> None:
        """Note a written label; it also shows that a reopened sink works."""
        with self._changed:
            self._written += 1
            self._changed.notify_all()
            if self.state is not SinkState.DOWN:
                return
            self.state, self.fault = SinkState.WORKING, None
            self.reopened += 1
            self._backoff.came_back()
        log.warning("sink %s is back; %d labels were dropped up to now", self.name, self.dropped)

    def _broke(self, error: BaseException, lost: int = 0) -> None:
        """Note a fault and release the sink; it is reopened next, if possible."""
        with self._changed:
            self._open = False
            self.dropped += lost
            is_news = self._note(_words(error), SinkState.DOWN if self._comes_back() else SinkState.DEAD)
        if is_news:
            self._tell()
            log.debug("sink %s broke here:", self.name, exc_info=error)
        with suppress(Exception):
            self.sink.close()

    def _comes_back(self) -> bool:
        return self._reopens and not self._closing

    def _note(self, fault: str, state: SinkState) -> bool:
        """Set fault and state and drop the queue; returns whether the state changed. Requires the lock."""
        is_news = self.state is not state and self.state is not SinkState.DEAD
        if self.state is not SinkState.DEAD:
            self.state, self.fault = state, fault
        self._drop_queued()
        self._changed.notify_all()
        return is_news

    def _tell(self) -> None:
        if self.state is SinkState.DEAD:
            log.warning("sink %s stopped: %s", self.name, self.fault)
        else:
            log.warning("sink %s is down: %s; labels go on without it until it is back", self.name, self.fault)

    def _take(self, prediction: Prediction) -> None:
        """Queue a prediction, dropping the oldest one if there is no room. Requires the lock."""
        if not self._open or self._closing or self.state is SinkState.DEAD:
            self.dropped += 1
            return
        if len(self._queue) == QUEUE_LENGTH:
            self._queue.popleft()
            self.dropped += 1
        self._queue.append(prediction)

    def _drop_queued(self) -> None:
        self.dropped += len(self._queue)
        self._queue.clear()

    def _is_stuck(self) -> bool:
        """Whether a full queue has not moved for too long; waits, for a lossless sink. Requires the lock."""
        if self._lossless:
            return not self._changed.wait_for(self._has_room, STUCK_SECONDS)
        return not self._has_room() and self._clock.now_ns() - self._moved_ns >= STUCK_SECONDS * 1e9

    def _has_room(self) -> bool:
        return len(self._queue) < QUEUE_LENGTH or self.state is SinkState.DEAD

    def _has_ended(self, timeout_seconds: float) -> bool:
        """Wait for the thread to end; for a lossless sink, as long as it progresses. Requires the lock."""
        if not self._lossless or self.state is SinkState.DEAD:
            return self._changed.wait_for(lambda: self._ended, timeout_seconds)
        while self._changed.wait_for(self._moves_on_from(self._written), STUCK_SECONDS):
            if self._ended:
                return True
        return False

    def _moves_on_from(self, written: int) -> Callable[[], bool]:
        return lambda: self._ended or self._written > written


def close_together(sinks: Sequence[SinkThread]) -> None:
    """Close several sinks; hanging live ones take the time of one."""
    for sink in sinks:
        sink.ask_to_close()
    until = time.monotonic() + DRAIN_SECONDS
    for sink in sinks:
        sink.close(max(0.0, until - time.monotonic()))


def none_left(sinks: Sequence[SinkThread]) -> bool:
    """Whether there were sinks and all of them are dead, so that nobody will see another label."""
    return bool(sinks) and all(sink.state is SinkState.DEAD for sink in sinks)


def _stuck() -> str:
    return f"it took nothing for {STUCK_SECONDS:.0f} s"


def _words(error: BaseException) -> str:
    """The message of an error, without advice for the command line; a bug with its exception type."""
    if isinstance(error, KdEdgeError):
        return printable(error.found)
    if isinstance(error, OSError):
        return printable(error.strerror or reason(error))
    kind, text = type(error).__name__, reason(error)
    return printable(kind if text == kind else f"{kind}: {text}")
