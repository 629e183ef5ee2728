"""Action labels in an event loop: one task listens, another decides at its own pace and trusts only what still holds.

python asyncio_labels.py [--model student.onnx] [--camera synthetic:] [--seconds 10]
"""

import argparse
import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Coroutine

from kd_edge.artifact import default_model
from kd_edge.runtime import stream
from kd_edge.types import Prediction


class Latest:
    """The newest prediction. Whoever acts asks for the label at the moment of acting, however old the prediction is."""

    def __init__(self) -> None:
        self.prediction: Prediction | None = None

    def label(self, now_ns: int) -> str | None:
        """The label that holds now; None when there is none: nothing came yet, it ran out, or the labels ended."""
        prediction = self.prediction
        return None if prediction is None or prediction.is_stale(now_ns) else prediction.label


async def labels_of(model: str, camera: str) -> AsyncIterator[Prediction]:
    """Every prediction; waiting, inference and closing happen in a worker thread, never in the event loop."""
    labels = stream(model=model, camera=camera).__enter__()
    try:
        while (prediction := await asyncio.to_thread(next, labels, None)) is not None:
            yield prediction
    finally:
        await asyncio.to_thread(labels.__exit__, None, None, None)


async def listen(model: str, camera: str, latest: Latest) -> None:
    shown = None
    try:
        async for prediction in labels_of(model, camera):
            latest.prediction = prediction
            if (prediction.state, prediction.label) != shown:
                shown = (prediction.state, prediction.label)
                why = prediction.label or prediction.detail
                print(prediction.state, why, f"{prediction.confidence:.0%}", flush=True)
    finally:
        latest.prediction = None  # whatever ended the labels: the last one must not be acted on


async def act(latest: Latest) -> None:
    """The rest of the robot, ten times a second: it does not depend on labels coming, and halts whatever ends it."""
    acting_on: str | None = ""
    try:
        while True:
            label = latest.label(time.monotonic_ns())
            if label != acting_on:
                acting_on = label
                print(f"... {'halt' if label is None else 'act on ' + label}", flush=True)
            await asyncio.sleep(0.1)
    finally:
        print("... halt", flush=True)


async def both(acting: Coroutine[None, None, None], listening: Coroutine[None, None, None], seconds: float) -> None:
    """Until one of them ends, the time is over or a signal comes; then both are ended, and acting first."""
    tasks = [asyncio.ensure_future(acting), asyncio.ensure_future(listening)]
    try:
        done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def cancel_on_signals(task: asyncio.Task[None]) -> None:
    """Ctrl-C, kill and a closed terminal cancel the task; ``nohup`` stays in force."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", help="default: the newest here, else the one in the package")
    parser.add_argument("--camera", default="synthetic:")
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    task = asyncio.current_task()
    assert task is not None
    cancel_on_signals(task)
    latest = Latest()
    model = options.model or str(default_model())
    await both(act(latest), listen(model, options.camera, latest), options.seconds)


if __name__ == "__main__":
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(main())
