"""A process that publishes what it is told to, one command of JSON a line: another program than the one under test.

    python -m tests.runtime.ros.publisher

Each command is answered by a line of JSON. It ends with its input.
"""

from __future__ import annotations

import array
import base64
import json
import sys
import threading
import time
from typing import Any


def main() -> None:
    """Obey until the input ends."""
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("publisher", enable_rosout=False, start_parameter_services=False)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    told = Told(node)
    sys.stdout.write(json.dumps({"ready": True}) + "\n")
    sys.stdout.flush()
    for line in sys.stdin:
        command = json.loads(line)
        answer = getattr(told, command.pop("do"))(**command)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    executor.shutdown()
    thread.join()
    node.destroy_node()
    rclpy.try_shutdown()


class Told:
    """What it can be told; methods are named as the commands.

    Args:
        node: Publishes.
    """

    def __init__(self, node: Any) -> None:
        self._node = node
        self._publishers: dict[str, Any] = {}
        self._repeated: dict[str, tuple[threading.Thread, threading.Event]] = {}

    def advertise(
        self, topic: str, type: str = "Image", reliable: bool = True, kept: bool = False, depth: int = 10
    ) -> int:
        """Make a publisher."""
        from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

        qos = QoSProfile(
            depth=depth,
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if kept else DurabilityPolicy.VOLATILE,
        )
        self._publishers[topic] = self._node.create_publisher(_type(type), topic, qos)
        return 1

    def withdraw(self, topic: str) -> int:
        """Take it away."""
        return int(self._node.destroy_publisher(self._publishers.pop(topic)))

    def heard(self, topic: str) -> int:
        """How many subscriptions match a publisher."""
        return int(self._publishers[topic].get_subscription_count())

    def publish(
        self,
        topic: str,
        fields: dict[str, Any],
        times: int = 1,
        hz: float = 30.0,
        stamp: float | None = None,
        step: float = 0.0,
        frame_id: str = "imager",
        first: int = 0,
    ) -> int:
        """Publish so many messages; ``stamp`` in seconds, by default this moment; pixels' first byte counts them."""
        publisher = self._publishers[topic]
        message = publisher.msg_type()
        fill(message, fields)
        if hasattr(message, "header"):
            message.header.frame_id = frame_id
        began = time.monotonic()
        for k in range(times):
            if hasattr(message, "header"):
                ns = time.time_ns() if stamp is None else round((stamp + k * step) * 1e9)
                message.header.stamp.sec, message.header.stamp.nanosec = divmod(ns, 1_000_000_000)
            if times > 1 or first:
                self._count(message, first + k)
            publisher.publish(message)
            time.sleep(max(0.0, began + (k + 1) / hz - time.monotonic()) if times > 1 else 0.0)
        return times

    def _count(self, message: Any, number: int) -> None:
        """Make a raw picture another one than those before: a camera that repeats itself is frozen."""
        if getattr(message, "step", 0):
            message.data[0] = number % 256

    def begin(
        self, topic: str, fields: dict[str, Any], hz: float = 30.0, stamp: float | None = None, **how: Any
    ) -> int:
        """Publish again and again, in a thread of its own, until ``end``; ``step`` lies between two stamps."""
        stop, step = threading.Event(), how.pop("step", 0.0)

        def repeat() -> None:
            count = 0
            while not stop.wait(1 / hz):
                count += 1
                moment = None if stamp is None else stamp + count * step
                self.publish(topic, fields, stamp=moment, first=count, **how)

        thread = threading.Thread(target=repeat, daemon=True)
        self._repeated[topic] = thread, stop
        thread.start()
        return 1

    def end(self, topic: str) -> int:
        """Publish it no more."""
        thread, stop = self._repeated.pop(topic)
        stop.set()
        thread.join()
        return 1

    def tick(self, seconds: float) -> int:
        """Publish a moment of simulated time."""
        message = _type("Clock")()
        message.clock.sec, message.clock.nanosec = divmod(round(seconds * 1e9), 1_000_000_000)
        self._publishers["/clock"].publish(message)
        return 1


def fill(message: Any, fields: dict[str, Any]) -> None:
    """Set a message's fields; bytes are base64, an array's count of zeros an ``{"zeros": n}``."""
    for key, value in fields.items():
        if key == "data" and isinstance(value, dict):
            message.data = array.array("B", bytes(value["zeros"]))
        elif key == "data" and isinstance(message.data, array.array):
            message.data = array.array("B", base64.b64decode(value))
        elif key == "k":
            message.k = [float(number) for number in value]
        else:
            setattr(message, key, value)


def _type(name: str) -> Any:
    import importlib

    package = {"Clock": "rosgraph_msgs", "String": "std_msgs"}.get(name, "sensor_msgs")
    return getattr(importlib.import_module(f"{package}.msg"), name)


if __name__ == "__main__":
    main()
