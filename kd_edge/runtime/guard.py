"""One push at a time, and none once the process ends."""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from weakref import WeakSet

from kd_edge.errors import EngineError

LONGEST_STEP_SECONDS = 2.0
"""So long a push of another thread is waited for by whoever closes its engine, or ends the process."""


class PushGuard:
    """Lets one thread push at a time: windows and arrays of two pushes at once would be mixed, and labels wrong.

    Raises:
        EngineError: On entering: another thread is inside.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner: int | None = None  # the thread that is inside
        self._left: deque[Callable[[], None]] = deque(maxlen=1)  # what it is to do when it comes out
        self._is_shut = False
        _GUARDS.add(self)

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            self._refuse()
        self._owner = threading.get_ident()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._do_left()  # still inside: whoever waits for the lock finds it done
        finally:
            self._owner = None
            self._lock.release()
        if self._left and self._lock.acquire(blocking=False):  # a signal's handler left it on the way out
            self._do_left_and_release()

    def _refuse(self) -> None:
        if _process_ends.is_set():
            if threading.current_thread().daemon:
                self._lock.acquire()  # for ever: the thread ends with the process, and disturbs nothing until then
            raise EngineError("a push while the process ends", "one before", "stop and join what pushes at the end")
        raise EngineError(
            "a push while another thread pushes",
            "one thread at a time for a recogniser",
            "load one for each thread, or push_many() the frames of several cameras from one thread",
        )

    def once_free(self, close: Callable[[], None]) -> None:
        """Close an engine that nothing pushes to any more, and never under a push; takes bounded time.

        A push that is under way is waited for. Where it takes longer, as one that opens another engine does, or is this
        thread's own, interrupted by a signal, it closes when it comes out: whatever its engine is by then.

        Args:
            close: Called once; no push may begin after it.
        """
        if self._is_shut:
            close()
            return
        self._left.append(close)
        is_own = self._owner == threading.get_ident()
        if not is_own and self._lock.acquire(timeout=LONGEST_STEP_SECONDS):
            self._do_left_and_release()

    def _do_left(self) -> None:
        """Do what was left to whoever holds the lock."""
        if self._left:
            self._left.pop()()

    def _do_left_and_release(self) -> None:
        try:
            self._do_left()
        finally:
            self._lock.release()

    def shut(self, timeout_seconds: float) -> None:
        """Let nobody in any more."""
        self._is_shut = self._lock.acquire(timeout=timeout_seconds)


_GUARDS: WeakSet[PushGuard] = WeakSet()
_process_ends = threading.Event()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_GUARDS.clear)  # who pushes in the parent pushes on there


@atexit.register
def _shut_all() -> None:
    """A daemon thread that comes out of native code into an interpreter that has ended aborts the process."""
    _process_ends.set()
    until = time.monotonic() + LONGEST_STEP_SECONDS
    for guard in tuple(_GUARDS):
        guard.shut(max(0.0, until - time.monotonic()))
