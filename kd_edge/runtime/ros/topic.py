"""A subscription to images: the newest messages, or why there are none."""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import suppress
from typing import Any, NamedTuple

from kd_edge.crop import LEAST_FOCAL, MOST_FOCAL
from kd_edge.errors import ConfigError, reason
from kd_edge.runtime.clock import duration
from kd_edge.runtime.messages import COMPRESSED_IMAGE, IMAGE
from kd_edge.runtime.ros.loading import load
from kd_edge.runtime.ros.qos import Asked, Offer, TopicQos, decided, mismatch, offers, profile

LOOK_SECONDS = 0.1
"""Interval of the checks of the publishers while no message arrives."""
STREAMING_LOOK_SECONDS = 2.0
"""Interval of the checks of the publishers while messages arrive."""
HEADERS = 256
"""Number of frames whose headers are kept: more than are in flight between camera and label."""
TRANSPORTS = ("compressed", "compressedDepth")
"""Last parts of the names of topics with ``CompressedImage``."""
_TYPES = {IMAGE: "Image", COMPRESSED_IMAGE: "CompressedImage"}


class Subscribed(NamedTuple):
    """Type and QoS of the current subscription.

    Attributes:
        type: Message type: ``sensor_msgs/msg/Image``.
        asked: Requested QoS.
    """

    type: str
    asked: Asked


