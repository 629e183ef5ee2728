"""kd_edge_msgs as built: a label, a service and an action from one process to another."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is in an environment of its own")
pytest.importorskip("kd_edge_msgs.msg", reason="built by tools/build_ros_packages.py")

pytestmark = pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning")  # the parser that rosidl uses
SECONDS = 60.0
SERVER = """
import sys

import rclpy
from rclpy.action import ActionServer
from kd_edge_msgs import action, msg, srv

rclpy.init()
node = rclpy.create_node("server", namespace=sys.argv[1])
label = msg.ActionLabel(
    source="ir0", state=msg.ActionLabel.DEGRADED, label="wave", index=2, confidence=0.75, reason="low_rate",
    probabilities=[0.25, 0.0, 0.75], detail="12 frames/s", anomaly=float("nan"), frame_number=2**40,
)
label.header.frame_id, label.header.stamp.sec, label.valid_until.nanosec = "camera_optical", 12, 999_999_999


def wait(request, response):
    response.success, response.label, response.message = request.label == label.label, label, request.source
    return response


def follow(goal):
    goal.publish_feedback(action.WaitForLabel.Feedback(label=label))
    goal.succeed()
    return action.WaitForLabel.Result(success=True, label=label, message=str(goal.request.timeout.sec))


publisher = node.create_publisher(msg.ActionLabel, "label", 10)
events = node.create_publisher(msg.ActionEvent, "event", 10)
event = msg.ActionEvent(kind=msg.ActionEvent.ENDED, label="wave", reason="label")
event.lasted.sec = 3
node.create_timer(0.05, lambda: (publisher.publish(label), events.publish(event)))
node.create_service(srv.WaitForLabel, "wait", wait)
server = ActionServer(node, action.WaitForLabel, "follow", follow)
print("ready", flush=True)
try:
    rclpy.spin(node)
except (KeyboardInterrupt, rclpy.executors.ExternalShutdownException):
    pass
"""


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    namespace = f"messages_{uuid.uuid4().hex}"  # a server that was killed is seen for a while
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, namespace],
        env=dict(os.environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert server.stdout is not None
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    made = rclpy.create_node("client", namespace=namespace)
    try:
        assert server.stdout.readline() == "ready\n"
        yield made
    finally:
        made.destroy_node()
        rclpy.shutdown()
        server.kill()
        server.wait(SECONDS)
        server.stdout.close()


def until(node: Any, is_done: Callable[[], bool]) -> None:
    import rclpy

    for _ in range(int(SECONDS / 0.1)):
        if is_done():
            return
        rclpy.spin_once(node, timeout_sec=0.1)
    pytest.fail(f"nothing came in {SECONDS:g} s")


def answered(node: Any, ask: Callable[[], Any]) -> Any:
    """The answer of a server, asked again where none comes: one that has not found its client's reader yet loses it."""
    import rclpy

    for _ in range(int(SECONDS / 3)):
        answer = ask()
        for _ in range(30):
            if answer.done():
                return answer.result()
            rclpy.spin_once(node, timeout_sec=0.1)
    return pytest.fail(f"no answer in {SECONDS:g} s")


def is_the_label(label: Any) -> bool:
    return (
        (label.header.frame_id, label.header.stamp.sec, label.source) == ("camera_optical", 12, "ir0")
        and (label.state, label.label, label.index, label.confidence) == (4, "wave", 2, 0.75)
        and list(label.probabilities) == [0.25, 0.0, 0.75]
        and (label.reason, label.detail, label.frame_number) == ("low_rate", "12 frames/s", 2**40)
        and label.anomaly != label.anomaly  # NaN
        and label.valid_until.nanosec == 999_999_999
    )


def test_labels_and_events_arrive_as_they_were_sent(node: Any) -> None:
    from kd_edge_msgs.msg import ActionEvent, ActionLabel

    labels: list[Any] = []
    events: list[Any] = []
    node.create_subscription(ActionLabel, "label", labels.append, 10)
    node.create_subscription(ActionEvent, "event", events.append, 10)
    until(node, lambda: bool(labels and events))
    assert is_the_label(labels[0])
    assert (events[0].kind, events[0].label, events[0].reason, events[0].lasted.sec) == (1, "wave", "label", 3)


def test_a_service_answers(node: Any) -> None:
    from kd_edge_msgs.srv import WaitForLabel

    client = node.create_client(WaitForLabel, "wait")
    assert client.wait_for_service(SECONDS)
    request = WaitForLabel.Request(label="wave", source="ir0", min_confidence=0.5)
    answer = answered(node, lambda: client.call_async(request))
    assert (answer.success, answer.message) == (True, "ir0")
    assert is_the_label(answer.label)


def test_an_action_tells_meanwhile_and_at_its_end(node: Any) -> None:
    from kd_edge_msgs.action import WaitForLabel
    from rclpy.action import ActionClient

    client = ActionClient(node, WaitForLabel, "follow")
    assert client.wait_for_server(SECONDS)
    told: list[Any] = []
    goal = WaitForLabel.Goal(label="wave")
    goal.timeout.sec = 7
    for _ in range(20):  # feedback may be lost as answers may
        handle = answered(node, lambda: client.send_goal_async(goal, feedback_callback=told.append))
        assert handle.accepted
        ended = answered(node, handle.get_result_async)
        if told:
            break
    assert (ended.result.success, ended.result.message) == (True, "7")
    assert is_the_label(ended.result.label)
    assert is_the_label(told[0].feedback.label)
    client.destroy()
