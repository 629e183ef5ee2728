"""Labels in a thread beside a control loop that waits for nothing: the newest label, what ended them, a clean stop.

python listener.py [--model student.onnx] [--camera synthetic:] [--seconds 10]
"""

import argparse
import contextlib
import threading
import time
from collections.abc import Callable
from types import TracebackType

from kd_edge.artifact import default_model
from kd_edge.runtime import stream
from kd_edge.runtime.signals import interrupt_on_termination
from kd_edge.runtime.stream import LabelStream
from kd_edge.types import Prediction

PERIOD_SECONDS = 0.02


class Listener:
    """Iterates in a thread of its own, as long as its block lasts. The loop asks, and never waits."""

    def __init__(self, labels: LabelStream) -> None:
        self._labels = labels
        self._newest: Prediction | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._listen, name="labels")  # no daemon: it closes camera and engine

    def __enter__(self) -> "Listener":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._labels.stop()  # also while the stream is still being entered
        self._thread.join()

    @property
    def listens(self) -> bool:
        return self._thread.is_alive()

    def label(self, now_ns: int) -> str | None:
        """The label that holds now; None when there is none. Raises here, in the loop, what has ended the labels."""
        if self._error is not None:
            raise self._error
        newest = self._newest  # read once: the other thread replaces it at any moment
        return None if newest is None or newest.is_stale(now_ns) else newest.label

    def _listen(self) -> None:
        shown = None
        try:
            with self._labels as labels:
                for prediction in labels:
                    self._newest = prediction
                    if (prediction.state, prediction.label) != shown:
                        shown = (prediction.state, prediction.label)
                        print(prediction.state, prediction.label or prediction.detail, flush=True)
        except BaseException as error:
            self._error = error
        finally:
            self._newest = None  # whatever ended the labels: the last one must not be acted on


def control(listener: Listener, seconds: float, now: Callable[[], int] = time.monotonic_ns) -> None:
    """Decide fifty times a second; what this takes delays no frame."""
    end_ns, acting_on = now() + round(seconds * 1e9), ""
    try:
        while now() < end_ns and listener.listens:
            label = listener.label(now()) or "nothing"
            if label != acting_on:
                acting_on = label
                print(f"... act on {label}", flush=True)
            time.sleep(PERIOD_SECONDS)
        listener.label(now())  # what ended the labels
    finally:  # the end, Ctrl-C, or anything that was raised
        print("... halt", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", help="default: the newest here, else the one in the package")
    parser.add_argument("--camera", default="synthetic:")
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    try:
        with Listener(stream(model=options.model or default_model(), camera=options.camera)) as listener:
            control(listener, options.seconds)
    finally:
        print("... halted, the camera is closed", flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt), interrupt_on_termination():  # Ctrl-C, kill, a closed terminal: halt
        main()
