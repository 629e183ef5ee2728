"""One push at a time, and none while the process ends."""

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
"""How long closing an engine, or ending the process, waits for a push of another thread."""


class PushGuard:
    """Lets one thread push at a time: concurrent pushes would mix windows and arrays, and give wrong labels.

    Raises:
        EngineError: On entering, if another thread is inside.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner: int | None = None  # the thread that is inside
        self._left: deque[Callable[[], None]] = deque(maxlen=1)  # to be called when it leaves
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
            self._do_left()  # while still holding the lock, so that waiting threads find it done
        finally:
            self._owner = None
            self._lock.release()
        if self._left and self._lock.acquire(blocking=False):  # left by a signal handler in between
            self._do_left_and_release()

    def _refuse(self) -> None:
        if _process_ends.is_set():
            if threading.current_thread().daemon:
                self._lock.acquire()  # blocks until the process ends, and the daemon thread with it
            raise EngineError(
                "a push while the process ends",
                "no push any more",
                "stop and join pushing threads before the program ends",
            )
        raise EngineError(
            "a push while another thread pushes",
            "one thread at a time for a recogniser",
            "load one for each thread, or push_many() the frames of several cameras from one thread",
        )

    def once_free(self, close: Callable[[], None]) -> None:
        """Close an engine, but never during a push; takes bounded time.

        Waits for a running push. If that takes too long (it may be opening another engine), or is this thread's own,
        interrupted by a signal, the push itself closes the engine in use when it ends.

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
        """Call what was left to the holder of the lock."""
        if self._left:
            self._left.pop()()

    def _do_left_and_release(self) -> None:
        try:
            self._do_left()
        finally:
            self._lock.release()

    def shut(self, timeout_seconds: float) -> None:
        """Admit no thread any more."""
        self._is_shut = self._lock.acquire(timeout=timeout_seconds)


_GUARDS: WeakSet[PushGuard] = WeakSet()
_process_ends = threading.Event()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_GUARDS.clear)  # pushes of the parent go on there


@atexit.register
def _shut_all() -> None:
    """Shut all guards: a daemon thread returning from native code into an ended interpreter aborts the process."""
    _process_ends.set()
    until = time.monotonic() + LONGEST_STEP_SECONDS
    for guard in tuple(_GUARDS):
        guard.shut(max(0.0, until - time.monotonic()))
