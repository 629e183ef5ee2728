"""Signals that end a stream as cleanly as a person does."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupt_on_termination(*, once: bool = False) -> Iterator[None]:
    """Treat SIGTERM and SIGHUP like Ctrl-C inside the block, so that a service stops as cleanly as a person stops it.

    A signal that is ignored (``nohup``) stays ignored.

    Args:
        once: Whether the first signal is the last that counts, so that an impatient second one (Ctrl-C, too) does not
            break off the clean-up, which must end by itself in bounded time.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        if once:
            for each in before:
                signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    numbers = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    numbers += [signal.SIGINT] if once else []
    before = {n: signal.signal(n, interrupt) for n in numbers if signal.getsignal(n) != signal.SIG_IGN}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
