#!/usr/bin/env python3
"""Image topics of ROS 2: what is lost on the way and on the node's side, what a frame costs, and memory.

    python tools/bench_ros_topics.py [--seconds 10] [--messages 100000]

Run it with a Python that has rclpy (tools/check_ros.sh makes an environment). A publisher in another process on
loopback sends 640x480 at 30 frames/s; a ``TopicCamera`` reads them as a stream's capture thread does. Lost in the
middleware is what was published from the first frame received on and never came to the subscription; lost on the node's
side is what came and was not read. Processor time is that of the receiving process: executor, conversion and reading,
without a model. Memory is that of a process which receives many small messages. Prints Markdown tables.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import sys
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
os.environ.setdefault("ROS_DOMAIN_ID", str(random.Random().randrange(102, 230)))
WIDTH, HEIGHT, FPS = 640, 480, 30
NAME = "/camera/image"
PATIENCE_SECONDS = 60.0


def processor_seconds() -> float:
    """What this process has used so far, without its children."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def resident_mb() -> float:
    """Memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


class Reader(threading.Thread):
    """Reads a camera until it is told to stop, as a capture thread does."""

    def __init__(self, camera: Any) -> None:
        super().__init__(name="reader")
        self.camera, self.count, self.stopped = camera, 0, threading.Event()

    def run(self) -> None:
        from kd_edge.errors import CameraError

        is_over = False
        while not is_over:
            is_stopped = self.stopped.is_set()
            try:
                self.count += self.camera.read(0.2) is not None
            except CameraError:  # nothing came
                is_over = is_stopped


def connected(publisher: Any, topic: Any) -> None:
    """Wait until both sides know each other."""
    until = time.monotonic() + PATIENCE_SECONDS
    while not publisher.heard(topic=NAME):
        topic.look()
        if time.monotonic() > until:
            raise SystemExit("they never found each other")
        time.sleep(0.05)


def rate(bits: int, reliable: bool, seconds: float) -> tuple[int, int, int, int, float]:
    """Published, received, lost in the middleware, lost on the node's side, milliseconds of processor a frame."""
    from kd_edge.runtime.cameras import Wanted
    from kd_edge.runtime.cameras.config import CameraConfig
    from kd_edge.runtime.ros.camera import TopicCamera
    from kd_edge.runtime.ros.session import Session
    from kd_edge.runtime.ros.topic import ImageTopic
    from tests.runtime.ros.conftest import Publisher
    from tests.runtime.ros.messages import grey_fields

    publisher, session = Publisher(), Session()
    publisher.advertise(topic=NAME, reliable=reliable)
    topic = ImageTopic(session.node, NAME)
    camera = TopicCamera("ir", topic, CameraConfig(uri=f"ros2:{NAME}"), Wanted(), patient=True)
    camera.open()
    connected(publisher, topic)
    reader = Reader(camera)
    reader.start()
    began = processor_seconds()
    published = publisher.publish(
        topic=NAME, fields=grey_fields(WIDTH, HEIGHT, bits), times=round(seconds * FPS), hz=FPS
    )
    time.sleep(1.0)
    used = processor_seconds() - began
    reader.stopped.set()
    reader.join()  # it has read what waited
    camera.close()
    topic.close()
    session.close()
    publisher.close()
    lost = topic.received - reader.count
    return published, topic.received, published - topic.received, lost, 1e3 * used / max(1, topic.received)


def memory(messages: int) -> None:
    """Memory of this process while it receives many small messages."""
    from kd_edge.runtime.cameras import Wanted
    from kd_edge.runtime.cameras.config import CameraConfig
    from kd_edge.runtime.ros.camera import TopicCamera
    from kd_edge.runtime.ros.session import Session
    from kd_edge.runtime.ros.topic import ImageTopic
    from tests.runtime.ros.conftest import Publisher
    from tests.runtime.ros.messages import grey_fields

    publisher, session = Publisher(), Session()
    publisher.advertise(topic=NAME, depth=100)
    topic = ImageTopic(session.node, NAME)
    camera = TopicCamera("ir", topic, CameraConfig(uri=f"ros2:{NAME}"), Wanted(), patient=True)
    camera.open()
    connected(publisher, topic)
    reader = Reader(camera)
    reader.start()
    print("| messages received | memory, MB |\n|---|---|")
    part = max(1, messages // 10)
    while topic.received < messages:
        print(f"| {topic.received:,} | {resident_mb():.1f} |", flush=True)
        publisher.publish(topic=NAME, fields=grey_fields(32, 24), times=part, hz=1500)
    time.sleep(0.5)
    print(f"| {topic.received:,} | {resident_mb():.1f} |")
    reader.stopped.set()
    reader.join()
    camera.close()
    topic.close()
    session.close()
    publisher.close()


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--messages", type=int, default=100_000)
    options = parser.parse_args()
    print(
        "| 640x480, 30 frames/s | offered and asked | published | received | lost in the middleware | lost on the "
        "node's side | processor, ms a frame |\n|---|---|---|---|---|---|---|"
    )
    failed = 0
    for bits in (8, 16):
        for reliable in (False, True):
            published, received, outside, inside, ms = rate(bits, reliable, options.seconds)
            offered = "reliable" if reliable else "best effort"
            print(
                f"| mono{bits} | {offered} | {published} | {received} | {outside} | {inside} | {ms:.2f} |", flush=True
            )
            failed += inside
    print()
    if options.messages:
        memory(options.messages)
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()
