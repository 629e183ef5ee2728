"""The cameras of a node, image topics or kd-edge's own camera, and the origin of their frames."""

from __future__ import annotations

from typing import Any, cast

from kd_edge import recipes
from kd_edge.artifact import Manifest
from kd_edge.errors import ConfigError, KdEdgeError, reason
from kd_edge.runtime.cameras import Wanted, check_fits
from kd_edge.runtime.cameras.base import Camera
from kd_edge.runtime.cameras.config import CameraConfig, camera_config, source_name
from kd_edge.runtime.clock import Clock
from kd_edge.runtime.ros.camera import Pairing, TopicCamera
from kd_edge.runtime.ros.diagnostics import TopicFacts
from kd_edge.runtime.ros.outputs import Origin
from kd_edge.runtime.ros.parameters import Parameters
from kd_edge.runtime.ros.qos import Durability, Reliability, TopicQos
from kd_edge.runtime.ros.topic import ImageTopic
from kd_edge.runtime.source import check_frame
from kd_edge.types import Prediction


class Sources:
    """The cameras of a node; its topics stay subscribed until ``close``.

    Args:
        node: The rclpy node.
        parameters: Parameters of the node.
        manifest: Manifest of the model.
        clock: Clock of the stream.

    Raises:
        KdEdgeError: A topic or a camera is invalid or does not fit the model.
    """

    def __init__(self, node: Any, parameters: Parameters, manifest: Manifest, clock: Clock) -> None:
        self._node, self._parameters, self._clock = node, parameters, clock
        self._manifest, self._wanted = manifest, Wanted.by(manifest)
        self._needs_lens = manifest.preprocess.focal is not None
        self._lenses: dict[str, float | None] = {}
        self._topics: dict[str, ImageTopic] = {}
        if parameters.camera:
            camera_config(parameters.camera)  # reports errors now, not when it is opened
            return
        try:
            for asked in parameters.topics:
                self._subscribe(asked)
        except BaseException:
            self.close()
            raise

    def _subscribe(self, asked: str) -> None:
        parameters = self._parameters
        given, topic = source_name(asked)
        qos = TopicQos(
            cast("Reliability", parameters.reliability), cast("Durability", parameters.durability), parameters.depth
        )
        try:
            made = ImageTopic(self._node, topic, qos=qos)
        except KdEdgeError:
            raise
        except Exception as error:  # rclpy's own, of names
            found = f"topic '{topic:.80}' is not valid ({reason(error)})"
            raise ConfigError(found, "a topic's name, such as /camera/image_raw", "correct it") from error
        name = made.name if given == asked else given
        if name in self._topics:
            made.close()
            raise ConfigError(
                f"two topics called '{name}'", "a unique name for each, for their labels", "name them: left=/l/image"
            )
        self._topics[name] = made
        check_fits(self._camera(name, None), self._wanted)

    def cameras(self) -> list[str | Camera]:
        """Create new cameras for one stream; topic cameras open even without a publisher."""
        if self._parameters.camera:
            return [self._parameters.camera]
        self._lenses = {name: topic.focal for name, topic in self._topics.items()}
        slop_ns = round(self._parameters.pair_slop_ms * 1e6)
        pairing = Pairing(slop_ns) if slop_ns and len(self._topics) > 1 else None
        return [self._camera(name, pairing) for name in self._topics]

    def _camera(self, name: str, pairing: Pairing | None) -> TopicCamera:
        topic = self._topics[name]
        return TopicCamera(
            name,
            topic,
            self._config(topic.name),
            self._wanted,
            patient=True,
            clock=self._clock,
            pairing=pairing,
            check=lambda image: check_frame(image, self._manifest, f"camera {name}"),
        )

    def _config(self, topic: str) -> CameraConfig:
        """Return the configuration of a topic, from the parameters."""
        parameters = self._parameters
        raw: dict[str, Any] = {
            "uri": f"ros2:{topic}",
            "clock": parameters.clock,
            "read_timeout_ms": parameters.read_timeout_ms,
            "reconnect_max_ms": parameters.reconnect_max_ms,
            "frozen_ms": parameters.frozen_ms,
            "max_ahead_ms": parameters.max_ahead_ms,
        }
        raw |= {"band": parameters.band} if parameters.band else {}
        raw |= {"hfov_deg": parameters.hfov_deg} if parameters.hfov_deg else {}
        return recipes.validate(raw, CameraConfig, f"topic {topic}")

    def has_new_lens(self) -> bool:
        """Whether a topic's focal length became known after its camera was opened, and the model needs it."""
        if not self._needs_lens or self._parameters.hfov_deg:
            return False
        return any(self._lenses.get(name) is None and t.focal is not None for name, t in self._topics.items())

    def origin(self, prediction: Prediction) -> Origin:
        """Return stamp and coordinate frame of a prediction's frame; for a topic, those of the received header."""
        topic = self._topics.get(prediction.source)
        header = None if topic is None else topic.header_of(prediction.frame_id)
        if header is None:
            return Origin(self._ros_ns(prediction), self._parameters.frame_id or prediction.source)
        stamp_ns = header.stamp.sec * 1_000_000_000 + header.stamp.nanosec
        is_ros_time = self._parameters.clock == "wall"
        return Origin(stamp_ns, header.frame_id, None if is_ros_time else self._ros_ns(prediction))

    def _ros_ns(self, prediction: Prediction) -> int:
        """Capture time of a prediction's frame, by ROS time."""
        now_ns: int = self._node.get_clock().now().nanoseconds
        return max(0, now_ns - (self._clock.now_ns() - prediction.captured_ns))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the topics; the name of kd-edge's own camera is known only once it is open."""
        return tuple(self._topics)

    def facts(self, name: str) -> TopicFacts | None:
        """Return the state of a topic; None if there is no such topic."""
        topic = self._topics.get(name)
        if topic is None:
            return None
        return TopicFacts(
            topic.name, topic.publishers, topic.mismatch, topic.describe_silence(), topic.received, topic.replaced
        )

    def look(self) -> None:
        """Check the topics' publishers, while no camera does."""
        for topic in self._topics.values():
            topic.look()

    def close(self) -> None:
        """End the subscriptions."""
        for topic in self._topics.values():
            topic.close()
        self._topics.clear()
