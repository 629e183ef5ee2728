"""When labels become stale, and systemd's watchdog."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from kd_edge.errors import printable, reason
from kd_edge.runtime.clock import ahead_of, duration, stamp_of
from kd_edge.types import MAX_AHEAD_NS, Cause, LabelState, Prediction, Reason

log = logging.getLogger("kd_edge.runtime")

ALIVE_INTERVAL_NS = 500_000_000
"""systemd is notified of fresh frames at most twice a second."""


class Watchdog:
    """Decides when labels are ``stale``: as soon as the last one has expired. Has no clock of its own.

    Code that pushes frames itself calls ``current`` in every iteration, with or without a new prediction.

    Args:
        valid_ns: How long a frame's label is valid, and the interval of repeated stale predictions
            (``Recognizer.valid_ns``).
        now_ns: Start time.
        source: Name of the camera.
    """

    def __init__(self, valid_ns: int, now_ns: int, source: str = "camera") -> None:
        self._valid_ns = valid_ns
        self._due_ns = now_ns + valid_ns
        self._newest = Prediction(
            source=source,
            probabilities=np.zeros(0, dtype=np.float32),
            state=LabelState.STALE,
            frame_id=-1,
            captured_ns=now_ns,
            emitted_ns=now_ns,
            valid_until_ns=now_ns,
            reason=Reason.NO_FRAME,
            detail="no frame yet",
        )

    def current(self, prediction: Prediction | None, now_ns: int) -> Prediction:
        """The prediction that holds now: the newest one while it is valid, otherwise a ``stale`` one without a label.

        Args:
            prediction: Result of a push just now; None if it gave none, or no frame came.
            now_ns: Current time.
        """
        if prediction is not None:
            self._newest = prediction
        newest = self._newest
        is_ahead = newest.captured_ns - now_ns > MAX_AHEAD_NS
        if newest.state is LabelState.STALE or not (is_ahead or newest.is_stale(now_ns)):
            return newest
        now = stamp_of(now_ns, "now")
        now_ns, cause = (newest.captured_ns, now) if isinstance(now, Cause) else (now, _why_not(newest, now))
        return replace(
            newest,
            label=None,
            index=-1,
            confidence=0.0,
            probabilities=np.zeros_like(newest.probabilities),
            state=LabelState.STALE,
            emitted_ns=now_ns,
            valid_until_ns=now_ns,
            reason=cause.reason,
            detail=cause.detail,
        )

    def fresh(self, captured_ns: int) -> None:
        """A fresh frame was captured at ``captured_ns``."""
        self._due_ns = max(self._due_ns, captured_ns + self._valid_ns)

    def wait_seconds(self, now_ns: int) -> float:
        """How long to wait for a frame before the next stale prediction is due."""
        return max(0.0, (self._due_ns - now_ns) / 1e9)

    def is_due(self, now_ns: int) -> bool:
        """Whether a stale prediction is due now."""
        return now_ns >= self._due_ns

    def told(self, now_ns: int) -> None:
        """A stale prediction was made at ``now_ns``: the next one is due an interval later."""
        self._due_ns = now_ns + self._valid_ns


def _why_not(newest: Prediction, now_ns: int) -> Cause:
    silence = Cause(Reason.NO_FRAME, f"no fresh frame for {duration(now_ns - newest.captured_ns)}")
    return ahead_of(now_ns, newest.captured_ns, MAX_AHEAD_NS) or silence


class ServiceNotifier:
    """Sends systemd notifications (sd_notify(3)) to ``NOTIFY_SOCKET``; does nothing if that is not set.

    Failing to notify does not stop the labels; it is logged once.
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
        """A fresh frame was labelled and a sink accepted it; otherwise systemd restarts us after ``WatchdogSec``."""
        if now_ns - self._alive_ns >= ALIVE_INTERVAL_NS:
            self._alive_ns = now_ns
            self._send(b"WATCHDOG=1")

    def stopping(self) -> None:
        """The stream is closing; nothing is sent afterwards."""
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
            pass  # systemd has not read yet; the next message comes soon
        except OSError as error:
            if self._is_heard:
                log.warning(
                    "systemd cannot be notified: %s (NOTIFY_SOCKET)", printable(error.strerror or reason(error))
                )
            self._is_heard = False
