"""A subscription to images, with publishers in another process; real ROS 2 on loopback."""

from __future__ import annotations

import base64
import sys
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from kd_edge.errors import ConfigError
from kd_edge.runtime.messages import COMPRESSED_IMAGE
from kd_edge.runtime.ros.qos import TopicQos
from kd_edge.runtime.ros.session import Session
from kd_edge.runtime.ros.topic import ImageTopic, focal_of_info, info_topic, subscription
from tests.runtime.ros.conftest import Publisher, eventually
from tests.runtime.ros.messages import grey_fields
from tests.waiting import PATIENCE_SECONDS

NAME = "/camera/infra1/image_rect_raw"
SMALL = grey_fields(8, 4)


@pytest.fixture
def subscribe(session: Session) -> Iterator[Callable[..., ImageTopic]]:
    """Makes subscriptions, and ends them."""
    made: list[ImageTopic] = []

    def make(topic: str = NAME, **options: Any) -> ImageTopic:
        made.append(ImageTopic(session.node, topic, **options))
        return made[-1]

    yield make
    for topic in made:
        topic.close()


def matched(topic: ImageTopic, publisher: Publisher, count: int = 1) -> None:
    """Wait until both sides know each other."""

    def is_matched() -> bool:
        topic.look()
        return bool(publisher.heard(topic=topic.name) == count)

    eventually(is_matched, f"{topic.name} matches")


@pytest.mark.parametrize("reliable", [True, False])
def test_messages_come_as_they_were_sent(
    subscribe: Callable[..., ImageTopic], publisher: Publisher, reliable: bool
) -> None:
    publisher.advertise(topic=NAME, reliable=reliable)
    topic = subscribe()
    matched(topic, publisher)
    publisher.publish(topic=NAME, fields=SMALL, stamp=12.5, frame_id="left")
    message = topic.take(PATIENCE_SECONDS)
    assert (message.width, message.height, message.header.frame_id) == (8, 4, "left")
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (12, 500_000_000)
    assert (topic.name, topic.publishers, topic.received, topic.replaced) == (NAME, 1, 1, 0)
    assert topic.mismatch is None
    assert topic.take(0.0) is None


def test_the_newest_are_kept_and_the_others_counted(subscribe: Callable[..., ImageTopic], publisher: Publisher) -> None:
    publisher.advertise(topic=NAME, depth=50)
    topic = subscribe(qos=TopicQos(depth=50))
    matched(topic, publisher)
    publisher.publish(topic=NAME, fields=SMALL, times=60, hz=200)
    eventually(lambda: topic.received == 60, "60 messages")
    assert [topic.take(0.0).data[0] for _ in range(50)] == [*range(10, 60)]
    assert (topic.replaced, topic.take(0.0)) == (10, None)


@pytest.mark.parametrize(
    ("offer", "asked", "policy", "told"),
    [
        (
            {"reliable": False},
            TopicQos(reliability="reliable"),
            "RELIABILITY",
            "the publisher of /camera/infra1/image_rect_raw: RELIABILITY does not match (offered best effort, "
            "volatile, asked reliable, volatile)",
        ),
        (
            {},
            TopicQos(durability="transient_local"),
            "DURABILITY",
            "the publisher of /camera/infra1/image_rect_raw: DURABILITY does not match (offered reliable, volatile, "
            "asked reliable, transient local)",
        ),
    ],
)
def test_an_offer_that_does_not_match_is_named_by_its_policy(
    subscribe: Callable[..., ImageTopic],
    publisher: Publisher,
    offer: dict[str, bool],
    asked: TopicQos,
    policy: str,
    told: str,
) -> None:
    publisher.advertise(topic=NAME, **offer)
    topic = subscribe(qos=asked)
    eventually(lambda: topic.take(0.05) or topic.mismatch, "the mismatch is seen")
    publisher.publish(topic=NAME, fields=SMALL, times=3)
    assert topic.take(0.2) is None
    assert (topic.mismatch, topic.received) == (policy, 0)
    assert topic.describe_silence() == told


def test_auto_goes_on_with_a_publisher_of_another_kind(
    subscribe: Callable[..., ImageTopic], start_publisher: Callable[[], Publisher]
) -> None:
    first, second = start_publisher(), start_publisher()
    first.advertise(topic=NAME, reliable=True)
    topic = subscribe()
    matched(topic, first)
    second.advertise(topic=NAME, reliable=False)
    eventually(lambda: topic.take(0.05) or topic.publishers == 2, "the second one is seen")
    matched(topic, second)
    second.publish(topic=NAME, fields=SMALL, frame_id="second")
    assert topic.take(PATIENCE_SECONDS).header.frame_id == "second"
    matched(topic, first)
    first.publish(topic=NAME, fields=SMALL, frame_id="first")
    assert topic.take(PATIENCE_SECONDS).header.frame_id == "first"
    assert topic.mismatch is None