class ImageTopic:
    """Images of one topic, received by a node that is spun elsewhere; all methods are thread-safe.

    Messages are queued here up to the QoS depth, so a program that is delayed briefly loses none. If reliability is
    ``auto``, the subscription starts with the first publisher, and is recreated when the publishers change such that
    another one fits.

    Args:
        node: An rclpy node; it must be spun by an executor.
        topic: Name, absolute or relative to the node's namespace; remappings apply.
        qos: Requested QoS.
        compressed: Whether its messages are ``CompressedImage``; None: as its publishers declare, or by the end of its
            name.
        camera_info: Topic of the ``CameraInfo`` with the focal length; ``auto``: the one next to it; None: none.

    Raises:
        ConfigError: ROS 2 is not installed, or the name is invalid.

    Attributes:
        name: The topic's full name.
        received: Number of messages received.
        replaced: Number of them that newer ones replaced before they were taken.
    """

    def __init__(
        self,
        node: Any,
        topic: str,
        *,
        qos: TopicQos | None = None,
        compressed: bool | None = None,
        camera_info: str | None = "auto",
    ) -> None:
        self._messages = load("sensor_msgs.msg")
        self.name = resolved(node, topic)
        self.received = self.replaced = 0
        self._node, self._qos, self._compressed = node, qos or TopicQos(), compressed
        self._changed = threading.Condition()
        self._looking = threading.Lock()
        self._waiting: deque[Any] = deque(maxlen=self._qos.depth)
        self._headers: deque[tuple[int, Any]] = deque(maxlen=HEADERS)
        self._offers: list[Offer] = []
        self._subscription: Any = None
        self._subscribed: Subscribed | None = None
        self._refusal = ""
        self._looked = self._heard = time.monotonic()
        self._is_look_due, self._is_interrupted, self._is_closed = True, False, False
        self._lens = None if camera_info is None else _Lens(node, self.name, camera_info, self._messages)
        self._look()

    @property
    def publishers(self) -> int:
        """Number of known publishers."""
        return len(self._offers)

    @property
    def mismatch(self) -> str | None:
        """Name of the policy that a publisher's offer does not match (``RELIABILITY``); None if all match."""
        return None if self._subscribed is None else mismatch(self._subscribed.asked, self._offers)

    @property
    def focal(self) -> float | None:
        """Focal length as a share of the frame's width; None without a ``CameraInfo``."""
        return None if self._lens is None else self._lens.focal

    @property
    def silent_seconds(self) -> float:
        """Time since the last message, s."""
        return time.monotonic() - self._heard

    def take(self, timeout_seconds: float) -> Any | None:
        """Return the next message; None on a time-out or after ``interrupt``."""
        end = time.monotonic() + timeout_seconds
        while True:
            self._look_if_due()
            with self._changed:
                left = end - time.monotonic()
                if not self._waiting and not self._is_interrupted and left > 0:
                    self._changed.wait(min(left, LOOK_SECONDS))
                if self._waiting:
                    return self._waiting.popleft()
                if self._is_interrupted or left <= 0:
                    return None

    def wait_for_lens(self, timeout_seconds: float) -> None:
        """Wait until the focal length is known, if it is published."""
        if self._lens is not None:
            self._lens.wait(timeout_seconds)

    def look(self) -> None:
        """Check the publishers now, and subscribe to match them."""
        with self._looking:
            if not self._is_closed:
                self._look()

    def interrupt(self) -> None:
        """End the waits in ``take``, until ``resume``."""
        with self._changed:
            self._is_interrupted = True
            self._changed.notify_all()

    def resume(self) -> None:
        """Allow waits again."""
        with self._changed:
            self._is_interrupted = False

    def forget(self) -> None:
        """Discard the messages received so far."""
        with self._changed:
            self._waiting.clear()

    def forget_headers(self) -> None:
        """Discard the headers, as frame numbers restart at 0: a label must not get the stamp of another frame."""
        self._headers.clear()

    def remember(self, frame_id: int, header: Any) -> None:
        """Keep the header of a frame's message."""
        self._headers.append((frame_id, header))

    def header_of(self, frame_id: int) -> Any | None:
        """Return the header of a frame's message, as received; None if it is too old."""
        return next((header for number, header in reversed(tuple(self._headers)) if number == frame_id), None)

    def describe_silence(self) -> str:
        """Return why no message arrives, as far as known."""
        offered, subscribed = tuple(self._offers), self._subscribed
        if not offered:
            return f"nobody publishes {self.name}"
        many = "the publisher" if len(offered) == 1 else f"{len(offered)} publishers"
        if not any(offer.type == self._type() for offer in offered):
            return f"{self.name} holds {offered[0].type}, not {self._type()}"
        if self._refusal:
            return f"{self.name} cannot be subscribed to ({self._refusal})"
        policy = self.mismatch
        if subscribed is not None and policy is not None:
            offers_text = "; ".join(sorted({str(offer) for offer in offered}))
            return f"{many} of {self.name}: {policy} does not match (offered {offers_text}, asked {subscribed.asked})"
        is_one = "is" if len(offered) == 1 else "are"
        return f"{many} of {self.name} {is_one} silent for {duration(round(self.silent_seconds * 1e9))}"

    def close(self) -> None:
        """End the subscription; a second call does nothing."""
        self.interrupt()
        with self._looking:
            self._is_closed = True
            self._unsubscribe()
        if self._lens is not None:
            self._lens.close()

    def _look_if_due(self) -> None:
        interval = LOOK_SECONDS if self.silent_seconds > LOOK_SECONDS else STREAMING_LOOK_SECONDS
        if self._is_look_due or time.monotonic() - self._looked >= interval:
            self.look()

    def _look(self) -> None:
        self._is_look_due, self._looked = False, time.monotonic()
        self._offers = offers(self._node, self.name)
        if self._offers or self._qos.reliability != "auto":
            wanted = Subscribed(self._type(), decided(self._qos, self._offers))
            if wanted != self._subscribed and (self._offers or self._subscribed is None):
                self._subscribe(wanted)

    def _type(self) -> str:
        """Message type of the topic."""
        if self._compressed is not None:
            return COMPRESSED_IMAGE if self._compressed else IMAGE
        offered = next((offer.type for offer in self._offers if offer.type in _TYPES), None)
        return offered or (COMPRESSED_IMAGE if self.name.rpartition("/")[2] in TRANSPORTS else IMAGE)

    def _subscribe(self, wanted: Subscribed) -> None:
        self._unsubscribe()
        kind = getattr(self._messages, _TYPES[wanted.type])
        asked = profile(wanted.asked, self._qos.depth)
        try:
            self._subscription = subscription(self._node, kind, self.name, self._store, asked, self._see_mismatch)
        except Exception as error:  # rclpy's C library: for example, this node uses the topic with another type
            self._refusal = reason(error)
        else:
            self._refusal, self._subscribed = "", wanted

    def _unsubscribe(self) -> None:
        subscription, self._subscription, self._subscribed = self._subscription, None, None
        if subscription is not None:
            with suppress(Exception):  # its node may be gone already
                self._node.destroy_subscription(subscription)

    def _store(self, message: Any) -> None:
        """Store a message; called by the executor."""
        with self._changed:
            self._heard = time.monotonic()
            self.received += 1
            self.replaced += len(self._waiting) == self._qos.depth
            self._waiting.append(message)
            self._changed.notify_all()

    def _see_mismatch(self, _: Any) -> None:
        """Request a check of the publishers; called by the executor for a new publisher whose offer does not match."""
        self._is_look_due = True


