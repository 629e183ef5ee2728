#!/usr/bin/env python3
"""The ROS 2 node in figures: image message to label message beside the recogniser's own push, idle, and memory.

    python tools/bench_ros_node.py [--model ARTIFACT] [--frames 600] [--fps 30] [--size 640x480] [--idle 30]
                                   [--messages 100000]

Two processes on this machine: the node as `ros2 run` starts it, and this one, which publishes mono8 images (reliable)
and hears the labels; what lies between handing an image to the middleware and being handed its label is one latency.
Beside it stands a bare node of rclpy that answers each image with an empty label: what ROS itself takes.
The push is that of the same model and frames in this process, nothing else running in it. Idle: the processor's share
of the node, active, without a publisher. Memory: the node's resident set while small images are published one after the
other, each when the label of the one before is there. Needs rclpy; kd_edge_msgs where it is built, else JSON is heard.
"""

from __future__ import annotations

import argparse
import array
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import String

from kd_edge.artifact import BUNDLED
from kd_edge.runtime import Recognizer

NODE = "measured_node"
PATIENCE_SECONDS = 30.0
PROGRAM = "import sys; from kd_edge.runtime.ros import main; sys.exit(main())"
BARE = """
import signal, sys
import rclpy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image
from std_msgs.msg import String
signal.signal(signal.SIGTERM, lambda *_: rclpy.shutdown())
rclpy.init(signal_handler_options=SignalHandlerOptions.SIGINT)
node = rclpy.create_node("bare")
try:
    from kd_edge_msgs.msg import ActionLabel
    labels, answer = node.create_publisher(ActionLabel, "~/label", 10), lambda header: ActionLabel(header=header)
except ImportError:
    text = '{"header":{"stamp":{"sec":%d,"nanosec":%d}}}'
    labels = node.create_publisher(String, "~/label_json", 10)
    answer = lambda header: String(data=text % (header.stamp.sec, header.stamp.nanosec))
node.create_subscription(Image, "/measured/image", lambda image: labels.publish(answer(image.header)), 10)
try:
    while rclpy.ok():
        rclpy.spin_once(node, timeout_sec=0.5)
except Exception:
    sys.exit(0)
"""


class Heard:
    """Hears labels and wakes whoever waits for one.

    Args:
        node: Listens.
    """

    def __init__(self, node: Any) -> None:
        self._changed = threading.Condition()
        self.stamp_ns, self.state, self.at, self.count = 0, "", 0.0, 0
        try:
            from kd_edge_msgs.msg import ActionLabel

            self.kind = "kd_edge_msgs/ActionLabel"
            node.create_subscription(ActionLabel, f"/{NODE}/label", self._typed, 100)
        except ImportError:
            self.kind = "JSON in std_msgs/String"
            node.create_subscription(String, f"/{NODE}/label_json", self._json, 100)

    def _typed(self, message: Any) -> None:
        at, stamp = time.perf_counter(), message.header.stamp
        self._hear(stamp.sec * 1_000_000_000 + stamp.nanosec, at)

    def _json(self, message: Any) -> None:
        at, stamp = time.perf_counter(), json.loads(message.data)["header"]["stamp"]
        self._hear(stamp["sec"] * 1_000_000_000 + stamp["nanosec"], at)

    def _hear(self, stamp_ns: int, at: float) -> None:
        with self._changed:
            self.stamp_ns, self.at, self.count = stamp_ns, at, self.count + 1
            self._changed.notify_all()

    def wait(self, stamp_ns: int, seconds: float = PATIENCE_SECONDS) -> float | None:
        """When the label of an image came; None when it did not in time."""
        with self._changed:
            came = self._changed.wait_for(lambda: self.stamp_ns >= stamp_ns, seconds)
            return self.at if came and self.stamp_ns == stamp_ns else None


class Measured:
    """The node's process, and this one's node."""

    def __init__(self, model: Path, program: str) -> None:
        values = {"model": model, "topics": "[camera=/measured/image]", "engine": "onnxruntime"}
        given = [part for name, value in values.items() for part in ("-p", f"{name}:={value}")]
        command = [sys.executable, "-c", program, "--ros-args", "-r", f"__node:={NODE}", *given]
        self.process = subprocess.Popen(command)
        rclpy.init(args=[])
        self.node = rclpy.create_node("measuring")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.heard = Heard(self.node)
        self._thread = threading.Thread(target=self.executor.spin)
        self._thread.start()
        self._publisher: Any = None

    def publisher(self) -> None:
        """Publish images from now on."""
        qos = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
        self._publisher = self.node.create_publisher(Image, "/measured/image", qos)
        until(lambda: self._publisher.get_subscription_count() > 0)

    def give(self, message: Any) -> tuple[int, float]:
        """Publish one; its stamp, and when."""
        stamp_ns = self.node.get_clock().now().nanoseconds
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
        at = time.perf_counter()
        self._publisher.publish(message)
        return stamp_ns, at

    def cpu_seconds(self) -> float:
        """What the node has used of the processor."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_mb(self) -> float:
        """Memory of the node, 10^6 bytes."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def close(self) -> int:
        """End both; the node's exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(PATIENCE_SECONDS)
        self.executor.shutdown()
        self._thread.join()
        self.node.destroy_node()
        rclpy.try_shutdown()
        return code


def until(is_so: Callable[[], object]) -> None:
    """Wait for something that must happen."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        if time.monotonic() > end:
            sys.exit("the node does not answer")
        time.sleep(0.05)


