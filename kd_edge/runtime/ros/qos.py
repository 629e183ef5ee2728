"""Quality of service of a subscription: what is asked for, what publishers offer, and which policy does not match.

Written with what all releases of ROS 2 have; nothing here needs ``rclpy`` but ``profile``.
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
"""How many messages are kept while nobody takes them."""


@dataclass(frozen=True, slots=True)
class TopicQos:
    """What a subscription to images asks for.

    Attributes:
        reliability: ``reliable``, ``best_effort``, or ``auto``: reliable where all publishers offer it, else best
            effort.
        durability: ``volatile``, or ``transient_local``: also the last images from before the subscription.
        depth: How many messages are kept while nobody takes them, 1 to ``MOST_DEPTH``.

    Raises:
        ConfigError: It is something else.
    """

    reliability: Reliability = "auto"
    durability: Durability = "volatile"
    depth: int = DEPTH

    def __post_init__(self) -> None:
        """Refuse what is nothing of it."""
        for key, allowed in (("reliability", get_args(Reliability)), ("durability", get_args(Durability))):
            if getattr(self, key) not in allowed:
                raise ConfigError(f"{key} {getattr(self, key)!r:.40}", f"one of {', '.join(allowed)}", "correct it")
        if not (isinstance(self.depth, int) and 1 <= self.depth <= MOST_DEPTH):
            raise ConfigError(f"depth {self.depth!r:.40}", f"a whole number, 1 to {MOST_DEPTH}", "correct it")


class Offer(NamedTuple):
    """What one publisher offers.

    Attributes:
        type: Of its messages: ``sensor_msgs/msg/Image``.
        reliable: Whether it sends again what was lost.
        transient_local: Whether it keeps its last messages for whoever comes later.
        node: Its node's full name.
    """

    type: str
    reliable: bool
    transient_local: bool
    node: str = ""

    def __str__(self) -> str:
        """For people: ``reliable, volatile``."""
        return ", ".join(_words(self.reliable, self.transient_local))


class Asked(NamedTuple):
    """What a subscription asks for, once ``auto`` is decided."""

    reliable: bool
    transient_local: bool

    def __str__(self) -> str:
        """For people: ``best effort, volatile``."""
        return ", ".join(_words(self.reliable, self.transient_local))


def _words(reliable: bool, transient_local: bool) -> tuple[str, str]:
    return "reliable" if reliable else "best effort", "transient local" if transient_local else "volatile"


def offers(node: Any, topic: str) -> list[Offer]:
    """What the publishers of a topic offer, as far as they are known by now."""
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
    """What to ask for, given what is offered."""
    reliable = all(offer.reliable for offer in offered) if qos.reliability == "auto" else qos.reliability == "reliable"
    return Asked(reliable, qos.durability == "transient_local")


def mismatch(asked: Asked, offered: Sequence[Offer]) -> str | None:
    """Name of the policy that an offer does not match, so that nothing of it is received; None where all match."""
    if asked.reliable and not all(offer.reliable for offer in offered):
        return "RELIABILITY"
    if asked.transient_local and not all(offer.transient_local for offer in offered):
        return "DURABILITY"
    return None


def profile(asked: Asked, depth: int) -> Any:
    """``rclpy``'s quality-of-service profile of these settings."""
    qos = load("rclpy.qos")
    return qos.QoSProfile(
        history=qos.HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=qos.ReliabilityPolicy.RELIABLE if asked.reliable else qos.ReliabilityPolicy.BEST_EFFORT,
        durability=qos.DurabilityPolicy.TRANSIENT_LOCAL if asked.transient_local else qos.DurabilityPolicy.VOLATILE,
    )
