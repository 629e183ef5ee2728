"""Topics as cameras, with publishers in another process; real ROS 2 on loopback."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import pytest

from kd_edge.errors import BadPictureError, CameraError
from kd_edge.runtime.cameras import Wanted, open_camera
from kd_edge.runtime.cameras.base import Camera
from kd_edge.runtime.cameras.config import CameraConfig, TimeOuts
from kd_edge.runtime.capture import Capture
from kd_edge.runtime.feed import Feeds
from kd_edge.runtime.mailbox import Captured
from kd_edge.runtime.options import StreamOptions
from kd_edge.runtime.ros import pairing as pairing_module
from kd_edge.runtime.ros.camera import RosCamera, TopicCamera
from kd_edge.runtime.ros.clock import RosClock
from kd_edge.runtime.ros.pairing import Pairing
from kd_edge.runtime.ros.qos import TopicQos
from kd_edge.runtime.ros.session import Session
from kd_edge.runtime.ros.topic import ImageTopic
from kd_edge.runtime.stream import LabelStream
from kd_edge.types import LabelState, Reason
from tests.runtime.ros.conftest import ROOT, Publisher, eventually
from tests.runtime.ros.messages import CASES, Case, grey_fields
from tests.waiting import PATIENCE_SECONDS

NAME = "/camera/infra1/image_rect_raw"
KNOWN = "/known/image"
URI = f"ros2:{NAME}?open_timeout_ms=60000"
SMALL = grey_fields(8, 4)
GREY = Wanted("nir", "uint8", 1)


def config(name: str = NAME, **keys: Any) -> CameraConfig:
    return CameraConfig(uri=f"ros2:{name}", **keys)


def noise(count: int = 1, width: int = 64, height: int = 48) -> list[dict[str, Any]]:
    """Messages of noise, each another one."""
    pictures = np.random.default_rng(0).integers(40, 200, (count, height, width), np.uint8)
    return [{**grey_fields(width, height), "data": base64.b64encode(one.tobytes()).decode()} for one in pictures]


@pytest.fixture
def publishing(publisher: Publisher) -> Iterator[Callable[..., Publisher]]:
    """Begins to publish one message again and again, in the background; it has ended when the test has."""
    begun: list[str] = []

    def begin(topic: str = NAME, fields: dict[str, Any] | None = None, **how: Any) -> Publisher:
        publisher.advertise(topic=topic, type=how.pop("type", "Image"), reliable=how.pop("reliable", True))
        publisher.send("begin", topic=topic, fields=fields or SMALL, **how)
        publisher.answer()
        begun.append(topic)
        return publisher

    yield begin
    if publisher.process.poll() is None:
        for topic in begun:
            publisher.end(topic=topic)


# --------------------------------------------------------------------------------------------- inside somebody's node


@pytest.fixture(scope="module")
def known(ros_environment: None) -> Iterator[tuple[ImageTopic, Publisher]]:
    """A topic and its publisher, which know each other."""
    publisher, session = Publisher(), Session()
    publisher.advertise(topic=KNOWN)
    topic = ImageTopic(session.node, KNOWN)
    eventually(lambda: topic.look() or publisher.heard(topic=KNOWN), "they match")
    yield topic, publisher
    topic.close()
    session.close()
    publisher.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_encoding_endianness_and_stride_over_the_wire(known: tuple[ImageTopic, Publisher], case: Case) -> None:
    topic, publisher = known
    camera = TopicCamera("ir", topic, config(), Wanted(), patient=True)
    camera.open()
    publisher.publish(topic=KNOWN, fields=case.fields, stamp=3.25, frame_id="imager")
    frame = camera.read(PATIENCE_SECONDS)
    assert frame is not None
    assert (frame.image.dtype, frame.image.tolist()) == (case.dtype, case.picture)
    assert (frame.captured_ns, frame.frame_id, frame.source) == (3_250_000_000, 0, "ir")
    assert (camera.dtype, camera.channels) == (case.dtype, frame.image.ndim if frame.image.ndim == 3 else 1)
    header = topic.header_of(0)
    assert (header.stamp.sec, header.stamp.nanosec, header.frame_id) == (3, 250_000_000, "imager")
    camera.close()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"step": 0}, "camera ir: an image of 8x4 mono8 has 32 bytes in rows of 0, not 32"),
        ({"step": 7}, "camera ir: an image of 8x4 mono8 has 32 bytes in rows of 7, not 32"),
        ({"height": 400_000}, "camera ir: an image of 8x400000 mono8 has 32 bytes in rows of 8, not 3,200,000"),
        ({"width": 0}, "camera ir: 0x4 pixels, not 1 to 10,000,000"),
        (grey_fields(4000, 4000), "camera ir: 4000x4000 pixels, not 1 to 10,000,000"),
    ],
)
def test_a_message_that_lies_is_a_bad_picture_and_the_next_one_is_good(
    known: tuple[ImageTopic, Publisher], change: dict[str, Any], told: str
) -> None:
    topic, publisher = known
    camera = TopicCamera("ir", topic, config(), GREY, patient=True)
    camera.open()
    publisher.publish(topic=KNOWN, fields={**SMALL, **change})
    with pytest.raises(BadPictureError) as caught:
        camera.read(PATIENCE_SECONDS)
    assert caught.value.found == told
    publisher.publish(topic=KNOWN, fields=SMALL)
    assert camera.read(PATIENCE_SECONDS) is not None
    camera.close()


@pytest.mark.parametrize(
    ("encoding", "wanted", "told"),
    [
        ("yuv422", GREY, "an image is encoded as 'yuv422', not as one of mono8, 8UC1,"),
        ("mono16", GREY, "its encoding mono16 gives uint16, 1 channel; this model needs uint8, 1"),
        ("mono8", Wanted("lwir", "uint16", 1), "its encoding mono8 gives uint8, 1 channel; this model needs uint16, 1"),
        ("mono8", Wanted("rgb", "uint8", 3), "its encoding mono8 gives uint8, 1 channel; this model needs uint8, 3"),
        ("32FC1", Wanted("lwir", "uint16", 1), "its encoding 32FC1 is depth in metres"),
    ],
)
def test_an_encoding_that_the_model_can_make_nothing_of_is_told(
    known: tuple[ImageTopic, Publisher], encoding: str, wanted: Wanted, told: str
) -> None:
    topic, publisher = known
    camera = TopicCamera("ir", topic, config(), wanted, patient=True)
    camera.open()
    size = {"mono16": 2, "32FC1": 4}.get(encoding, 1)
    fields = {"width": 8, "height": 4, "encoding": encoding, "step": 8 * size, "data": {"zeros": 32 * size}}
    publisher.publish(topic=KNOWN, fields=fields)
    with pytest.raises(CameraError) as caught:
        camera.read(PATIENCE_SECONDS)
    assert not isinstance(caught.value, BadPictureError)
    assert caught.value.found.startswith(f"camera ir: {told}")
    camera.close()


def test_colour_is_made_grey_for_a_model_of_grey(known: tuple[ImageTopic, Publisher]) -> None:
    topic, publisher = known
    camera = TopicCamera("ir", topic, config(), GREY, patient=True)
    camera.open()
    data = base64.b64encode(bytes((100, 200, 50)) * 32).decode()
    publisher.publish(topic=KNOWN, fields={"width": 8, "height": 4, "encoding": "rgb8", "step": 24, "data": data})
    frame = camera.read(PATIENCE_SECONDS)
    assert frame is not None
    assert frame.image.tolist() == [[153] * 8] * 4  # 0.299 * 100 + 0.587 * 200 + 0.114 * 50
    camera.close()


def test_a_patient_camera_opens_before_anybody_publishes_and_tells_why_nothing_comes(session: Session) -> None:
    topic = ImageTopic(session.node, "/nobody")
    camera = TopicCamera("ir", topic, config("/nobody", read_timeout_ms=50), GREY, patient=True)
    camera.open()
    assert (camera.dtype, camera.channels, camera.focal) == (None, None, None)
    with pytest.raises(CameraError, match="camera ir: nobody publishes /nobody"):
        camera.read(0.05)
    camera.close()
    with pytest.raises(CameraError, match="camera ir: nobody publishes /nobody"):
        camera.open()  # the second time there is something to wait for
    with pytest.raises(CameraError, match="camera ir is closed"):
        camera.read(0.0)
    topic.close()


def test_an_offer_that_does_not_match_is_why_a_camera_is_lost(session: Session, publisher: Publisher) -> None:
    publisher.advertise(topic=NAME, reliable=False)
    topic = ImageTopic(session.node, NAME, qos=TopicQos(reliability="reliable"))
    camera = TopicCamera("ir", topic, config(read_timeout_ms=100), GREY, patient=True)
    with running(camera) as capture:
        told = eventually(lambda: capture.trouble and "RELIABILITY" in capture.trouble.detail, "the policy is named")
        assert told
        assert capture.trouble is not None
        assert capture.trouble.reason is Reason.CAMERA_LOST
    topic.close()


# ------------------------------------------------------------------------------------------ with a node of its own


class running:
    """A camera in its capture thread."""

    def __init__(self, camera: Camera, clock: Any = None) -> None:
        camera.open()
        timeouts = getattr(camera, "timeouts", TimeOuts())
        self.capture = Capture(camera, timeouts, *([] if clock is None else [clock]))

    def __enter__(self) -> Capture:
        self.capture.start()
        return self.capture

    def __exit__(self, *_: object) -> None:
        self.capture.stop(PATIENCE_SECONDS)


def next_frame(capture: Capture) -> Captured:
    """The next frame, as long as it may take."""
    return eventually(lambda: capture.get(0.1), "a frame comes")


@pytest.mark.parametrize("reliable", [True, False])
def test_a_camera_of_its_own_gives_frames_and_leaves_no_thread(
    publishing: Callable[..., Publisher], reliable: bool
) -> None:
    publishing(fields=noise()[0], reliable=reliable)
    before = set(threading.enumerate())
    camera = open_camera(URI, GREY)
    assert (camera.dtype, camera.channels, camera.live) == ("uint8", 1, True)
    frames = [camera.read(PATIENCE_SECONDS) for _ in range(3)]
    assert [frame is not None and frame.frame_id for frame in frames] == [0, 1, 2]
    camera.close()
    camera.close()
    assert set(threading.enumerate()) == before
    with pytest.raises(CameraError, match="is closed"):
        camera.read(0.0)


def test_a_topic_that_never_publishes_is_one_line_and_leaves_no_thread(publisher: Publisher) -> None:
    before = set(threading.enumerate())
    with pytest.raises(CameraError) as caught:
        open_camera("ros2:/nobody?open_timeout_ms=300")
    assert caught.value.found == "camera ros2:/nobody?open_timeout_ms=300: nobody publishes /nobody"
    publisher.advertise(topic=NAME)
    camera = Opening(NAME)
    camera.start()
    eventually(lambda: publisher.heard(topic=NAME), "it has found the publisher")
    camera.camera.interrupt()
    camera.join(PATIENCE_SECONDS)
    assert camera.fault.startswith(f"camera ir: the publisher of {NAME} is silent for ")
    assert set(threading.enumerate()) == before


class Opening(threading.Thread):
    """A camera that is opened in another thread."""

    def __init__(self, topic: str) -> None:
        super().__init__()
        self.camera = RosCamera("ir", config(topic, open_timeout_ms=60_000), GREY)
        self.fault = ""

    def run(self) -> None:
        try:
            self.camera.open()
        except CameraError as error:
            self.fault = error.found


def test_stamps_of_this_machines_time_of_day_are_moments_of_now(publishing: Callable[..., Publisher]) -> None:
    publishing(fields=SMALL)
    with running(open_camera(URI, GREY)) as capture:
        captured = next_frame(capture)
        assert 0 <= time.monotonic_ns() - captured.frame.captured_ns < PATIENCE_SECONDS * 1e9
        assert capture.counters.misdated == 0


@pytest.mark.parametrize(
    ("stamp", "reason", "told"),
    [
        (0.0, Reason.CLOCK_BEHIND, "years behind now: not the clock 'wall'; set clock = 'device'"),
        (1000.0, Reason.CLOCK_BEHIND, "years behind now: not the clock 'wall'"),
        (2.1e9, Reason.CLOCK_AHEAD, "years ahead of now: not the clock 'wall'"),
    ],
)
def test_stamps_of_zero_or_of_another_clock_are_told(
    publishing: Callable[..., Publisher], stamp: float, reason: Reason, told: str
) -> None:
    publishing(fields=SMALL, stamp=stamp, step=0.0 if stamp == 0 else 0.033)
    with running(open_camera(URI, GREY)) as capture:
        eventually(lambda: capture.counters.misdated and capture.trouble, "stamps are judged")
        trouble = capture.trouble
        assert trouble is not None
        assert trouble.reason is reason
        assert told in trouble.detail
        assert capture.get(0.0) is None


@pytest.mark.parametrize(("clock", "stamp"), [("arrival", 0.0), ("device", 1000.0)])
def test_such_a_topic_can_be_used_by_another_clock(
    publishing: Callable[..., Publisher], clock: str, stamp: float
) -> None:
    publishing(fields=SMALL, stamp=stamp, step=1 / 30)
    with running(open_camera(f"{URI}&clock={clock}", GREY)) as capture:
        captured = next_frame(capture)
        assert 0 <= time.monotonic_ns() - captured.frame.captured_ns < PATIENCE_SECONDS * 1e9


def test_a_publisher_that_dies_is_a_lost_camera_and_its_return_a_new_window(
    start_publisher: Callable[[], Publisher],
) -> None:
    first = start_publisher()
    first.advertise(topic=NAME)
    first.begin(topic=NAME, fields=SMALL)
    with running(open_camera(URI.replace("60000", "20000"), GREY)) as capture:
        next_frame(capture)
        first.kill()
        eventually(lambda: capture.trouble, "it is lost")
        assert capture.trouble is not None
        assert capture.trouble.reason is Reason.CAMERA_LOST
        second = start_publisher()
        second.advertise(topic=NAME, reliable=False)
        second.begin(topic=NAME, fields=SMALL)
        found = eventually(lambda: (c := capture.get(0.1)) and c.cut.cause.reason is Reason.RECONNECT, "it is back")
        assert found
        assert capture.counters.reconnects >= 1
        second.end(topic=NAME)


def test_compressed_pictures_and_the_lens(publishing: Callable[..., Publisher]) -> None:
    picture = np.random.default_rng(0).integers(0, 65535, (48, 64), np.uint16)
    content = base64.b64encode(cv2.imencode(".png", picture)[1].tobytes()).decode()
    topic = "/thermal/image_raw/compressed"
    k = [64.0, 0, 32, 0, 64, 24, 0, 0, 1]
    publishing("/thermal/camera_info", {"width": 64, "height": 48, "k": k}, type="CameraInfo")
    fields = {"format": "mono16; png compressed ", "data": content}
    publishing(topic, fields, type="CompressedImage")
    camera = open_camera(f"ros2:{topic}?open_timeout_ms=60000", Wanted("lwir", "uint16", 1))
    frame = camera.read(PATIENCE_SECONDS)
    assert frame is not None
    assert np.array_equal(frame.image, picture)
    focal = eventually(lambda: getattr(camera, "focal", None), "the focal length is known")
    assert focal == 1.0
    camera.close()


# ---------------------------------------------------------------------------------------------------- simulated time


@pytest.fixture
def simulated(session: Session, publisher: Publisher) -> Iterator[RosClock]:
    """A node whose time comes from ``/clock``, which the publisher tells."""
    from rclpy.parameter import Parameter

    session.node.set_parameters([Parameter("use_sim_time", value=True)])
    publisher.advertise(topic="/clock", type="Clock")
    eventually(lambda: publisher.heard(topic="/clock"), "the node listens to /clock")
    clock = RosClock(session.node)
    yield clock
    clock.close()


def test_before_the_first_tick_and_between_them(simulated: RosClock, publisher: Publisher) -> None:
    assert simulated.is_simulated
    assert (simulated.now_ns(), simulated.is_ticking) == (0, False)
    publisher.tick(seconds=100.5)
    eventually(lambda: simulated.now_ns() == 100_500_000_000, "time comes")
    eventually(lambda: not simulated.is_ticking, "it stands still")
    assert simulated.trouble == "simulated time stands still at 100.500 s"


def test_a_looped_bag_begins_a_new_window_at_the_jump(
    session: Session, simulated: RosClock, publisher: Publisher
) -> None:
    publisher.advertise(topic=NAME)
    topic = ImageTopic(session.node, NAME)
    camera = TopicCamera("ir", topic, config(), GREY, patient=True, clock=simulated)
    assert camera.clock_kind == "monotonic"
    eventually(lambda: topic.look() or publisher.heard(topic=NAME), "they match")
    publisher.tick(seconds=100.0)
    eventually(lambda: simulated.now_ns() == 100_000_000_000, "time comes")
    found: list[Captured] = []
    with running(camera, simulated) as capture:
        for second, picture in zip((100.0, 101.0, 102.0, 100.0, 101.0, 102.0, 100.0), noise(7), strict=True):
            publisher.tick(seconds=second)
            eventually(lambda second=second: simulated.now_ns() - simulated.offset_ns == second * 1e9, "it ticks")
            publisher.publish(topic=NAME, fields=picture, stamp=second)
            found.append(next_frame(capture))
        assert capture.counters.misdated == 0
    # Each loop goes on a second after the last moment of the one before
    assert [one.frame.captured_ns // 1_000_000_000 for one in found] == [100, 101, 102, 103, 104, 105, 106]
    causes = [one.cut.cause.reason for one in found]
    assert causes == [Reason.START] * 3 + [Reason.CLOCK_JUMP] * 4
    assert len({one.cut.number for one in found}) == 3
    assert found[3].cut.cause.detail == "ROS time went back by 2.0 s"
    header = topic.header_of(found[3].frame.frame_id)
    assert header.stamp.sec == 100  # as it came
    topic.close()


def test_labels_of_a_looped_bag_say_why_the_window_is_empty(
    session: Session, simulated: RosClock, publisher: Publisher, make_model: Callable[..., Any]
) -> None:
    publisher.advertise(topic=NAME)
    topic = ImageTopic(session.node, NAME)
    camera = TopicCamera("ir", topic, config(), Wanted(), patient=True, clock=simulated)
    eventually(lambda: topic.look() or publisher.heard(topic=NAME), "they match")
    publisher.tick(seconds=50.0)
    eventually(lambda: simulated.now_ns() == 50_000_000_000, "time comes")
    pictures, seen = noise(60), []
    with LabelStream(make_model()[0], camera, StreamOptions(), clock=simulated) as labels:
        for k, fields in enumerate(pictures):
            second = 50.0 + (k % 30) / 30  # the bag is 30 frames long
            publisher.tick(seconds=second)
            eventually(
                lambda second=second: abs(simulated.now_ns() - simulated.offset_ns - second * 1e9) < 1, "it ticks"
            )
            publisher.publish(topic=NAME, fields=fields, stamp=second)
            prediction = next(p for p in labels if p.frame_id == k and p.state is not LabelState.STALE)
            seen.append(prediction)
    topic.close()
    first = next(k for k, prediction in enumerate(seen) if prediction.state is LabelState.OK)
    assert 5 < first < 30
    before, after = ([(p.state, p.reason) for p in seen[k : k + 30]] for k in (0, 30))
    assert before[0] == (LabelState.WARMING, Reason.START)
    assert before[first:] == [(LabelState.OK, Reason.NONE)] * (30 - first)
    # The same pictures at the same moments: the window of the second loop fills as that of the first one
    assert after == [(state, Reason.CLOCK_JUMP if reason is Reason.START else reason) for state, reason in before]


def test_while_time_stands_still_nothing_is_missing(
    session: Session, simulated: RosClock, publisher: Publisher
) -> None:
    topic = ImageTopic(session.node, NAME)
    camera = TopicCamera("ir", topic, config(), GREY, patient=True, clock=simulated)
    camera.open()
    assert camera.read(0.0) is None  # no time has come at all
    publisher.tick(seconds=5.0)
    eventually(lambda: simulated.now_ns() == 5_000_000_000, "time comes")
    eventually(lambda: not simulated.is_ticking, "it stands still")
    assert camera.read(0.0) is None
    camera.close()
    topic.close()


# ------------------------------------------------------------------------------------------------------------- pairs


def test_two_topics_are_one_step_and_one_that_dies_does_not_stop_the_other(
    session: Session, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairing_module, "ABSENT_SECONDS", 600.0)  # however busy the machine is
    pairing = Pairing(20_000_000, PATIENCE_SECONDS)
    topics, cameras = {}, []
    for side in ("left", "right"):
        publisher.advertise(topic=f"/{side}/image")
        topics[side] = ImageTopic(session.node, f"/{side}/image")
        cameras.append(TopicCamera(side, topics[side], config(), GREY, patient=True, pairing=pairing))
    for topic in topics.values():
        eventually(lambda topic=topic: topic.look() or publisher.heard(topic=topic.name), "they match")
    feeds = Feeds(cameras, RealTime())
    for feed in feeds.all:
        feed.camera.open()
        pairing.seen(feed.name)
        feed.start(10**9)
    now, pictures = time.time(), noise(6)

    def step(k: int, sides: dict[str, float]) -> list[str]:
        for side, late in sides.items():
            publisher.publish(topic=f"/{side}/image", fields=pictures[k], stamp=now + k / 30 + late)
        return eventually(lambda: sorted(feed.name for feed, _ in feeds.get(1.0)), "frames come")

    assert [step(k, {"left": 0.0, "right": 0.01}) for k in range(5)] == [["left", "right"]] * 5
    assert pairing.paired == 5
    monkeypatch.setattr(pairing_module, "ABSENT_SECONDS", 0.0)  # the right one has been silent for long
    assert step(5, {"left": 0.0}) == ["left"]
    feeds.stop()
    for topic in topics.values():
        topic.close()


class RealTime:
    """This machine's clock, by which any stamp of the next minutes is now."""

    def now_ns(self) -> int:
        return time.monotonic_ns() + 10**9

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def wall_ns(self) -> int:
        return time.time_ns() + 10**9

    def suspended_ns(self) -> int:
        return 0


