"""Signals that end a stream as cleanly as Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_TERMINATION = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]


@contextmanager
def interrupt_on_termination() -> Iterator[None]:
    """Treat SIGTERM and SIGHUP like Ctrl-C inside the block, so that a service stops cleanly.

    A signal that is ignored (``nohup``) stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {n: signal.signal(n, interrupt) for n in _TERMINATION if signal.getsignal(n) != signal.SIG_IGN}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_termination() -> dict[int, Any]:
    """Ignore Ctrl-C, SIGTERM and SIGHUP from now on, in a program that is ending; no effect outside its main thread.

    Returns:
        The handlers until now, by number.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, *_TERMINATION)}


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ignore these signals inside the block, so that a shutdown completes, each step within its time-out."""
    before = ignore_termination()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
