"""Service and action "wait for a label", with the messages that kd_edge_msgs builds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2's rclpy is not installed (tools/check_ros.sh runs these tests)")
pytest.importorskip("kd_edge_msgs", reason="kd_edge_msgs is not built (tools/build_ros_packages.py builds it)")

from action_msgs.msg import GoalStatus
from kd_edge_msgs.action import WaitForLabel as WaitAction
from kd_edge_msgs.msg import ActionEvent, ActionLabel
from kd_edge_msgs.srv import WaitForLabel
from rclpy.action import ActionClient
from rclpy.executors import MultiThreadedExecutor, SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter

from tests.runtime.conftest import LABELS
from tests.runtime.ros.graph import Graph
from tests.waiting import PATIENCE_SECONDS, wait_for

SUCCESS = TransitionCallbackReturn.SUCCESS
NAME = "/action_recognition"
pytestmark = pytest.mark.usefixtures("ros_environment")


@pytest.fixture(autouse=True)
def _no_open_files() -> None:
    """The middleware keeps sockets of its own for good."""


@pytest.fixture(params=[SingleThreadedExecutor, MultiThreadedExecutor])
def graph(request: pytest.FixtureRequest) -> Iterator[Graph]:
    graph = Graph(request.param)
    yield graph
    graph.close()


@pytest.fixture
def model(make_model: Callable[..., tuple[Path, Any]]) -> str:
    return str(make_model()[0])


class Watched:
    """A node that is given pictures by the test."""

    def __init__(self, graph: Graph, model: str, **parameters: Any) -> None:
        self.graph = graph
        self.node = graph.node(model=model, valid_ms=60_000.0, read_timeout_ms=60_000, **parameters)
        assert self.node.trigger_configure() == SUCCESS
        self.labels = graph.listen(ActionLabel, f"{NAME}/label")
        assert self.node.trigger_activate() == SUCCESS
        self.images = graph.images()
        self.images.listened_to()
        self.pictures = np.random.default_rng(0).integers(0, 256, size=(64, 24, 32)).astype(np.uint8)
        self.given = 0

    def give(self) -> Any:
        """One picture; its label."""
        count = len(self.labels)
        self.images.give(self.pictures[self.given % 64])
        self.given += 1
        wait_for(lambda: len(self.labels) > count)
        return self.labels[-1]

    def labelled(self) -> Any:
        """Pictures until there is a label."""
        threading.Event().wait(0.02)
        while not (told := self.give()).label:
            threading.Event().wait(0.02)
        return told


def request(kind: Any, label: str, seconds: float, **fields: Any) -> Any:
    made = kind(label=label, **fields)
    made.timeout.sec, made.timeout.nanosec = int(seconds), round(seconds % 1 * 1e9)
    return made


def same(one: Any, other: Any) -> bool:
    """Whether two labels are one; what is not known (NaN) equals nothing."""
    return str(one) == str(other)


def others(label: str) -> str:
    return next(each for each in LABELS if each != label)


def test_the_service_answers_with_the_label_that_holds(graph: Graph, model: str) -> None:
    held = Watched(graph, model).labelled()
    answer = graph.call(WaitForLabel, f"{NAME}/wait_for_label", request(WaitForLabel.Request, held.label, 60))
    assert (answer.success, answer.message) == (True, "")
    assert same(answer.label, held)


def test_the_service_waits_for_the_label_and_labels_go_on_meanwhile(graph: Graph, model: str) -> None:
    watched = Watched(graph, model, max_waits=2)
    client = graph.probe.create_client(WaitForLabel, f"{NAME}/wait_for_label")
    assert client.wait_for_service(PATIENCE_SECONDS)
    futures = [client.call_async(request(WaitForLabel.Request, label, 60)) for label in LABELS]
    wait_for(lambda: any(future.done() for future in futures))
    refused = next(future.result() for future in futures if future.done())
    assert (refused.success, refused.message) == (False, "2 callers wait already (max_waits)")
    waiting = {label: future for label, future in zip(LABELS, futures, strict=True) if not future.done()}
    while not (set(waiting) & {(told := watched.labelled()).label}):
        pass
    wait_for(waiting[told.label].done)
    answer = waiting[told.label].result()
    assert answer.success
    assert same(answer.label, told)
    watched.node.trigger_deactivate()
    (rest,) = (future for label, future in waiting.items() if label != told.label)
    wait_for(rest.done)
    assert rest.result().success or rest.result().message == "the node is not active"


def test_time_that_is_over(graph: Graph, model: str) -> None:
    watched = Watched(graph, model)
    held = watched.labelled()
    answer = graph.call(WaitForLabel, f"{NAME}/wait_for_label", request(WaitForLabel.Request, others(held.label), 0.3))
    assert not answer.success
    assert answer.message.startswith(f"no '{others(held.label)}' in 0.3 s: the last was {held.label}")
    assert same(answer.label, held)


@pytest.mark.parametrize(
    ("label", "fields", "words"),
    [
        ("wve", {}, "label 'wve' is not one of the model's (did you mean 'wave'?)"),
        ("wave", {"source": "left"}, "source 'left' is not a camera of this node. Expected ir"),
        ("wave", {"min_confidence": 1.5}, "min_confidence 1.5"),
    ],
)
def test_what_can_never_come_is_refused_at_once(
    graph: Graph, model: str, label: str, fields: dict[str, Any], words: str
) -> None:
    Watched(graph, model)
    answer = graph.call(WaitForLabel, f"{NAME}/wait_for_label", request(WaitForLabel.Request, label, 60, **fields))
    assert not answer.success
    assert answer.message.startswith(words)


def test_a_node_that_is_not_active_says_so(graph: Graph, model: str) -> None:
    graph.node(model=model)
    answer = graph.call(WaitForLabel, f"{NAME}/wait_for_label", request(WaitForLabel.Request, "wave", 60))
    assert (answer.success, answer.message) == (False, "the node is not active")


class Asked:
    """A goal of the action."""

    def __init__(self, graph: Graph, goal: Any) -> None:
        self.client = ActionClient(graph.probe, WaitAction, f"{NAME}/wait_for_label_action")
        assert self.client.wait_for_server(PATIENCE_SECONDS)
        self.feedback: list[Any] = []
        sent = self.client.send_goal_async(goal, feedback_callback=lambda told: self.feedback.append(told.feedback))
        wait_for(sent.done)
        self.handle = sent.result()
        assert self.handle.accepted
        self.answer = self.handle.get_result_async()

    def result(self) -> tuple[int, Any]:
        wait_for(self.answer.done)
        self.client.destroy()
        return self.answer.result().status, self.answer.result().result


def test_the_action_tells_of_changes_and_succeeds(graph: Graph, model: str) -> None:
    watched = Watched(graph, model)
    first = watched.labelled()
    asked = Asked(graph, request(WaitAction.Goal, others(first.label), 60))
    wait_for(lambda: asked.feedback)
    assert same(asked.feedback[0].label, first)
    while (told := watched.labelled()).label != others(first.label):
        pass
    status, result = asked.result()
    assert (status, result.success) == (GoalStatus.STATUS_SUCCEEDED, True)
    assert same(result.label, told)


def test_the_action_is_aborted_when_its_time_is_over(graph: Graph, model: str) -> None:
    Watched(graph, model)
    status, result = Asked(graph, request(WaitAction.Goal, "wave", 0.2)).result()
    assert (status, result.success) == (GoalStatus.STATUS_ABORTED, False)
    assert result.message == "no 'wave' in 0.2 s: no label came at all"


def test_the_action_can_be_cancelled(graph: Graph, model: str) -> None:
    watched = Watched(graph, model)
    asked = Asked(graph, request(WaitAction.Goal, "wave", 600))
    wait_for(asked.handle.cancel_goal_async().done)
    status, result = asked.result()
    assert (status, result.success, result.message) == (GoalStatus.STATUS_CANCELED, False, "cancelled")
    assert watched.node.trigger_deactivate() == SUCCESS


def test_shutting_down_lets_callers_go(graph: Graph, model: str) -> None:
    watched = Watched(graph, model)
    asked = Asked(graph, request(WaitAction.Goal, "wave", 600))
    watched.node.trigger_shutdown()
    status, result = asked.result()
    assert (status, result.message) == (GoalStatus.STATUS_ABORTED, "the node is not active")


def test_typed_labels_and_events_agree(graph: Graph, model: str) -> None:
    watched = Watched(graph, model)
    events = graph.listen(ActionEvent, f"{NAME}/event")
    told = watched.labelled()
    wait_for(lambda: events)
    (began,) = events[:1]
    assert (began.kind, began.label, began.source) == (ActionEvent.BEGAN, told.label, "ir")
    assert began.began == began.header.stamp == told.header.stamp
    watched.node.trigger_deactivate()
    wait_for(lambda: events[-1].kind == ActionEvent.ENDED)
    assert events[-1].reason == "no_frame"
    assert not [name for name, _ in watched.node.get_topic_names_and_types() if name.endswith("_json")]


def test_typed_messages_do_not_keep_json_from_whoever_asks_for_it(graph: Graph, model: str) -> None:
    node = graph.node(model=model)
    assert node.set_parameters([Parameter("json", value="always")])[0].successful
    assert node.trigger_configure() == SUCCESS
    assert graph.probe.count_publishers(f"{NAME}/label") == 1
    wait_for(lambda: graph.probe.count_publishers(f"{NAME}/label_json") == 1)
