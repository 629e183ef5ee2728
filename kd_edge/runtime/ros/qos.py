"""Quality of service of a subscription: what is requested, what publishers offer, and which policy does not match.

Uses only what all releases of ROS 2 have; only ``offers`` and ``profile`` need ``rclpy``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from kd_edge.errors import ConfigError
from kd_edge.runtime.ros.loading import load

Reliability = Literal["auto", "reliable", "best_effort"]
Durability = Literal["volatile", "transient_local"]
DEPTH, MOST_DEPTH = 5, 100
"""Default and maximum number of queued messages."""


@dataclass(frozen=True, slots=True)
class TopicQos:
    """Requested QoS of a subscription to images.

    Attributes:
        reliability: ``reliable``, ``best_effort``, or ``auto``: reliable if all publishers offer it, otherwise best
            effort.
        durability: ``volatile``, or ``transient_local`` to also receive the last images before the subscription.
        depth: Number of queued messages, 1 to ``MOST_DEPTH``.

    Raises:
        ConfigError: A value is invalid.
    """

    reliability: Reliability = "auto"
    durability: Durability = "volatile"
    depth: int = DEPTH

    def __post_init__(self) -> None:
        """Refuse invalid values."""
        for key, allowed in (("reliability", get_args(Reliability)), ("durability", get_args(Durability))):
            if getattr(self, key) not in allowed:
                raise ConfigError(f"{key} {getattr(self, key)!r:.40}", f"one of {', '.join(allowed)}", "correct it")
        if not (isinstance(self.depth, int) and 1 <= self.depth <= MOST_DEPTH):
            raise ConfigError(f"depth {self.depth!r:.40}", f"a whole number, 1 to {MOST_DEPTH}", "correct it")


class Offer(NamedTuple):
    """QoS offer of one publisher.

    Attributes:
        type: Message type: ``sensor_msgs/msg/Image``.
        reliable: Whether it resends lost messages.
        transient_local: Whether it keeps its last messages for late subscribers.
        node: Full name of its node.
    """

    type: str
    reliable: bool
    transient_local: bool
    node: str = ""

    def __str__(self) -> str:
        """Readable form: ``reliable, volatile``."""
        return ", ".join(_words(self.reliable, self.transient_local))


class Asked(NamedTuple):
    """Requested QoS of a subscription, with ``auto`` resolved."""

    reliable: bool
    transient_local: bool

    def __str__(self) -> str:
        """Readable form: ``best effort, volatile``."""
        return ", ".join(_words(self.reliable, self.transient_local))


def _words(reliable: bool, transient_local: bool) -> tuple[str, str]:
    return "reliable" if reliable else "best effort", "transient local" if transient_local else "volatile"


def offers(node: Any, topic: str) -> list[Offer]:
    """Return the offers of a topic's publishers, as far as they are known by now."""
    qos = load("rclpy.qos")
    return [
        Offer(
            info.topic_type,
            info.qos_profile.reliability == qos.ReliabilityPolicy.RELIABLE,
            info.qos_profile.durability == qos.DurabilityPolicy.TRANSIENT_LOCAL,
            f"{info.node_namespace.rstrip('/')}/{info.node_name}",
        )
        for info in node.get_publishers_info_by_topic(topic)
    ]


def decided(qos: TopicQos, offered: Sequence[Offer]) -> Asked:
    """Resolve the requested QoS, given the offers."""
    reliable = all(offer.reliable for offer in offered) if qos.reliability == "auto" else qos.reliability == "reliable"
    return Asked(reliable, qos.durability == "transient_local")


def mismatch(asked: Asked, offered: Sequence[Offer]) -> str | None:
    """Return the policy that an offer does not match, so that none of its messages arrive; None if all match."""
    if asked.reliable and not all(offer.reliable for offer in offered):
        return "RELIABILITY"
    if asked.transient_local and not all(offer.transient_local for offer in offered):
        return "DURABILITY"
    return None


def profile(asked: Asked, depth: int) -> Any:
    """Create ``rclpy``'s QoS profile."""
    qos = load("rclpy.qos")
    return qos.QoSProfile(
        history=qos.HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=qos.ReliabilityPolicy.RELIABLE if asked.reliable else qos.ReliabilityPolicy.BEST_EFFORT,
        durability=qos.DurabilityPolicy.TRANSIENT_LOCAL if asked.transient_local else qos.DurabilityPolicy.VOLATILE,
    )
