"""Action labels inside a robot's own control loop: your frames, your clock, no thread of kd-edge's.

python control_loop.py [--model student.onnx] [--camera synthetic:] [--seconds 10]
"""

import argparse
import time

from kd_edge.artifact import default_model
from kd_edge.runtime import Recognizer
from kd_edge.runtime.cameras import Wanted, open_camera

STOP_FOR = {"throw", "drop"}  # the robot halts while somebody does one of these


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", help="default: the newest here, else the one in the package")
    parser.add_argument("--camera", default="synthetic:")
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()

    recognizer = Recognizer.load(options.model or default_model(), threads=1)
    camera = open_camera(options.camera, Wanted.by(recognizer.manifest))  # or any driver that gives numpy arrays
    halted = None
    end = time.monotonic() + options.seconds
    try:
        while time.monotonic() < end and not camera.ended:
            frame = camera.read(0.1)
            if frame is None:
                continue  # no frame in time: whatever was decided last runs out by itself, below
            prediction = recognizer.push(frame.image, frame.captured_ns, frame.source)
            if prediction is None:
                continue  # the same frame again
            # Act on a label only while it is valid; no label and an unknown one mean: be careful.
            valid = prediction.label is not None and not prediction.is_stale(time.monotonic_ns())
            halt = not valid or prediction.label in STOP_FOR
            if halt != halted:
                halted = halt
                why = prediction.label or prediction.detail or prediction.state
                print("halt" if halt else "drive", f"({why}, {prediction.confidence:.0%})", flush=True)
    finally:
        camera.close()


if __name__ == "__main__":
    main()
