"""The thread in which a node's stream runs."""

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
"""A thread that hangs in an engine for longer is left behind (it is a daemon)."""


class Labelling:
    """Iterates a stream in a thread of its own, and begins it again where that is asked for.

    Args:
        make: A stream that was not entered yet.
        tell: Gets every prediction.
        begin_again: Asked after each prediction whether to leave the stream and begin another one.
        over: Told once when the labels have ended by themselves, with what ended them.
    """

    def __init__(
        self,
        make: Callable[[], LabelStream],
        tell: Callable[[Prediction], None],
        begin_again: Callable[[], bool],
        over: Callable[[KdEdgeError | None], None],
    ) -> None:
        self._make, self._tell, self._begin_again, self._over = make, tell, begin_again, over
        self._stream = make()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="kd-edge labels", daemon=True)

    def start(self) -> None:
        """Enter the stream and begin to label.

        Raises:
            KdEdgeError: Model or camera cannot be used; nothing stays open.
        """
        self._stream.__enter__()
        self._thread.start()

    def stop(self) -> bool:
        """End, in bounded time.

        Returns:
            Whether the thread has ended; one that hangs is left behind.
        """
        with self._lock:
            self._stopping.set()
            self._stream.stop()
        self._thread.join(STOP_SECONDS)
        return not self._thread.is_alive()

    @property
    def names(self) -> tuple[str, ...]:
        """Of its cameras, as labels bear them."""
        return tuple(camera.name for camera in getattr(self._stream, "cameras", ()))

    @property
    def statistics(self) -> Statistics:
        """Of the stream."""
        return self._stream.statistics

    def frame_of(self, source: str) -> Frame | None:
        """The frame that was labelled last of a camera."""
        return self._stream.frame_of(source)

    def set_max_age_ms(self, max_age_ms: float | None) -> None:
        """Skip frames that are older than this when their turn comes; None skips none."""
        self._stream.max_age_ms = max_age_ms

    def _run(self) -> None:
        error: KdEdgeError | None = None
        try:
            while self._labels_till_another():
                with self._lock:  # a stop meanwhile is meant for the next one, too
                    if self._stopping.is_set():
                        return
                    self._stream = self._make()
                self._stream.__enter__()
        except KdEdgeError as told:
            error = told
        except Exception as unexpected:  # must reach whoever looks at the node, not vanish with the thread
            what = f"{type(unexpected).__name__}: {reason(unexpected)}"
            error = UnexpectedError(f"labels failed ({what})", "labels", unexpected)
            log.error("labels failed here:", exc_info=unexpected)
        if not self._stopping.is_set():
            self._over(error)

    def _labels_till_another(self) -> bool:
        """Whether another stream is to follow this one, which is left."""
        try:
            if self._stopping.is_set():  # while this one was being entered
                return False
            for prediction in self._stream:
                self._tell(prediction)
                if self._begin_again():
                    return True
            return False
        finally:
            self._stream.__exit__(None, None, None)
