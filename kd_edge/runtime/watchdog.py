"""When labels go stale, and telling systemd that frames are fresh."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator

from kd_edge.errors import printable, reason

log = logging.getLogger("kd_edge.runtime")

ALIVE_INTERVAL_NS = 500_000_000
"""systemd hears of fresh frames at most twice a second."""


class Watchdog:
    """Decides when a ``stale`` prediction is due: once per interval without a fresh frame. Has no clock of its own.

    Args:
        valid_ns: How long a frame's label is valid, and the interval of repeated stale predictions.
        now_ns: The start.
    """

    def __init__(self, valid_ns: int, now_ns: int) -> None:
        self._valid_ns = valid_ns
        self._due_ns = now_ns + valid_ns

    def fresh(self, captured_ns: int) -> None:
        """A fresh frame was captured at ``captured_ns``."""
        self._due_ns = max(self._due_ns, captured_ns + self._valid_ns)

    def wait_seconds(self, now_ns: int) -> float:
        """How long to wait for a frame before the next stale prediction is due."""
        return max(0.0, (self._due_ns - now_ns) / 1e9)

    def is_due(self, now_ns: int) -> bool:
        """Whether a stale prediction is due now; asking changes nothing."""
        return now_ns >= self._due_ns

    def told(self, now_ns: int) -> None:
        """A stale prediction was made at ``now_ns``: the next one is due an interval later."""
        self._due_ns = now_ns + self._valid_ns


class ServiceNotifier:
    """Speaks systemd's notify protocol (sd_notify(3)) on ``NOTIFY_SOCKET``; silent where there is none.

    A manager that cannot be told does not stop the labels: a line in the log says so, once.
    """

    def __init__(self) -> None:
        self._alive_ns = -ALIVE_INTERVAL_NS
        address = os.environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._is_heard = True
        self._socket: socket.socket | None = None
        if address:
            with self._watched():
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._socket.setblocking(False)

    def ready(self) -> None:
        """Model and camera are open."""
        self._send(b"READY=1")

    def alive(self, now_ns: int) -> None:
        """A fresh frame was labelled and a sink took it; without these systemd restarts us after ``WatchdogSec``."""
        if now_ns - self._alive_ns >= ALIVE_INTERVAL_NS:
            self._alive_ns = now_ns
            self._send(b"WATCHDOG=1")

    def stopping(self) -> None:
        """The stream closes; nothing is sent afterwards."""
        self._send(b"STOPPING=1")
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, message: bytes) -> None:
        if self._socket is not None:
            with self._watched():
                self._socket.sendto(message, self._address)

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except BlockingIOError:
            pass  # it is behind with reading; the next message comes soon
        except OSError as error:
            if self._is_heard:
                log.warning("systemd cannot be told: %s (NOTIFY_SOCKET)", printable(error.strerror or reason(error)))
            self._is_heard = False
