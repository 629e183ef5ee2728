"""Find image topics in the ROS 2 graph."""

from __future__ import annotations

import time
from typing import NamedTuple

from kd_edge.runtime.messages import COMPRESSED_IMAGE, IMAGE
from kd_edge.runtime.ros.qos import Offer, offers
from kd_edge.runtime.ros.session import Session

LOOK_SECONDS = 1.5
"""Time for a node to discover the others on its network."""
SHOWN_TOPICS = 200


class FoundTopic(NamedTuple):
    """An image topic.

    Attributes:
        name: Its full name.
        type: Its message type.
        offers: QoS offers of its publishers.
    """

    name: str
    type: str
    offers: tuple[Offer, ...]

    def __str__(self) -> str:
        """Readable form: ``sensor_msgs/msg/Image, 1 publisher: reliable, volatile``."""
        many = f"{len(self.offers)} publisher{'' if len(self.offers) == 1 else 's'}"
        return f"{self.type}, {many}: {'; '.join(sorted({str(offer) for offer in self.offers}))}"


def image_topics(domain: int | None = None) -> list[FoundTopic]:
    """List the image topics that have a publisher, at most ``SHOWN_TOPICS``; takes ``LOOK_SECONDS``.

    Args:
        domain: ROS domain id; None: that of the environment.

    Raises:
        ConfigError: ROS 2 is not installed or cannot start.
    """
    session = Session(domain)
    try:
        time.sleep(LOOK_SECONDS)
        found = []
        for name, types in sorted(session.node.get_topic_names_and_types()):
            type_ = next((each for each in types if each in (IMAGE, COMPRESSED_IMAGE)), None)
            if type_ is not None and (offered := offers(session.node, name)):
                found.append(FoundTopic(name, type_, tuple(offered)))
        return found[:SHOWN_TOPICS]
    finally:
        session.close()
