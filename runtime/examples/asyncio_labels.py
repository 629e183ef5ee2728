"""Action labels in an event loop: one task listens, another decides at its own pace and trusts only what still holds.

python asyncio_labels.py [--model student.onnx] [--camera synthetic:] [--seconds 10]
"""

import argparse
import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

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
    """Every prediction; the waiting and the inference happen in a worker thread, never in the event loop."""
    with stream(model=model, camera=camera) as labels:
        while (prediction := await asyncio.to_thread(next, labels, None)) is not None:
            yield prediction


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
    """The rest of the robot, ten times a second: it does not depend on labels coming."""
    acting_on: str | None = ""
    while True:
        label = latest.label(time.monotonic_ns())
        if label != acting_on:
            acting_on = label
            print(f"... {'halt' if label is None else 'act on ' + label}", flush=True)
        await asyncio.sleep(0.1)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", help="default: the newest here, else the one in the package")
    parser.add_argument("--camera", default="synthetic:")
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    latest = Latest()
    acting = asyncio.create_task(act(latest))
    listening = listen(options.model or str(default_model()), options.camera, latest)
    try:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(listening, options.seconds)
    finally:
        acting.cancel()


if __name__ == "__main__":
    asyncio.run(main())
