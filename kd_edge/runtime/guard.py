"""One push at a time, and none once the process ends."""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from weakref import WeakSet

from kd_edge.errors import EngineError

LONGEST_STEP_SECONDS = 2.0
"""So long a push of another thread is waited for before its engine is closed, or the process ends."""


class PushGuard:
    """Lets one thread push at a time: windows and arrays of two pushes at once would be mixed, and labels wrong.

    Raises:
        EngineError: On entering: another thread is inside.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_shut = False
        _GUARDS.add(self)

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            self._refuse()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

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

    @contextmanager
    def waited_for(self) -> Iterator[None]:
        """Keep pushes out, once the one that is under way has ended; one that hangs is waited for only so long."""
        is_held = not self._is_shut and self._lock.acquire(timeout=LONGEST_STEP_SECONDS)
        try:
            yield
        finally:
            if is_held:
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
