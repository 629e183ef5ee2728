"""Replays with simulated time: the labels of the recording, at any rate, and looped."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2's rclpy is not installed (tools/check_ros.sh runs these tests)")

from rclpy.lifecycle import TransitionCallbackReturn
from rosbags.rosbag2 import Reader, Writer
from rosbags.typesys import Stores, get_typestore
from rosgraph_msgs.msg import Clock
from std_msgs.msg import String

from kd_edge.runtime import Recognizer, stream
from kd_edge.types import Prediction
from tests.runtime.ros.graph import RELIABLE, TOPIC, Graph, image_message
from tests.waiting import wait_for

SUCCESS = TransitionCallbackReturn.SUCCESS
NAME = "/action_recognition"
START_NS = 1_700_000_000_000_000_000
STORE = get_typestore(Stores.ROS2_HUMBLE)
pytestmark = pytest.mark.usefixtures("ros_environment")
Recording = list[tuple[np.ndarray, int]]


@pytest.fixture(autouse=True)
def _no_open_files() -> None:
    """The middleware keeps sockets of its own for good."""


@pytest.fixture
def graph() -> Iterator[Graph]:
    graph = Graph()
    yield graph
    graph.close()


@pytest.fixture
def model(make_model: Callable[..., tuple[Path, Any]]) -> str:
    return str(make_model()[0])


@pytest.fixture
def recording() -> Recording:
    """Three seconds of pictures, 30 a second with jitter."""
    rng = np.random.default_rng(3)
    stamps = START_NS + np.cumsum(rng.integers(28_000_000, 39_000_000, size=90))
    pictures = rng.integers(0, 256, size=(90, 24, 32)).astype(np.uint8)
    return [(picture, int(stamp)) for picture, stamp in zip(pictures, stamps, strict=True)]


@pytest.fixture
def bag(recording: Recording, tmp_path: Path) -> Path:
    """The same as a rosbag2."""
    types = STORE.types
    with Writer(tmp_path / "bag", version=9) as writer:
        kind = "sensor_msgs/msg/Image"
        connection = writer.add_connection(TOPIC, kind, typestore=STORE)
        for picture, stamp in recording:
            time_ = types["builtin_interfaces/msg/Time"](*divmod(stamp, 1_000_000_000))
            header = types["std_msgs/msg/Header"](time_, "cam")
            message = types[kind](header, 24, 32, "mono8", 0, 32, picture.ravel())
            writer.write(connection, stamp + 3_000_000, STORE.serialize_cdr(message, kind))
    return tmp_path / "bag"


def read(bag: Path) -> Recording:
    with Reader(bag) as reader:
        messages = [STORE.deserialize_cdr(raw, "sensor_msgs/msg/Image") for _, _, raw in reader.messages()]
    return [
        (m.data.reshape(m.height, m.width), m.header.stamp.sec * 1_000_000_000 + m.header.stamp.nanosec)
        for m in messages
    ]


Told = tuple[str, str, str, tuple[float, ...]]


def plain(prediction: Prediction) -> Told:
    window = tuple(prediction.as_dict()["probabilities"]) if prediction.index >= 0 else ()
    return prediction.state.value, prediction.label or "", prediction.reason.value, window


class Replayed:
    """The node, and a player that publishes images and ``/clock``."""

    def __init__(self, graph: Graph, model: str) -> None:
        self.node = graph.node(model=model, json="always", use_sim_time=True, valid_ms=60_000.0, read_timeout_ms=60_000)
        self._graph = graph
        self._clock = graph.probe.create_publisher(Clock, "/clock", RELIABLE)
        assert self.node.trigger_configure() == SUCCESS
        self._heard = graph.listen(String, f"{NAME}/label_json")
        assert self.node.trigger_activate() == SUCCESS
        self.images = graph.images()
        self.images.listened_to()
        wait_for(lambda: self._clock.get_subscription_count() > 0)

    def set_clock(self, ns: int) -> None:
        """Let the node know the time."""
        message = Clock()
        message.clock.sec, message.clock.nanosec = divmod(ns, 1_000_000_000)
        self._clock.publish(message)
        wait_for(lambda: self.node.get_clock().now().nanoseconds == ns)

    def play(self, recording: Recording, lag_ns: int = 0) -> list[Told]:
        """Publish it, each image when the one before is labelled; the clock goes in steps and lags behind by them."""
        first_ns, told = recording[0][1], []
        step = -1
        for picture, stamp in recording:
            due = (stamp - first_ns) // max(1, lag_ns)
            if due != step:
                step = due
                self.set_clock(stamp if not lag_ns else first_ns + step * lag_ns)
            told.append(self._label(picture, stamp))
        return told

    def _label(self, picture: np.ndarray, stamp: int) -> Told:
        self.images.give(picture, stamp)
        found: list[dict[str, Any]] = []
        seen = len(self._heard)

        def is_there() -> bool:
            labels = [json.loads(each.data) for each in tuple(self._heard[max(0, seen - 1) :])]
            found[:] = [each for each in labels if _stamp(each) == stamp]
            return bool(found)

        wait_for(is_there)
        last = found[-1]
        return last["state"], last["label"], last["reason"], tuple(last["probabilities"])


def _stamp(label: dict[str, Any]) -> int:
    stamp = label["header"]["stamp"]
    return int(stamp["sec"] * 1_000_000_000 + stamp["nanosec"])


def directly(model: str, recording: Sequence[tuple[np.ndarray, int]]) -> list[Told]:
    """Pushed by hand."""
    with Recognizer.load(model, valid_ms=60_000) as recognizer:
        predictions = [recognizer.push(picture, stamp) for picture, stamp in recording]
    return [plain(each) for each in predictions if each is not None]


def test_the_node_a_replay_and_a_push_by_hand_give_the_same_labels(
    graph: Graph, model: str, recording: Recording, bag: Path
) -> None:
    by_hand = directly(model, recording)
    assert len({label for _, label, _, _ in by_hand}) > 1
    with stream(model=model, camera=f"replay:{bag}", valid_ms=60_000) as labels:
        replayed = [plain(each) for each in labels]
    assert replayed == by_hand
    assert Replayed(graph, model).play(read(bag)) == by_hand


@pytest.mark.parametrize("lag_ms", [25, 250, 800])
def test_a_clock_that_comes_seldom_changes_no_label(
    graph: Graph, model: str, recording: Recording, lag_ms: int
) -> None:
    """``ros2 bag play --clock`` tells the time 40 times a real second: at rate 10 every 250 ms of the recording."""
    assert Replayed(graph, model).play(recording, lag_ms * 1_000_000) == directly(model, recording)


def test_a_looped_bag_begins_a_new_window_with_its_reason(graph: Graph, model: str, recording: Recording) -> None:
    replayed = Replayed(graph, model)
    first, second = replayed.play(recording), replayed.play(recording)
    assert (second[0][0], second[0][2]) == ("warming", "clock_jump")
    assert "ok" not in {state for state, _, _, _ in second[:5]}
    labelled = [(a, b) for a, b in zip(first, second, strict=True) if a[1]]
    assert labelled
    assert all(a == b for a, b in labelled)


def test_no_clock_at_all_is_told_and_nothing_looks_fresh(graph: Graph, model: str) -> None:
    node = graph.node(model=model, use_sim_time=True, json="always", diagnostics_period_s=0.2, read_timeout_ms=200)
    assert node.trigger_configure() == SUCCESS
    heard = graph.listen(String, f"{NAME}/label_json")
    assert node.trigger_activate() == SUCCESS
    images = graph.images()
    images.listened_to()
    told = graph.said(NAME, "/clock")
    assert told.level == b"\2"
    for _ in range(10):
        images._publisher.publish(image_message(np.zeros((24, 32), np.uint8), START_NS))
        time.sleep(0.02)
    assert not [each for each in heard if json.loads(each.data)["label"]]


def test_a_clock_that_stands_still_is_told(graph: Graph, model: str, recording: Recording) -> None:
    replayed = Replayed(graph, model)
    replayed.play(recording[:5])
    told = graph.said(NAME, "stands still")
    assert told.level == b"\2"
    ns = recording[5][1]

    def goes_on() -> bool:
        nonlocal ns
        ns += 10_000_000
        replayed.set_clock(ns)
        return "stands still" not in graph.status(NAME).message

    wait_for(goes_on)
