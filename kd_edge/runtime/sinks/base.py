"""What a sink is, and the thread that keeps it away from the labels."""

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
"""A sink that takes nothing for so long is broken: a memory card that erases or a network drive that reconnects stalls
for seconds; giving up costs the rest of a recording, while waiting costs nobody anything."""
DRAIN_SECONDS = 1.0
"""How long closing waits for a live sink to write what is queued."""
FIRST_RETRY_SECONDS = 0.1
LONGEST_RETRY_SECONDS = 5.0
SETTLED_SECONDS = 10.0
"""A sink that breaks sooner after it came back has not recovered: waits for it go on doubling."""


class Sink(Protocol):
    """Takes predictions; used by one thread only.

    A sink of one's own needs no more than this; with an attribute ``reopens = False`` its first fault is its last.
    """

    @property
    def name(self) -> str:
        """For messages, usually its URI; a plain attribute will do."""
        ...

    def open(self) -> None:
        """Open it, or open it again after ``close``.

        Raises:
            KdEdgeError: It is not what was meant: a stream does not start with it.
            OSError: It is not there yet (a broker, a reader, room on the disk): a live stream starts without it.
        """
        ...

    def write(self, prediction: Prediction) -> None:
        """Take one prediction; after any exception the sink is closed, and opened again where that is possible."""
        ...

    def close(self) -> None:
        """Flush and release it; a second call does nothing."""
        ...


class SinkState(str, enum.Enum):
    """Whether labels arrive."""

    WORKING = "working"
    """It takes labels."""
    DOWN = "down"
    """It is broken and opened again with back-off, or it hangs; its labels are dropped meanwhile."""
    DEAD = "dead"
    """It cannot come back: standard output that nobody reads, or a recording's sink that has lost a label."""

    def __str__(self) -> str:
        return self.value


class SinkThread:
    """A sink behind a bounded queue that drops the oldest prediction when it is full.

    Args:
        sink: What to write to.
        lossless: Wait for room instead of dropping, and stop at the first fault: for recordings, where every label
            counts and no robot waits.
        clock: Says how long a sink has worked or hung.
        number: Which one it is of those of its name.

    Attributes:
        name: The sink's, as it can be printed, with its number from the second one on.
        state: Whether labels arrive.
        fault: What is wrong now, one line; None while it works.
        dropped: Predictions that were never written.
        reopened: How often it came back.
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
        """Open the sink here, so that the caller learns about a wrong path, then start writing.

        A live stream starts without a sink that is not there yet; it is opened as soon as it is.

        Raises:
            KdEdgeError: It is not what was meant, or it must be there and is not.
        """
        try:
            self.sink.open()
            self._open = True
        except KdEdgeError:
            raise
        except Exception as error:
            if not (self._reopens and isinstance(error, OSError)):
                raise SinkError(
                    f"sink {self.name} cannot be opened ({_words(error)})", "one that takes labels", "correct the sink"
                ) from error
            self._broke(error)
        self._thread.start()

    def put(self, prediction: Prediction) -> None:
        """Queue a prediction; never waits for the sink, unless it is lossless."""
        with self._changed:
            is_news = self._is_stuck() and self._note(_stuck(), SinkState.DEAD if self._lossless else SinkState.DOWN)
            self._take(prediction)
            self._changed.notify_all()
        if is_news:
            self._tell()

    def check(self) -> None:
        """Make sure that a recording's labels arrive; to be asked after every ``put`` and after ``close``.

        Raises:
            SinkError: A lossless sink has broken.
        """
        if self._lossless and self.fault is not None:
            raise SinkError(
                f"sink {self.name} stopped: {self.fault}",
                "one that takes every label of a recording",
                "mend or replace the sink and label the recording again",
            )

    def ask_to_close(self) -> None:
        """Write what is queued and close; ``close`` waits for that."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def close(self, timeout_seconds: float | None = None) -> None:
        """Write what is queued and close: a live sink within bounded time, a lossless one as long as it goes on.

        Args:
            timeout_seconds: How long to wait for a live one; None: ``DRAIN_SECONDS``.
        """
        if self._thread.ident is None:  # it was never open
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
            except BaseException as error:  # whatever breaks a sink, the labels and the other sinks go on
                self._broke(error, lost=1)
            else:
                self._wrote()
        if self._open:
            try:
                self.sink.close()
            except Exception as error:  # what was written last is not there
                self._broke(error)
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _can_write(self) -> bool:
        """Wait until the sink is open; False where it will not be again."""
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
        """Note a written label, which is also what says that a reopened sink works."""
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
        """Note what broke the sink and release it; where it can come back, that is tried next."""
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
        """Keep what is wrong and drop what is queued; whether the state is another than before. The lock is held."""
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
        """Queue a prediction, or drop the one that has no room; the lock is held."""
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
        """Whether a full queue has not moved for too long; for a lossless sink this waits. The lock is held."""
        if self._lossless:
            return not self._changed.wait_for(self._has_room, STUCK_SECONDS)
        return not self._has_room() and self._clock.now_ns() - self._moved_ns >= STUCK_SECONDS * 1e9

    def _has_room(self) -> bool:
        return len(self._queue) < QUEUE_LENGTH or self.state is SinkState.DEAD

    def _has_ended(self, timeout_seconds: float) -> bool:
        """Wait for the thread to end, a lossless one as long as it goes on; the lock is held."""
        if not self._lossless or self.state is SinkState.DEAD:
            return self._changed.wait_for(lambda: self._ended, timeout_seconds)
        while self._changed.wait_for(self._moves_on_from(self._written), STUCK_SECONDS):
            if self._ended:
                return True
        return False

    def _moves_on_from(self, written: int) -> Callable[[], bool]:
        return lambda: self._ended or self._written > written


def close_together(sinks: Sequence[SinkThread]) -> None:
    """Close several; live ones that hang take the time of one."""
    for sink in sinks:
        sink.ask_to_close()
    until = time.monotonic() + DRAIN_SECONDS
    for sink in sinks:
        sink.close(max(0.0, until - time.monotonic()))


def none_left(sinks: Sequence[SinkThread]) -> bool:
    """Whether there were sinks and all of them are dead: nobody will see another label."""
    return bool(sinks) and all(sink.state is SinkState.DEAD for sink in sinks)


def _stuck() -> str:
    return f"it took nothing for {STUCK_SECONDS:.0f} s"


def _words(error: BaseException) -> str:
    """What an error says, without the advice for whoever typed the command; a mistake in a program with its kind."""
    if isinstance(error, KdEdgeError):
        return printable(error.found)
    if isinstance(error, OSError):
        return printable(error.strerror or reason(error))
    kind, text = type(error).__name__, reason(error)
    return printable(kind if text == kind else f"{kind}: {text}")
