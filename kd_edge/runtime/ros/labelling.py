"""The thread that runs a node's stream."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from kd_edge.errors import KdEdgeError, UnexpectedError, reason
from kd_edge.runtime.statistics import Statistics
from kd_edge.runtime.stream import LabelStream
from kd_edge.types import Frame, Prediction

log = logging.getLogger("kd_edge.runtime")

STOP_SECONDS = 5.0
"""A thread that hangs in an engine for longer is abandoned (it is a daemon)."""


class Labelling:
    """Iterates a stream in its own thread, and restarts it on request.

    Args:
        make: Returns a stream that has not been entered.
        on_prediction: Called with every prediction.
        begin_again: Called after each prediction; returns whether to leave the stream and start another one.
        on_end: Called once when the labels end by themselves, with the error that ended them, if any.
    """

    def __init__(
        self,
        make: Callable[[], LabelStream],
        on_prediction: Callable[[Prediction], None],
        begin_again: Callable[[], bool],
        on_end: Callable[[KdEdgeError | None], None],
    ) -> None:
        self._make, self._on_prediction, self._begin_again, self._on_end = make, on_prediction, begin_again, on_end
        self._stream = make()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="kd-edge labels", daemon=True)

    def start(self) -> None:
        """Enter the stream and start labelling.

        Raises:
            KdEdgeError: Model or camera cannot be used; nothing stays open.
        """
        self._stream.__enter__()
        self._thread.start()

    def stop(self) -> bool:
        """End in bounded time.

        Returns:
            Whether the thread has ended; one that hangs is abandoned.
        """
        with self._lock:
            self._stopping.set()
            self._stream.stop()
        self._thread.join(STOP_SECONDS)
        return not self._thread.is_alive()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the cameras, as in the labels."""
        return tuple(camera.name for camera in getattr(self._stream, "cameras", ()))

    @property
    def statistics(self) -> Statistics:
        """Statistics of the stream."""
        return self._stream.statistics

    def frame_of(self, source: str) -> Frame | None:
        """Return the frame of a camera that was labelled last."""
        return self._stream.frame_of(source)

    def set_max_age_ms(self, max_age_ms: float | None) -> None:
        """Skip frames that are older than this when their turn comes; None skips none."""
        self._stream.max_age_ms = max_age_ms

    def _run(self) -> None:
        error: KdEdgeError | None = None
        try:
            while self._label_until_restart():
                with self._lock:  # a stop during this also applies to the next stream
                    if self._stopping.is_set():
                        return
                    self._stream = self._make()
                self._stream.__enter__()
        except KdEdgeError as expected:
            error = expected
        except Exception as unexpected:  # must be reported by the node, not lost with the thread
            text = f"{type(unexpected).__name__}: {reason(unexpected)}"
            error = UnexpectedError(f"labels failed ({text})", "labels", unexpected)
            log.error("labels failed here:", exc_info=unexpected)
        if not self._stopping.is_set():
            self._on_end(error)

    def _label_until_restart(self) -> bool:
        """Iterate the stream, leave it, and return whether another one should follow."""
        try:
            if self._stopping.is_set():  # stopped while the stream was being entered
                return False
            for prediction in self._stream:
                self._on_prediction(prediction)
                if self._begin_again():
                    return True
            return False
        finally:
            self._stream.__exit__(None, None, None)