# -------------------------------------------------------------------------------------------------- the command line


def kd_edge(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kd_edge", *arguments]
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def test_the_command_line_labels_a_topic(publishing: Callable[..., Publisher], tmp_path: Any) -> None:
    publishing(fields=noise(1, 320, 240)[0])
    out = tmp_path / "labels.jsonl"
    done = kd_edge("run", "--camera", f"ir={URI}", "--duration", "2", "--sink", f"jsonl:{out}")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert {line["source"] for line in lines} == {"ir"}
    numbers = [line["frame_id"] for line in lines if line["state"] != "stale"]
    # On a busy machine not all of them, the first neither: a live camera's frames do not wait.
    assert numbers
    assert numbers == sorted(set(numbers))


def test_the_command_line_says_in_one_line_that_nobody_publishes(ros_environment: None) -> None:
    done = kd_edge("run", "--camera", "ros2:/nobody?open_timeout_ms=300")
    assert done.returncode == 2
    assert done.stderr.splitlines()[1:] == [  # the first one names the model
        "error: camera ros2:/nobody?open_timeout_ms=300: nobody publishes /nobody. Expected images. Fix: ros2 topic "
        "list -t and ros2 topic info -v show who publishes what; kd-edge cameras --ros, too"
    ]


def test_a_domain_of_its_own_hears_nobody_else(publishing: Callable[..., Publisher]) -> None:
    publishing(fields=SMALL)
    other = (int(os.environ["ROS_DOMAIN_ID"]) + 1) % 233
    with pytest.raises(CameraError, match=f"nobody publishes {NAME}"):
        open_camera(f"ros2:{NAME}?domain={other}&open_timeout_ms=2000")
    open_camera(f"{URI}&domain={os.environ['ROS_DOMAIN_ID']}").close()


def test_the_doctor_watches_a_topic(publishing: Callable[..., Publisher]) -> None:
    publishing(fields=noise(1, 320, 240)[0])
    done = kd_edge("cameras", "doctor", URI, "--seconds", "2", "--json")
    report = json.loads(done.stdout)
    assert report["measured"]["frames"] > 1
    assert report["measured"]["stamps"]["declared"] == "wall"
    assert report["measured"]["stamps"]["looks_like"] == "wall"


def test_a_middleware_that_is_not_there_is_one_line(ros_environment: None) -> None:
    done = kd_edge("run", "--camera", "ros2:/image", RMW_IMPLEMENTATION="rmw_nobody_cpp")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 2)  # the first one names the model
    assert "RMW_IMPLEMENTATION is 'rmw_nobody_cpp', which cannot be loaded" in done.stderr


def test_the_topics_of_images_are_listed_with_what_they_offer(publishing: Callable[..., Publisher]) -> None:
    publishing(fields=SMALL, reliable=False)

    def listed() -> Any:
        done = kd_edge("cameras", "--ros", "--json")
        assert done.returncode == 0, done.stderr
        return {one["device"]: one for one in json.loads(done.stdout)["attached"]}.get(NAME)

    found = eventually(listed, "the topic is found")
    assert found["description"] == "sensor_msgs/msg/Image, 1 publisher: best effort, volatile"
    assert found["use"] == f"kd-edge run --camera ros2:{NAME}"
    assert found["uri"] == f"ros2:{NAME}"
