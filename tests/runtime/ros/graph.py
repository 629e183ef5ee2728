"""A graph of ROS 2 within one process: nodes under test, and a node that publishes, listens and calls."""

from __future__ import annotations

import array
import gc
import threading
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.task import Future
from sensor_msgs.msg import Image

from kd_edge.runtime.ros import ActionRecognition
from tests.waiting import PATIENCE_SECONDS, wait_for

with warnings.catch_warnings():  # rosidl's parser uses what Python 3.11 calls deprecated
    warnings.simplefilter("ignore", DeprecationWarning)
    import rosidl_generator_py  # noqa: F401 - otherwise imported with the first message

RELIABLE = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
TOPIC = "/cam/image"


class Graph:
    """One context, one executor in a thread, nodes.

    Args:
        executor: Its class.
    """

    def __init__(self, executor: Callable[..., Any] = SingleThreadedExecutor) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context, args=[])
        self.executor = executor(context=self.context)
        self.done = Future()
        self.nodes: list[Any] = []
        self.probe = rclpy.create_node("probe", context=self.context, enable_rosout=False)
        self.executor.add_node(self.probe)
        self.thread = threading.Thread(target=self._spin, name="kd-edge test graph")
        self.fault: BaseException | None = None
        self.statuses: dict[str, Any] = {}
        self.told: list[Any] = []
        self.probe.create_subscription(DiagnosticArray, "/diagnostics", self._see, RELIABLE)
        self.thread.start()

    def _spin(self) -> None:
        try:
            self.executor.spin_until_future_complete(self.done)
        except ExternalShutdownException:
            pass
        except BaseException as error:  # a test must not pass where an executor died
            self.fault = error

    def _see(self, message: Any) -> None:
        for status in message.status:
            self.told.append(status)
            self.statuses[status.name] = status

    def node(self, name: str = "action_recognition", **parameters: Any) -> ActionRecognition:
        """A node under test, served by the executor; it does not start by itself unless told."""
        values = {"autostart": False, "topics": [f"ir={TOPIC}"], "engine": "onnxruntime", **parameters}
        namespace = values.pop("namespace", "")
        overrides = [Parameter(key, value=value) for key, value in values.items()]
        node = ActionRecognition(name, context=self.context, namespace=namespace, parameter_overrides=overrides)
        self.nodes.append(node)
        self.executor.add_node(node)
        return node

    def listen(self, kind: Any, topic: str, qos: Any = RELIABLE) -> list[Any]:
        """Messages of a topic, as they come; there is a publisher by the end of this."""
        heard: list[Any] = []
        self.probe.create_subscription(kind, topic, heard.append, qos)
        wait_for(lambda: self.probe.count_publishers(topic) > 0)
        return heard

    def images(self, topic: str = TOPIC, qos: Any = RELIABLE) -> Images:
        """A publisher of images that somebody listens to."""
        return Images(self.probe, topic, qos)

    def status(self, name: str) -> Any:
        """The newest diagnostic of that name."""
        wait_for(lambda: name in self.statuses)
        return self.statuses[name]

    def said(self, name: str, text: str) -> Any:
        """The first diagnostic of that name that says so, once there is one."""
        found: list[Any] = []

        def is_there() -> bool:
            found[:] = [s for s in tuple(self.told) if s.name == name and text in s.message]
            return bool(found)

        wait_for(is_there)
        return found[0]

    def call(self, kind: Any, name: str, request: Any) -> Any:
        """The answer of a service."""
        client = self.probe.create_client(kind, name)
        assert client.wait_for_service(PATIENCE_SECONDS)
        future = client.call_async(request)
        wait_for(future.done)
        self.probe.destroy_client(client)
        return future.result()

    def close(self) -> None:
        """End everything."""
        self.done.set_result(None)
        self.thread.join()
        for node in self.nodes:
            node.destroy_node()
        self.executor.shutdown()  # not before: rclpy takes away what a spinning thread uses
        self.probe.destroy_node()
        rclpy.try_shutdown(context=self.context)
        self.nodes.clear()
        del self.executor, self.probe, self.context
        gc.collect()  # the middleware's sockets are closed with the last of their objects
        assert self.fault is None, self.fault


class Images:
    """Publishes images."""

    def __init__(self, node: Any, topic: str, qos: Any) -> None:
        self._node, self._publisher = node, node.create_publisher(Image, topic, qos)

    def listened_to(self) -> None:
        """Wait until somebody listens."""
        wait_for(lambda: self._publisher.get_subscription_count() > 0)

    def give(self, image: np.ndarray, stamp_ns: int | None = None, **fields: Any) -> int:
        """Publish one; its stamp."""
        stamp_ns = self._node.get_clock().now().nanoseconds if stamp_ns is None else stamp_ns
        self._publisher.publish(image_message(image, stamp_ns, **fields))
        return stamp_ns


def image_message(image: np.ndarray, stamp_ns: int, **fields: Any) -> Image:
    """(H, W) uint8 or uint16, or (H, W, 3) uint8, as a message."""
    message = Image()
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
    message.header.frame_id = "cam_optical"
    message.height, message.width = image.shape[:2]
    message.encoding = "rgb8" if image.ndim == 3 else "mono8" if image.dtype == np.uint8 else "mono16"
    message.step = image.strides[0]
    message.data = array.array("B", image.tobytes())
    for name, value in fields.items():
        setattr(message, name, value)
    return message
