"""The node in a graph of its own: transitions, labels, parameters, faults."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2's rclpy is not installed (tools/check_ros.sh runs these tests)")

import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.executors import MultiThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import String

from kd_edge.errors import ConfigError, KdEdgeError
from tests.runtime.conftest import open_files
from tests.runtime.ros.graph import RELIABLE, TOPIC, Graph, Images
from tests.runtime.test_lens import SPEC
from tests.waiting import wait_for

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
NAME = "/action_recognition"
CAMERA = f"{NAME}: ir"
pytestmark = pytest.mark.usefixtures("ros_environment")


@pytest.fixture(autouse=True)
def _no_open_files() -> Iterator[None]:
    """A test must not leave files or cameras open; the middleware keeps sockets of its own for good."""
    before = files()
    yield
    wait_for(lambda: not files() - before)


def files() -> Counter[str]:
    return Counter(f for f in open_files() if not f.startswith(("socket:", "anon_inode:")))


@pytest.fixture
def model(make_model: Callable[..., tuple[Path, Any]]) -> str:
    """A tiny artifact; labels hold for ten seconds, so that a slow machine is no fault."""
    return str(make_model()[0])


@pytest.fixture
def graph() -> Iterator[Graph]:
    graph = Graph()
    yield graph
    graph.close()
    wait_for(lambda: not label_threads())


def label_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith(("kd-edge labels", "kd-edge capture"))]


def state_of(node: Any) -> str:
    return str(node._state_machine.current_state[1])


def pictures(count: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, size=(count, 24, 32)).astype(np.uint8)


class Camera:
    """Publishes pictures at some 50 Hz until it is stopped."""

    def __init__(self, images: Images) -> None:
        self._images, self._stop = images, threading.Event()
        self._thread = threading.Thread(target=self._run, name="kd-edge test camera")

    def _run(self) -> None:
        shots = pictures()
        count = 0
        while not self._stop.wait(0.02):
            self._images.give(shots[count % len(shots)])
            count += 1

    def __enter__(self) -> Camera:
        self._thread.start()
        return self

    def __exit__(self, *told: object) -> None:
        self._stop.set()
        self._thread.join()


def labels_of(graph: Graph, name: str = NAME) -> list[dict[str, Any]]:
    """Labels as JSON, as they come."""
    heard = graph.listen(String, f"{name}/label_json")

    class Parsed(list):  # type: ignore[type-arg]
        def __iter__(self) -> Iterator[dict[str, Any]]:
            return iter([json.loads(each.data) for each in tuple(heard)])

    return Parsed()


def test_every_transition(graph: Graph, model: str) -> None:
    node = graph.node(model=model, json="always", valid_ms=10_000.0)
    assert (state_of(node), label_threads()) == ("unconfigured", [])
    assert node.trigger_configure() == SUCCESS
    assert (state_of(node), label_threads()) == ("inactive", [])
    labels = labels_of(graph)
    with Camera(graph.images()):
        assert node.trigger_activate() == SUCCESS
        wait_for(lambda: any(each["label"] for each in labels))
        assert len(label_threads()) == 2
        assert node.trigger_deactivate() == SUCCESS
    assert (state_of(node), label_threads()) == ("inactive", [])
    wait_for(lambda: [*labels][-1]["detail"] == "the node was deactivated")
    assert [*labels][-1]["state"] == "stale"
    count = len([*labels])
    with Camera(graph.images()):
        assert node.trigger_activate() == SUCCESS
        wait_for(lambda: any(each["label"] for each in [*labels][count:]))
        assert node.trigger_deactivate() == SUCCESS
    assert node.trigger_cleanup() == SUCCESS
    assert (state_of(node), label_threads()) == ("unconfigured", [])
    assert [name for name, _ in node.get_publisher_names_and_types_by_node(node.get_name(), "/")].count(TOPIC) == 0
    assert node.trigger_configure() == SUCCESS
    assert node.trigger_shutdown() == SUCCESS
    assert (state_of(node), label_threads()) == ("finalized", [])


@pytest.mark.parametrize("steps", [[], ["configure"], ["configure", "activate"]])
def test_shutdown_and_destruction_from_every_state(graph: Graph, model: str, steps: list[str]) -> None:
    for end in ("trigger_shutdown", "destroy_node"):
        node = graph.node(model=model)
        for step in steps:
            assert getattr(node, f"trigger_{step}")() == SUCCESS
        assert len(label_threads()) == (2 if "activate" in steps else 0)
        getattr(node, end)()
        assert label_threads() == []


def test_ros_shut_down_by_somebody_else_leaves_no_thread(model: str) -> None:
    graph = Graph()
    node = graph.node("shut", model=model, autostart=True)  # the graph of others shows it for a while
    wait_for(lambda: state_of(node) == "active")
    assert len(label_threads()) == 2
    rclpy.shutdown(context=graph.context)
    wait_for(lambda: not label_threads())
    assert node.over.wait(10)
    graph.close()


def test_a_lifecycle_manager_does_it_by_services(graph: Graph, model: str) -> None:
    graph.node(model=model)
    for step in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
        assert graph.call(
            ChangeState, f"{NAME}/change_state", ChangeState.Request(transition=Transition(id=step))
        ).success
    assert graph.call(GetState, f"{NAME}/get_state", GetState.Request()).current_state.label == "active"


def test_autostart(graph: Graph, model: str) -> None:
    node = graph.node(model=model, autostart=True)
    wait_for(lambda: state_of(node) == "active")
    assert not node.over.is_set()


def test_autostart_that_fails_says_so_and_with_which_exit_code_to_end(graph: Graph) -> None:
    node = graph.node(model="/nowhere.onnx", autostart=True)
    assert node.over.wait(60)
    assert (node.exit_code, state_of(node)) == (2, "unconfigured")
    told = graph.said(NAME, "not configured")
    assert told.level == b"\2"
    assert "/nowhere.onnx" in told.message


def test_a_model_for_another_band_is_refused_in_one_line(graph: Graph, model: str) -> None:
    node = graph.node(model=model, band="lwir")
    assert node.trigger_configure() == FAILURE
    assert state_of(node) == "unconfigured"
    assert node.fault == (
        "not configured: camera ir has band lwir. Expected band nir, which this model was trained for. Fix: use a "
        "model for this camera, or another camera or pixel format (kd-edge cameras)"
    )
    assert graph.said(NAME, "band lwir").level == b"\2"
    assert node.set_parameters([Parameter("band", value="nir")])[0].successful
    assert node.trigger_configure() == SUCCESS
    assert node.fault == ""


def test_kd_edges_own_camera_of_another_band_is_refused_when_it_is_opened(graph: Graph, model: str) -> None:
    node = graph.node(model=model, camera="synthetic:?band=depth")
    assert node.trigger_configure() == SUCCESS
    assert node.trigger_activate() == FAILURE
    assert (state_of(node), label_threads()) == ("inactive", [])
    assert "depth" in node.fault
    assert graph.said(NAME, "not activated").level == b"\2"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"camera": "ir77"}, "ir77"),
        ({"topics": ["a=/x", "a=/y"]}, "two topics called 'a'"),
        ({"topics": ["1 2"]}, "1 2"),
        ({"hfov_deg": 2.0}, "hfov_deg"),
        ({"camera": "synthetic:", "pair_slop_ms": 5.0}, "pair_slop_ms"),
    ],
)
def test_what_cannot_be_configured_is_one_line(graph: Graph, model: str, changes: dict[str, Any], words: str) -> None:
    node = graph.node(model=model, **changes)
    assert node.trigger_configure() == FAILURE
    assert words in node.fault
    assert "\n" not in node.fault
    assert graph.said(NAME, words).level == b"\2"
    assert state_of(node) == "unconfigured"


@pytest.mark.parametrize(
    ("name", "value"),
    [("depth", 1000), ("annotated_fps", 1e9), ("publish", "sometimes"), ("valid_ms", 500), ("topics", "image")],
)
def test_a_parameter_that_cannot_be_keeps_the_node_from_being_configured(
    graph: Graph, model: str, name: str, value: Any
) -> None:
    node = graph.node(model=model, **{name: value})
    assert node.trigger_configure() == FAILURE
    assert f"parameter {name}" in node.fault
    assert "\n" not in node.fault
    assert graph.said(NAME, f"parameter {name}").level == b"\2"
    good = node.get_parameter(name).value
    assert node.set_parameters([Parameter(name, value=good)])[0].successful
    if name != "topics":
        assert node.trigger_configure() == SUCCESS


def test_parameters_are_declared_with_ranges_and_descriptions(graph: Graph, model: str) -> None:
    from kd_edge.runtime.ros.parameters import PARAMETERS

    node = graph.node(model=model)
    for each in PARAMETERS:
        told = node.describe_parameter(each.name)
        assert told.description == each.description
        if each.kind == "int":
            assert (told.integer_range[0].from_value, told.integer_range[0].to_value) == (each.least, each.most)
        if each.kind == "float":
            told_range = told.floating_point_range[0]
            assert (told_range.from_value, told_range.to_value) == (each.least, each.most)


def test_parameters_change_live_where_that_is_safe_and_else_are_refused_with_a_reason(graph: Graph, model: str) -> None:
    node = graph.node(model=model)
    assert node.trigger_configure() == SUCCESS
    assert node.trigger_activate() == SUCCESS
    refused = node.set_parameters([Parameter("model", value="other.onnx")])[0]
    assert not refused.successful
    assert refused.reason == ("parameter model is read when the node is configured: deactivate and clean it up first")
    assert not node.set_parameters([Parameter("event_min_confidence", value=2.0)])[0].successful
    assert not node.set_parameters([Parameter("autostart", value=True)])[0].successful
    assert not node.set_parameters([Parameter("use_sim_time", value=True)])[0].successful
    for name, value in (("publish", "change"), ("annotated_fps", 0.0), ("max_age_ms", 100.0)):
        assert node.set_parameters([Parameter(name, value=value)])[0].successful
    before = len(graph.told)
    assert node.set_parameters([Parameter("diagnostics_period_s", value=0.1)])[0].successful
    wait_for(lambda: len(graph.told) > before + 20)


def test_several_nodes_in_one_process(graph: Graph, model: str) -> None:
    left = graph.node(model=model, namespace="/left", json="always", valid_ms=10_000.0, topics=["image"])
    right = graph.node("other", model=model, json="always", valid_ms=10_000.0)
    for node in (left, right):
        assert node.trigger_configure() == SUCCESS
        assert node.trigger_activate() == SUCCESS
    of_left, of_right = labels_of(graph, "/left/action_recognition"), labels_of(graph, "/other")
    with Camera(graph.images("/left/image")), Camera(graph.images()):
        wait_for(lambda: any(each["label"] for each in of_left))
        wait_for(lambda: any(each["label"] for each in of_right))
    assert {each["source"] for each in of_left} == {"/left/image"}
    assert {each["source"] for each in of_right} == {"ir"}
    left.trigger_shutdown()
    assert state_of(right) == "active"


def test_headers_are_carried_through_and_labels_run_out_in_their_clock(graph: Graph, model: str) -> None:
    node = graph.node(model=model, json="always", valid_ms=10_000.0)
    assert node.trigger_configure() == SUCCESS
    labels = labels_of(graph)
    assert node.trigger_activate() == SUCCESS
    images = graph.images()
    images.listened_to()
    stamp_ns = images.give(pictures()[0])
    wait_for(lambda: any(each["frame_number"] == 0 and each["header"]["frame_id"] for each in labels))
    first = next(each for each in labels if each["header"]["frame_id"])
    assert first["header"] == {
        "stamp": {"sec": stamp_ns // 10**9, "nanosec": stamp_ns % 10**9},
        "frame_id": "cam_optical",
    }
    until = first["valid_until"]["sec"] * 10**9 + first["valid_until"]["nanosec"]
    assert until == stamp_ns + 10_000_000_000
    assert (first["state"], first["reason"]) == ("warming", "start")


def test_a_label_that_ran_out_is_superseded_by_a_stale_one_and_its_event_ends(graph: Graph, model: str) -> None:
    node = graph.node(model=model, json="always", valid_ms=1500.0, publish="change")
    assert node.trigger_configure() == SUCCESS
    labels, events = labels_of(graph), graph.listen(String, f"{NAME}/event_json")
    assert node.trigger_activate() == SUCCESS
    with Camera(graph.images()):
        wait_for(lambda: any(json.loads(e.data)["kind"] == "began" for e in tuple(events)))
    wait_for(lambda: [*labels][-1]["state"] == "stale")
    last = [*labels][-1]
    assert (last["label"], last["index"]) == ("", -1)
    assert last["reason"] in ("no_frame", "camera_lost")
    wait_for(lambda: json.loads(events[-1].data)["kind"] == "ended")
    assert json.loads(events[-1].data)["reason"] in ("no_frame", "camera_lost", "late")
    graph.said(CAMERA, "stale")


def test_a_topic_that_never_publishes_is_told(graph: Graph, model: str) -> None:
    node = graph.node(model=model, read_timeout_ms=100, diagnostics_period_s=0.2)
    assert node.trigger_configure() == SUCCESS
    assert node.trigger_activate() == SUCCESS
    told = graph.said(CAMERA, f"nobody publishes {TOPIC}")
    assert told.level in (b"\2", b"\3")
    assert "\n" not in told.message
    assert {v.key: v.value for v in told.values}["publishers"] == "0"


def test_an_encoding_that_cannot_be_read_and_a_lying_step_are_told(graph: Graph, model: str) -> None:
    node = graph.node(model=model, read_timeout_ms=200, diagnostics_period_s=0.2)
    assert node.trigger_configure() == SUCCESS
    assert node.trigger_activate() == SUCCESS
    images = graph.images()
    images.listened_to()

    def give(**fields: Any) -> None:
        stop = threading.Event()

        def run() -> None:
            while not stop.wait(0.05):
                images.give(pictures(1)[0], **fields)

        thread = threading.Thread(target=run, name="kd-edge test camera")
        thread.start()
        try:
            words = {"encoding": "yuv422", "step": "bytes", "width": "0"}[next(iter(fields))]
            told = graph.said(CAMERA, words)
            assert told.level in (b"\2", b"\3")
            assert "\n" not in told.message
        finally:
            stop.set()
            thread.join()
            graph.told.clear()

    give(encoding="yuv422")
    give(step=7)
    give(width=0, height=0)


@pytest.mark.parametrize(("stamp_ns", "reason"), [(0, "clock_behind"), (2_000_000_000_000_000_000, "clock_ahead")])
def test_stamps_of_zero_or_of_another_clock_are_told(graph: Graph, model: str, stamp_ns: int, reason: str) -> None:
    node = graph.node(model=model, diagnostics_period_s=0.2, json="always", read_timeout_ms=60_000)
    assert node.trigger_configure() == SUCCESS
    labels = labels_of(graph)
    assert node.trigger_activate() == SUCCESS
    images = graph.images()
    images.listened_to()

    def is_told() -> bool:
        images.give(pictures(1)[0], stamp_ns)
        time.sleep(0.05)
        return any(each["reason"] == reason for each in labels)

    wait_for(is_told)
    assert not any(each["label"] for each in labels)
    assert graph.said(CAMERA, reason).level == b"\2"
    assert "\n" not in graph.said(CAMERA, reason).message


def test_two_nodes_of_one_name_are_told(graph: Graph, model: str) -> None:
    for _ in range(2):
        graph.node("twin", model=model, diagnostics_period_s=0.1)
    assert graph.said("/twin", "2 nodes are called /twin").level == b"\1"


def test_a_recording_that_ends_deactivates_the_node(graph: Graph, model: str, tmp_path: Path) -> None:
    np.save(tmp_path / "short.npy", pictures(20))
    node = graph.node(
        model=model, camera=f"left=replay:{tmp_path / 'short.npy'}", autostart=True, json="always", frame_id="map"
    )
    labels = labels_of(graph)
    assert node.over.wait(60)
    wait_for(lambda: state_of(node) == "inactive")
    assert (node.exit_code, node.fault) == (0, "")
    wait_for(lambda: any(each["detail"] == "the node was deactivated" for each in labels))
    assert {each["source"] for each in labels} == {"left"}
    assert {each["header"]["frame_id"] for each in labels} == {"map"}


def test_an_unforeseen_error_leaves_it_unconfigured_and_says_what_it_was(
    graph: Graph, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: Any) -> Any:
        raise ZeroDivisionError("nobody foresaw that")

    node = graph.node(model=model)
    monkeypatch.setattr("kd_edge.runtime.ros.work.Sources", fails)
    assert node.trigger_configure() == TransitionCallbackReturn.ERROR
    assert (state_of(node), node.fault) == ("unconfigured", "not configured: ZeroDivisionError: nobody foresaw that")
    monkeypatch.undo()
    assert node.trigger_configure() == SUCCESS


def test_an_engine_that_fails_for_good_ends_the_labels_with_one_line(
    graph: Graph, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = graph.node(model=model, autostart=True)
    wait_for(lambda: state_of(node) == "active")

    def fails(*arguments: Any, **options: Any) -> Any:
        raise KdEdgeError("the engine is gone", "one that works", "start again")

    monkeypatch.setattr("kd_edge.runtime.recognizer.Recognizer.push_many", fails)
    with Camera(graph.images()):
        assert node.over.wait(60)
    wait_for(lambda: state_of(node) == "inactive")
    assert node.fault == "the engine is gone. Expected one that works. Fix: start again"
    assert node.exit_code == 2
    assert graph.said(NAME, "the engine is gone").level == b"\2"
    assert label_threads() == []


def test_annotated_images_only_while_somebody_looks(graph: Graph, model: str) -> None:
    from sensor_msgs.msg import Image

    node = graph.node(model=model, annotated_fps=60.0, valid_ms=10_000.0)
    assert node.trigger_configure() == SUCCESS
    assert node.trigger_activate() == SUCCESS
    with Camera(graph.images()):
        seen = graph.listen(Image, f"{NAME}/annotated")
        wait_for(lambda: len(seen) > 3)
    assert (seen[0].encoding, seen[0].width, seen[0].height) == ("rgb8", 320, 240 + 28)
    assert len(seen[0].data) == 320 * 268 * 3
    assert seen[0].header.frame_id == "cam_optical"


def test_in_an_executor_of_several_threads(model: str) -> None:
    graph = Graph(MultiThreadedExecutor)
    try:
        node = graph.node(model=model, json="always", valid_ms=10_000.0, autostart=True)
        wait_for(lambda: state_of(node) == "active")
        labels = labels_of(graph)
        with Camera(graph.images()):
            wait_for(lambda: any(each["label"] for each in labels))
    finally:
        graph.close()
    wait_for(lambda: not label_threads())


def test_a_lens_that_becomes_known_later_begins_the_labels_again_once(
    graph: Graph, make_model: Callable[..., tuple[Path, Any]]
) -> None:
    model = make_model(preprocess=SPEC, dtype="uint16", clip_seconds=1.2)[0]
    node = graph.node(model=str(model), json="always", valid_ms=60_000.0, read_timeout_ms=60_000)
    assert node.trigger_configure() == SUCCESS
    labels = labels_of(graph)
    assert node.trigger_activate() == SUCCESS
    recognizer = node._ActionRecognition__work.recognizer
    images = graph.images()
    images.listened_to()
    info = graph.probe.create_publisher(CameraInfo, "/cam/camera_info", RELIABLE)
    depth = np.full((96, 128), 2000, np.uint16)

    def starts() -> int:
        """How often a first frame came, whose window fills for the first time."""
        return len([each for each in labels if each["frame_number"] == 0 and each["header"]["frame_id"]])

    def given() -> int:
        images.give(depth)
        time.sleep(0.02)
        return starts()

    wait_for(lambda: given() == 1)
    wait_for(lambda: info.get_subscription_count() == 1)
    info.publish(CameraInfo(width=128, height=96, k=[96.0, 0, 64.0, 0, 96.0, 48.0, 0, 0, 1.0]))
    wait_for(lambda: given() == 2)
    recognizer.expect(["ir"], focal=0.75)
    with pytest.raises(ConfigError, match=r"which has 0\.75"):
        recognizer.expect(["ir"], focal=0.5)
    for _ in range(5):
        given()
    assert starts() == 2


@pytest.mark.filterwarnings("ignore:Deprecated in favor")  # in rclpy's own words of the publisher
def test_qos_that_cannot_match_is_told_by_the_name_of_the_policy(graph: Graph, model: str) -> None:
    node = graph.node(model=model, reliability="reliable", read_timeout_ms=200, diagnostics_period_s=0.2)
    assert node.trigger_configure() == SUCCESS
    assert node.trigger_activate() == SUCCESS
    images = graph.images(qos=qos_profile_sensor_data)  # best effort

    def is_told() -> bool:
        images.give(pictures(1)[0])
        time.sleep(0.02)
        return CAMERA in graph.statuses and "RELIABILITY" in graph.statuses[CAMERA].message

    wait_for(is_told)
    assert graph.said(CAMERA, "RELIABILITY").level == b"\2"
    assert {v.key: v.value for v in graph.said(CAMERA, "RELIABILITY").values}["QoS mismatch"] == "RELIABILITY"


@pytest.mark.parametrize("clock", ["device", "arrival"])
def test_stamps_of_another_clock_an_hour_ahead_do_not_make_labels_last(graph: Graph, model: str, clock: str) -> None:
    node = graph.node(model=model, json="always", valid_ms=10_000.0, clock=clock)
    assert node.trigger_configure() == SUCCESS
    labels = labels_of(graph)
    assert node.trigger_activate() == SUCCESS
    images = graph.images()
    images.listened_to()
    ros_ns = graph.probe.get_clock().now().nanoseconds
    stamp_ns = images.give(pictures()[0], ros_ns + 3_600_000_000_000)
    wait_for(lambda: any(each["header"]["frame_id"] == "cam_optical" for each in labels))
    later_ns = graph.probe.get_clock().now().nanoseconds
    first = next(each for each in labels if each["header"]["frame_id"] == "cam_optical")
    assert first["header"]["stamp"] == {"sec": stamp_ns // 10**9, "nanosec": stamp_ns % 10**9}
    until_ns = first["valid_until"]["sec"] * 10**9 + first["valid_until"]["nanosec"]
    assert ros_ns <= until_ns - 10_000_000_000 <= later_ns


def test_a_shutdown_that_waits_for_the_stream_is_not_waited_for_by_it(graph: Graph, model: str) -> None:
    """Whoever shuts ROS down holds the context's lock meanwhile; a state may change in that moment."""
    node = graph.node(model=model)
    assert node.trigger_configure() == SUCCESS
    report = threading.Thread(target=node._ActionRecognition__report, name="kd-edge test report")
    with graph.context._lock:
        report.start()
        report.join(30)
        assert not report.is_alive()