def test_a_subscriber_that_comes_late_gets_what_is_sent_from_then_on(
    subscribe: Callable[..., ImageTopic], publisher: Publisher
) -> None:
    publisher.advertise(topic=NAME)
    publisher.publish(topic=NAME, fields=SMALL, stamp=1.0)
    topic = subscribe()
    matched(topic, publisher)
    publisher.publish(topic=NAME, fields=SMALL, stamp=2.0)
    assert topic.take(PATIENCE_SECONDS).header.stamp.sec == 2
    assert topic.received == 1


def test_a_subscriber_that_comes_late_gets_what_was_kept_for_it(
    subscribe: Callable[..., ImageTopic], publisher: Publisher
) -> None:
    publisher.advertise(topic=NAME, kept=True, depth=1)
    publisher.publish(topic=NAME, fields=SMALL, stamp=1.0)
    topic = subscribe(qos=TopicQos(durability="transient_local", depth=1))
    assert topic.take(PATIENCE_SECONDS).header.stamp.sec == 1


def test_a_publisher_that_dies_and_one_that_takes_its_place(
    subscribe: Callable[..., ImageTopic], start_publisher: Callable[[], Publisher]
) -> None:
    first = start_publisher()
    first.advertise(topic=NAME, reliable=True)
    topic = subscribe()
    matched(topic, first)
    first.publish(topic=NAME, fields=SMALL)
    assert topic.take(PATIENCE_SECONDS) is not None
    first.kill()
    second = start_publisher()
    second.advertise(topic=NAME, reliable=False)  # of another kind, too
    matched(topic, second)
    second.publish(topic=NAME, fields=SMALL, frame_id="second")
    assert topic.take(PATIENCE_SECONDS).header.frame_id == "second"


def test_why_nothing_comes(subscribe: Callable[..., ImageTopic], publisher: Publisher) -> None:
    topic = subscribe("image")
    assert topic.name == "/image"
    assert topic.take(0.0) is None
    assert topic.describe_silence() == "nobody publishes /image"
    publisher.advertise(topic="/image")
    eventually(lambda: topic.take(0.05) or topic.publishers, "the publisher is seen")
    assert topic.describe_silence().startswith("the publisher of /image is silent for ")
    text = subscribe("/words")
    publisher.advertise(topic="/words", type="String")
    eventually(lambda: text.take(0.05) or text.publishers, "the publisher is seen")
    assert text.describe_silence() == "/words holds std_msgs/msg/String, not sensor_msgs/msg/Image"
    other = subscribe("/image", compressed=True)  # this node has it as Image already
    eventually(lambda: other.take(0.05) or other.publishers, "the publisher is seen")
    assert other.describe_silence() == "/image holds sensor_msgs/msg/Image, not sensor_msgs/msg/CompressedImage"


