"""Action labels inside a robot's own control loop: your frames, your clock, no thread of kd-edge's.

The robot halts whenever no valid label says otherwise: at the start, when the camera is silent, when a label has run
out, and when anything raises. A deadman halts it when a label has run out and the loop hangs, in a driver for example.
It drives again only after nothing has stood against it for a while, so that it does not stutter.

python control_loop.py [--model student.onnx] [--camera synthetic:] [--seconds 10]
"""

import argparse
import contextlib
import threading
import time
from collections.abc import Callable

from kd_edge.artifact import default_model
from kd_edge.runtime import Recognizer, Watchdog
from kd_edge.runtime.cameras import Camera, Wanted, open_camera
from kd_edge.runtime.signals import interrupt_on_termination
from kd_edge.types import Prediction

STOP_FOR = {"throw", "drop"}  # the robot halts while somebody does one of these
CALM_NS = 500_000_000  # how long all must be well before it drives again
READ_SECONDS = 0.05  # the loop's pace when no frame comes: shorter than a label holds
DEADMAN_SECONDS = 0.02  # how often the deadman looks


class Robot:
    """Stands for your drive. It stands still until it is told to go, and when it is told anything else or nothing."""

    def __init__(self) -> None:
        self.driving = False
        self._calm_since_ns: int | None = None
        self._until_ns = 0
        self._lock = threading.RLock()  # the loop decides, the deadman ticks

    def decide(self, prediction: Prediction, now_ns: int) -> None:
        """Halt at once, drive when all has been well for a while, and no longer than the label holds."""
        with self._lock:
            if prediction.label is None or prediction.is_stale(now_ns) or prediction.label in STOP_FOR:
                self.halt(f"{prediction.label or prediction.state}: {prediction.detail}".rstrip(": "))
                return
            self._until_ns = prediction.valid_until_ns
            if self._calm_since_ns is None:
                self._calm_since_ns = now_ns
            if not self.driving and now_ns - self._calm_since_ns >= CALM_NS:
                self.driving = True
                print(f"drive ({prediction.label}, {prediction.confidence:.0%})", flush=True)

    def tick(self, now_ns: int) -> None:
        """Halt when the label has run out, whatever the loop does."""
        with self._lock:
            if now_ns > self._until_ns:
                self.halt("the label ran out")

    def halt(self, why: str) -> None:
        """Stand still."""
        with self._lock:
            moved = self.driving or self._calm_since_ns is not None
            self.driving, self._calm_since_ns = False, None
            if moved:
                print(f"halt ({why})", flush=True)


def deadman(robot: Robot) -> None:
    """Tick for ever. A driver that holds the interpreter's lock stops this, too: a real drive has its own time-out."""
    while True:
        robot.tick(time.monotonic_ns())
        time.sleep(DEADMAN_SECONDS)


def control(
    camera: Camera, recognizer: Recognizer, robot: Robot, seconds: float, now: Callable[[], int] = time.monotonic_ns
) -> None:
    """Label frames and decide in every turn, whether a frame came or not."""
    watchdog = Watchdog(recognizer.valid_ns, now())
    end_ns = now() + round(seconds * 1e9)
    try:
        while now() < end_ns and not camera.ended:
            frame = camera.read(READ_SECONDS)
            prediction = None
            if frame is not None:  # now_ns: a stamp ahead of it is not believed, a label that has run out is stale
                prediction = recognizer.push(frame.image, frame.captured_ns, frame.source, now_ns=now())
            robot.decide(watchdog.current(prediction, now()), now())
    finally:  # the end, Ctrl-C, or anything that camera or engine raise
        robot.halt("the loop ended")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", help="default: the newest here, else the one in the package")
    parser.add_argument("--camera", default="synthetic:")
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()

    print("halt (start)", flush=True)
    robot = Robot()
    threading.Thread(target=deadman, args=[robot], daemon=True).start()
    with Recognizer.load(options.model or default_model(), threads=1) as recognizer:
        camera = open_camera(options.camera, Wanted.by(recognizer.manifest))  # or any driver that gives numpy arrays
        try:
            control(camera, recognizer, robot, options.seconds)
        finally:
            camera.close()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt), interrupt_on_termination():  # Ctrl-C, kill, a closed terminal: halt
        main()