def test_labels_that_end_while_the_node_is_being_activated_deactivate_it(
    graph: Graph, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their end is told to the executor before the transition is over."""
    np.save(tmp_path / "short.npy", np.zeros((2, 24, 32), np.uint8))
    node = graph.node(model=model, camera=f"replay:{tmp_path / 'short.npy'}")
    ended, over = threading.Event(), node._ActionRecognition__labels_over
    monkeypatch.setattr(node, "_ActionRecognition__labels_over", lambda error: (over(error), ended.set()))
    assert node.trigger_configure() == SUCCESS
    work = node._ActionRecognition__work
    start = work.start

    def slowly() -> None:
        start()
        assert ended.wait(60)
        threading.Event().wait(0.3)  # the executor has looked at it meanwhile

    monkeypatch.setattr(work, "start", slowly)
    assert node.trigger_activate() == SUCCESS
    wait_for(lambda: node._state_machine.current_state[1] == "inactive")


def test_a_label_of_before_has_not_the_stamp_of_a_frame_of_now(graph: Graph, model: str) -> None:
    """Each run of labels counts its frames from 0."""
    node = graph.node(model=model, json="always", valid_ms=60_000.0)
    assert node.trigger_configure() == SUCCESS
    labels = labels_of(graph)
    images = graph.images()
    work = node._ActionRecognition__work
    assert node.trigger_activate() == SUCCESS
    images.listened_to()
    images.give(pictures()[0])
    wait_for(lambda: any(each["header"]["frame_id"] == "cam_optical" for each in labels))
    before = work._newest["ir"]
    assert work._sources.origin(before).frame_id == "cam_optical"
    assert node.trigger_deactivate() == SUCCESS
    assert node.trigger_activate() == SUCCESS
    wait_for(lambda: work._sources._topics["ir"].header_of(before.frame_id) is None)


@pytest.mark.parametrize("size", [(1, 1), (2000, 24)])
def test_a_picture_of_a_size_that_no_camera_has_is_told_and_labels_go_on(
    graph: Graph, model: str, size: tuple[int, int]
) -> None:
    node = graph.node(model=model, json="always", diagnostics_period_s=0.2)
    assert node.trigger_configure() == SUCCESS
    labels = labels_of(graph)
    assert node.trigger_activate() == SUCCESS
    images = graph.images()
    images.listened_to()
    images.give(np.zeros(size, np.uint8))
    wait_for(lambda: any(f"delivers frames of {size[1]}x{size[0]}" in each["detail"] for each in labels))
    labels.clear()
    with Camera(images):
        wait_for(lambda: any(each["label"] for each in labels))
    assert node._state_machine.current_state[1] == "active"