@pytest.mark.parametrize("name", ["/1image", "a//b", "", "/image raw", "x" * 300])
def test_a_name_that_no_topic_can_have_is_one_line(subscribe: Callable[..., ImageTopic], name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        subscribe(name)
    assert caught.value.found.startswith(f"topic '{name[:80]}' is not valid (")
    with pytest.raises(ConfigError):
        subscribe(NAME, camera_info=name)


def test_compressed_images_are_known_by_their_type_or_the_topics_name(
    subscribe: Callable[..., ImageTopic], publisher: Publisher
) -> None:
    assert subscribe("/camera/image/compressed", qos=TopicQos(reliability="reliable"))._type() == COMPRESSED_IMAGE
    assert subscribe("/camera/image")._type() != COMPRESSED_IMAGE
    publisher.advertise(topic="/packed", type="CompressedImage")
    topic = subscribe("/packed")
    matched(topic, publisher)
    publisher.publish(topic="/packed", fields={"format": "jpeg", "data": base64.b64encode(b"abc").decode()})
    message = topic.take(PATIENCE_SECONDS)
    assert (message.format, bytes(message.data)) == ("jpeg", b"abc")


def test_the_lens_is_told_by_the_camera_info_beside_it(
    subscribe: Callable[..., ImageTopic], publisher: Publisher
) -> None:
    topic = subscribe()
    assert topic.focal is None
    info = "/camera/infra1/camera_info"
    publisher.advertise(topic=info, type="CameraInfo")
    eventually(lambda: publisher.heard(topic=info), "the info is subscribed to")
    publisher.publish(topic=info, fields={"width": 640, "height": 480, "k": [0] * 9})  # not calibrated
    publisher.publish(topic=info, fields={"width": 640, "height": 480, "k": [384, 0, 320, 0, 384, 240, 0, 0, 1]})
    eventually(lambda: topic.focal is not None, "the focal length is known")
    assert topic.focal == 0.6
    eventually(lambda: publisher.heard(topic=info) == 0, "the subscription has ended")


def test_a_wait_is_ended_by_another_thread(subscribe: Callable[..., ImageTopic]) -> None:
    topic = subscribe()
    waiter = threading.Timer(0.1, topic.interrupt)
    waiter.start()
    assert topic.take(10 * PATIENCE_SECONDS) is None
    waiter.join()
    assert topic.take(PATIENCE_SECONDS) is None  # until it is to be waited again
    topic.resume()
    assert topic.take(0.0) is None
    topic.close()
    topic.close()


def test_headers_are_kept_of_the_last_frames_only(subscribe: Callable[..., ImageTopic]) -> None:
    topic = subscribe()
    for number in range(1000):
        topic.remember(number, f"header {number}")
    assert topic.header_of(999) == "header 999"
    assert topic.header_of(744) == "header 744"
    assert topic.header_of(743) is None


def test_a_session_has_one_thread_and_leaves_none(ros_environment: None) -> None:
    before = set(threading.enumerate())
    session, other = Session(), Session()
    assert session.node.get_name() != other.node.get_name()
    assert {t.name for t in set(threading.enumerate()) - before} == {"kd-edge ros"}
    session.close()
    session.close()
    other.close()
    assert set(threading.enumerate()) == before


@pytest.mark.parametrize(
    ("topic", "info"),
    [
        ("/camera/infra1/image_rect_raw", "/camera/infra1/camera_info"),
        ("/camera/image_raw/compressed", "/camera/camera_info"),
        ("/camera/depth/image/compressedDepth", "/camera/depth/camera_info"),
        ("/image", "/camera_info"),
    ],
)
def test_where_the_camera_info_of_a_topic_is(topic: str, info: str) -> None:
    assert info_topic(topic) == info


@pytest.mark.parametrize(
    ("width", "roi", "fx", "focal"),
    [
        (640, 0, 384.0, 0.6),
        (640, 320, 384.0, 1.2),
        (0, 0, 384.0, None),
        (640, 0, 0.0, None),
        (640, 0, float("nan"), None),
        (640, 0, 1e9, None),
    ],
)
def test_focal_length_of_a_camera_info(width: int, roi: int, fx: float, focal: float | None) -> None:
    info = SimpleNamespace(width=width, roi=SimpleNamespace(width=roi), k=[fx] + [0.0] * 8)
    assert focal_of_info(info) == focal


class UnsupportedEventTypeError(Exception):
    """Named as rclpy's, which middlewares without such events raise."""


class FakeNode:
    """Takes note of a subscription; ``has_events``: whether its middleware tells of offers that do not match."""

    def __init__(self, *, has_events: bool) -> None:
        self.has_events = has_events
        self.made: list[dict[str, Any]] = []

    def create_subscription(self, *_: Any, **options: Any) -> str:
        self.made.append(options)
        if options and not self.has_events:
            raise UnsupportedEventTypeError
        return "subscription"


@pytest.mark.parametrize("module", ["rclpy.event_handler", "rclpy.qos_event"])
def test_events_are_asked_for_by_the_name_of_each_release(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    events = SimpleNamespace(SubscriptionEventCallbacks=lambda **options: options)
    for name in ("rclpy.event_handler", "rclpy.qos_event"):  # the latter is Humble's
        monkeypatch.setitem(sys.modules, name, events if name == module else None)
    monkeypatch.setitem(sys.modules, "rclpy", SimpleNamespace())
    node = FakeNode(has_events=True)
    assert subscription(node, "Image", "/image", print, "qos", print) == "subscription"
    assert node.made == [{"event_callbacks": {"incompatible_qos": print, "use_default_callbacks": False}}]
    silent = FakeNode(has_events=False)
    assert subscription(silent, "Image", "/image", print, "qos", print) == "subscription"
    assert len(silent.made) == 2
    assert silent.made[1] == {}