@contextlib.contextmanager
def measured(model: Path, program: str = PROGRAM) -> Iterator[Measured]:
    running = Measured(model, program)
    try:
        yield running
    finally:
        if (code := running.close()) != 0:
            print(f"\nThe node ended with exit code {code}.")


def image_messages(width: int, height: int, count: int = 16) -> list[Any]:
    """Different pictures."""
    made = []
    for picture in np.random.default_rng(0).integers(0, 256, size=(count, height, width), dtype=np.uint8):
        message = Image(height=height, width=width, step=width, encoding="mono8")
        message.data = array.array("B", picture.tobytes())
        made.append(message)
    return made


def pushes_ms(model: Path, messages: list[Any], frames: int) -> list[float]:
    """The recogniser's own push, as often."""
    pictures = [np.frombuffer(m.data, np.uint8).reshape(m.height, m.width) for m in messages]
    taken = []
    with Recognizer.load(model) as recognizer:
        for k in range(frames):
            began = time.perf_counter()
            recognizer.push(pictures[k % len(pictures)], k * 33_000_000)
            taken.append((time.perf_counter() - began) * 1e3)
            time.sleep(0.02)  # as a camera leaves the processor's caches to others
    return taken[frames // 10 :]


def latencies_ms(running: Measured, messages: list[Any], frames: int, fps: float) -> tuple[list[float], int]:
    """From image message to label message, at a camera's rate; and how many labels did not come."""
    taken, lost, due = [], 0, time.perf_counter()
    for k in range(frames):
        time.sleep(max(0.0, due - time.perf_counter()))
        due = max(due + 1 / fps, time.perf_counter())
        stamp_ns, began = running.give(messages[k % len(messages)])
        came = running.heard.wait(stamp_ns, 1.0)
        if came is None:
            lost += 1
        else:
            taken.append((came - began) * 1e3)
    return taken[frames // 10 :], lost


def row(name: str, values: list[float]) -> str:
    ordered = sorted(values)
    return f"| {name} | {statistics.median(ordered):.2f} | {ordered[int(len(ordered) * 0.99)]:.2f} | {len(ordered)} |"


def memory(running: Measured, count: int) -> None:
    """The node's memory while many images pass."""
    messages = image_messages(64, 48)
    print("\n| Messages | Resident, MB |\n|---|---|", flush=True)
    began = time.monotonic()
    for k in range(count + 1):
        if k % max(1, count // 10) == 0:
            print(f"| {k:,} | {running.resident_mb():.1f} |", flush=True)
        running.heard.wait(running.give(messages[k % len(messages)])[0], 1.0)
    print(f"\n{count:,} messages in {time.monotonic() - began:.0f} s.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=BUNDLED)
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--fps", type=float, default=30.0)
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--idle", type=float, default=30.0, help="seconds")
    parser.add_argument("--messages", type=int, default=100_000)
    given = parser.parse_args()
    width, height = map(int, given.size.split("x"))
    messages = image_messages(width, height)
    with measured(given.model, BARE) as bare:
        bare.publisher()
        until(lambda: bare.heard.wait(bare.give(messages[0])[0], 0.2))
        answered, _ = latencies_ms(bare, messages, given.frames, given.fps)
    with measured(given.model) as running:
        until(lambda: running.heard.count > 0)  # the first one says that nothing comes
        print(
            f"Load of this machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; labels as {running.heard.kind}."
        )
        before, began = running.cpu_seconds(), time.monotonic()
        time.sleep(given.idle)
        share = (running.cpu_seconds() - before) / (time.monotonic() - began)
        print(f"Idle, active, without a publisher: {share:.2%} of a core over {given.idle:.0f} s.\n")
        running.publisher()
        until(lambda: running.heard.wait(running.give(messages[0])[0], 0.2))  # the node has found the publisher
        taken, lost = latencies_ms(running, messages, given.frames, given.fps)
        pushed = pushes_ms(given.model, messages, given.frames)
        print(f"mono8 {given.size} at {given.fps:g}/s, {lost} of {given.frames} labels missing:\n")
        print("| | median, ms | p99, ms | of |\n|---|---|---|---|")
        print(row("image message to label message", taken))
        print(row("the recogniser's push", pushed))
        print(row("image message to the answer of a bare node", answered))
        print(f"\nBeside the push: {statistics.median(taken) - statistics.median(pushed):.2f} ms median.", flush=True)
        if given.messages:
            memory(running, given.messages)


if __name__ == "__main__":
    main()
