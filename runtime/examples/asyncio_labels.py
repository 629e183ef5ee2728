"""Action labels as an asynchronous iterator: for robot software that lives in an event loop.

python asyncio_labels.py [--model student.onnx] [--camera synthetic:] [--seconds 10]
"""

import argparse
import asyncio
from collections.abc import AsyncIterator

from kd_edge.artifact import default_model
from kd_edge.runtime import stream
from kd_edge.types import Prediction


async def labels_of(model: str, camera: str) -> AsyncIterator[Prediction]:
    """Every prediction; the waiting and the inference happen in a worker thread, never in the event loop."""
    with stream(model=model, camera=camera) as labels:
        while (prediction := await asyncio.to_thread(next, labels, None)) is not None:
            yield prediction


async def watch(model: str, camera: str) -> None:
    shown = None
    async for prediction in labels_of(model, camera):
        if (prediction.state, prediction.label) != shown:
            shown = (prediction.state, prediction.label)
            print(prediction.state, prediction.label or prediction.detail, f"{prediction.confidence:.0%}", flush=True)


async def heartbeat() -> None:
    """The rest of the robot goes on meanwhile."""
    while True:
        await asyncio.sleep(1)
        print("...", flush=True)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", help="default: the newest here, else the one in the package")
    parser.add_argument("--camera", default="synthetic:")
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    other = asyncio.create_task(heartbeat())
    try:
        await asyncio.wait_for(watch(options.model or str(default_model()), options.camera), options.seconds)
    except asyncio.TimeoutError:
        pass
    finally:
        other.cancel()


if __name__ == "__main__":
    asyncio.run(main())