class _Lens:
    """The focal length from the ``CameraInfo`` of the images; the subscription ends once it is known.

    Args:
        node: The rclpy node.
        topic: Full name of the image topic.
        camera_info: Topic of the ``CameraInfo``, or ``auto``.
        messages: ``sensor_msgs.msg``.
    """

    def __init__(self, node: Any, topic: str, camera_info: str, messages: Any) -> None:
        self.focal: float | None = None
        self._node, self._known = node, threading.Event()
        self._name = info_topic(topic) if camera_info == "auto" else resolved(node, camera_info)
        asked = profile(Asked(reliable=False, transient_local=False), 1)
        self._subscription = subscription(node, messages.CameraInfo, self._name, self._see, asked)

    def wait(self, timeout_seconds: float) -> None:
        """Wait for the focal length, if it is published."""
        if not self._known.is_set() and self._node.count_publishers(self._name):
            self._known.wait(timeout_seconds)

    def close(self) -> None:
        """End the subscription."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            with suppress(Exception):  # as above
                self._node.destroy_subscription(subscription)

    def _see(self, info: Any) -> None:
        self.focal = focal_of_info(info)
        if self.focal is not None:
            self._known.set()
            self.close()


def resolved(node: Any, topic: str) -> str:
    """Return the full name of a topic.

    Raises:
        ConfigError: The name is invalid.
    """
    try:
        name: str = node.resolve_topic_name(topic)
    except Exception as error:  # rclpy's own, of names
        found = f"topic '{topic:.80}' is not valid ({reason(error)})"
        raise ConfigError(found, "a topic's name, such as /camera/image_raw", "correct it") from error
    return name


def subscription(node: Any, kind: Any, topic: str, store: Any, asked: Any, on_mismatch: Any = None) -> Any:
    """Create a subscription; ``on_mismatch`` is called if the middleware reports offers that do not match."""
    events = _events(on_mismatch)
    try:
        return node.create_subscription(kind, topic, store, asked, event_callbacks=events)
    except Exception as error:
        if type(error).__name__ != "UnsupportedEventTypeError":
            raise
        return node.create_subscription(kind, topic, store, asked)


def _events(on_mismatch: Any) -> Any:
    try:
        module = load("rclpy.event_handler")
    except Exception:  # its name in Humble
        module = load("rclpy.qos_event")
    return module.SubscriptionEventCallbacks(incompatible_qos=on_mismatch, use_default_callbacks=False)


def info_topic(topic: str) -> str:
    """Conventional ``CameraInfo`` topic: ``/camera/infra1/camera_info`` for ``/camera/infra1/image``."""
    base, _, last = topic.rpartition("/")
    if last in TRANSPORTS:
        base = base.rpartition("/")[0]
    return f"{base}/camera_info"


def focal_of_info(info: Any) -> float | None:
    """Focal length as a share of the frame's width; None for an uncalibrated camera.

    Args:
        info: A ``sensor_msgs/msg/CameraInfo``; if it has a region of interest, that region's width counts.
    """
    width = info.roi.width or info.width
    focal = float(info.k[0]) / width if width else 0.0
    return focal if LEAST_FOCAL < focal <= MOST_FOCAL else None
