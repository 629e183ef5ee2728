"""From entering a stream to leaving it, including streams dropped while running or open when the process ends."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from typing import Protocol

log = logging.getLogger("kd_edge.runtime")

LEAVE_SECONDS = 2.0
"""How long iterating threads have to leave their streams when the process ends."""


class Stoppable(Protocol):
    """A stream."""

    def stop(self) -> None:
        """End the iteration soon."""
        ...

    def __exit__(self, kind: None, error: None, trace: None) -> None: ...


class Lifetime:
    """Whether a stream is entered: at most once at a time, and closed exactly once, by any thread.

    Args:
        stream: The stream. Nothing that it opens may refer to it, so that it closes when the last reference is dropped.

    Attributes:
        stop_asked: Whether the stream was asked to stop; reset when it is left.
    """

    def __init__(self, stream: Stoppable) -> None:
        self.stop_asked = False
        self._stream = weakref.ref(stream)
        self._opened = ExitStack()
        self._dropped: weakref.finalize[[ExitStack, int], Stoppable] | None = None
        self._leaving = threading.RLock()
        self._left = threading.Event()
        self._left.set()
        self._is_new = True
        self._thread = threading.current_thread()

    def enter(self, open_all: Callable[[], ExitStack]) -> None:
        """Open everything and make sure that it gets closed.

        Raises:
            RuntimeError: The stream is already entered.
        """
        with self._leaving:
            if not self._left.is_set():
                raise RuntimeError("this stream is already entered: leave it first, or create another one")
            self._left.clear()
        self.taken_up()
        _lives.add(self)
        try:
            self._opened = open_all()
        except BaseException:
            self._left.set()
            raise
        self._dropped = weakref.finalize(self._stream(), _close_dropped, self._opened, os.getpid())  # type: ignore[arg-type]
        self._dropped.atexit = False

    def taken_up(self) -> None:
        """Note that the current thread iterates."""
        self._thread = threading.current_thread()

    @property
    def goes_on(self) -> bool:
        """Whether the stream is entered and was not asked to stop."""
        return not (self.stop_asked or self._left.is_set())

    def leave(self) -> None:
        """Close everything; a concurrent call waits until the first is done."""
        self.stop_asked = True  # ends the iteration in another thread
        with self._leaving:
            try:
                self._opened.close()
            finally:
                if self._dropped is not None:
                    self._dropped.detach()
                self._left.set()
                self.stop_asked = self._is_new = False

    def ask_to_stop(self) -> None:
        """End the iteration of a stream that is entered, being entered or not yet entered; no effect after that."""
        if self._is_new or not self._left.is_set():
            self.stop_asked = True

    def stop(self) -> None:
        """Ask the stream to stop, if it still exists and is entered."""
        stream = self._stream()
        if stream is not None and not self._left.is_set():
            stream.stop()

    def end(self, timeout_seconds: float) -> None:
        """Wait until the iterating thread has left the stream; after the time-out, or if it is this one: leave here."""
        if self._thread is not threading.current_thread() and self._thread.is_alive():
            self._left.wait(timeout_seconds)
        if not self._left.is_set():
            self.leave()


_lives: weakref.WeakSet[Lifetime] = weakref.WeakSet()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_lives.clear)  # they and their threads belong to the parent


@atexit.register
def _end_all() -> None:
    """Leave all streams: a daemon thread returning from native code into an ended interpreter aborts the process."""
    lives = tuple(_lives)
    for each in lives:
        each.stop()
    until = time.monotonic() + LEAVE_SECONDS
    for each in lives:
        try:
            each.end(max(0.0, until - time.monotonic()))
        except Exception:  # close the others nevertheless
            log.exception("a stream could not be closed")


def _close_dropped(opened: ExitStack, opener: int) -> None:
    """Close what a dropped stream had opened, in a separate thread, so that dropping it does not block.

    Does nothing in a forked child, where it belongs to the parent.
    """
    if os.getpid() != opener:
        return
    log.warning("a stream was dropped while it ran; leave its with block, or stop() it and leave")
    threading.Thread(target=opened.close, name="kd-edge closing").start()
