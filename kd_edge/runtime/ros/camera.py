"""An image topic as a camera: inside an existing node, or with its own node (``ros2:/camera/image_raw``)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from kd_edge.artifact import Band
from kd_edge.errors import BadPictureError, CameraError, reason
from kd_edge.runtime.cameras.base import Channels, Dtype, Wanted
from kd_edge.runtime.cameras.colour import Greying
from kd_edge.runtime.cameras.config import CameraConfig, TimeOuts
from kd_edge.runtime.cameras.connected import OPEN_TIMEOUT_MS
from kd_edge.runtime.clock import MONOTONIC, Clock, ClockKind
from kd_edge.runtime.ros.clock import RosClock
from kd_edge.runtime.ros.images import ENCODINGS, EncodingError, compressed_picture, picture, to_grey
from kd_edge.runtime.ros.pairing import Pairing
from kd_edge.runtime.ros.qos import DEPTH, TopicQos
from kd_edge.runtime.ros.session import Session
from kd_edge.runtime.ros.topic import ImageTopic
from kd_edge.types import Cause, Frame, Image, Reason

__all__ = ["Pairing", "RosCamera", "TopicCamera"]

LENS_SECONDS = 0.5
"""How long the first picture waits for the focal length, if it is published."""
_LOOK = "ros2 topic list -t and ros2 topic info -v show who publishes what; kd-edge cameras --ros, too"


class TopicCamera:
    """Images of a topic as frames; see ``Camera``. The caller owns the topic, which stays subscribed.

    A frame's stamp is that of its header: ROS time, which is this machine's time of day, or a time of ``RosClock`` if
    the stream runs on simulated time.

    Args:
        name: Source name in predictions.
        topic: Source of the messages.
        config: Its configuration.
        wanted: What the model needs; other frames are never delivered.
        patient: Whether it opens without a publisher; otherwise the first ``open`` waits for a picture.
        clock: Clock of the stream.
        pairing: Shared with the cameras whose frames are delivered together with this camera's.
        check: Raises ``CameraError`` for a picture that the model cannot use, regardless of its type; this camera then
            counts as gone until usable pictures arrive, and the others continue.
    """

    live = True
    can_vanish = True
    ended = False

    def __init__(
        self,
        name: str,
        topic: ImageTopic | None,
        config: CameraConfig,
        wanted: Wanted,
        *,
        patient: bool,
        clock: Clock = MONOTONIC,
        pairing: Pairing | None = None,
        check: Callable[[Image], None] = lambda image: None,
    ) -> None:
        self.name = name
        self.band: Band | None = config.band
        self.dtype: Dtype | None = None
        self.channels: Channels | None = None
        self.fps: float | None = config.fps
        self.timeouts: TimeOuts = config
        self._simulated = clock if isinstance(clock, RosClock) else None
        self.clock_kind: ClockKind = _clock_kind(config, self._simulated)
        self._topic = topic
        self._config, self._wanted, self._patient, self._pairing = config, wanted, patient, pairing
        self._open_seconds = (config.read_timeout_ms if patient else config.open_timeout_ms or OPEN_TIMEOUT_MS) / 1e3
        self._check, self._greying = check, Greying(name, wanted)
        self._was_open = self._is_open = False
        self._count = self._jumps = 0

    @property
    def focal(self) -> float | None:
        """Focal length as a share of the frame's width."""
        return None if self._topic is None else self._topic.focal

    @property
    def on_its_way(self) -> bool:
        """Whether the frame that was read is paired with frames of other cameras."""
        return self._pairing is not None and self._pairing.has_met(self.name)

    def open(self) -> None:
        """Wait for the first picture, which determines dtype and channels; a patient camera's first call does not."""
        topic = self._subscribed()
        topic.forget()
        if not self._was_open:
            topic.forget_headers()
        if self._pairing is not None:
            self._pairing.join(self.name)
        if self._simulated is not None:
            self._jumps = self._simulated.jumps
        if not (self._patient and not self._was_open):
            self._wait(topic)
        self._was_open = self._is_open = True

    def read(self, timeout_seconds: float) -> Frame | None:
        """Return the next image that was not read yet."""
        if self._pairing is not None:
            self._pairing.forget(self.name)
        if not self._is_open:
            raise CameraError(f"camera {self.name} is closed", "an open camera", "open it first")
        topic = self._subscribed()
        message = topic.take(timeout_seconds)
        if message is None:
            if self._is_time_paused():
                return None
            raise self._fault(topic.describe_silence(), "images", _LOOK)
        return self._frame(topic, message)

    def interrupt(self) -> None:
        """End a wait in ``open`` or ``read``; called from another thread."""
        if self._topic is not None:
            self._topic.interrupt()
        if self._pairing is not None:
            self._pairing.leave(self.name)

    def close(self) -> None:
        """Deliver no more frames; the topic stays subscribed, so that returning images are noticed."""
        self._is_open = False
        if self._topic is not None:
            self._topic.resume()
        if self._pairing is not None:
            self._pairing.leave(self.name)

    def _subscribed(self) -> ImageTopic:
        if self._topic is None:
            raise CameraError(f"camera {self.name} is closed", "an open camera", "open it first")
        return self._topic

    def _is_time_paused(self) -> bool:
        """Whether simulated time is paused: no time has passed, so no image is missing."""
        return self._simulated is not None and self._simulated.is_simulated and not self._simulated.is_ticking

    def _wait(self, topic: ImageTopic) -> None:
        """Wait for a readable picture, and briefly for the focal length."""
        end = time.monotonic() + self._open_seconds
        damage: BadPictureError | None = None
        while (left := end - time.monotonic()) > 0:
            message = topic.take(left)
            if message is None:
                break
            try:
                self._image(message)
            except BadPictureError as error:
                damage = error
                continue
            topic.wait_for_lens(min(LENS_SECONDS, max(0.0, end - time.monotonic())))
            return
        raise damage or self._fault(topic.describe_silence(), "images", _LOOK)

    def _frame(self, topic: ImageTopic, message: Any) -> Frame:
        """Convert a message to a frame and remember its header."""
        image, stamp = self._image(message), message.header.stamp
        stamp_ns = stamp.sec * 1_000_000_000 + stamp.nanosec
        cut = None
        if self._simulated is not None:
            self._simulated.see(stamp_ns)
            stamp_ns += self._simulated.offset_ns  # before the jumps: no frame crosses a jump without its cut
            cut = self._jump(self._simulated)
        frame = Frame(image, stamp_ns, self._count, self.name, cut=cut)
        topic.remember(self._count, message.header)
        self._count += 1
        if self._pairing is not None:
            self._pairing.meet(self.name, stamp_ns)
        return frame

    def _jump(self, clock: RosClock) -> Cause | None:
        """Return the cause if simulated time went back since the previous frame."""
        jumps, self._jumps = self._jumps, clock.jumps
        return None if jumps == self._jumps else Cause(Reason.CLOCK_JUMP, clock.describe_jump())

    def _image(self, message: Any) -> Image:
        """Decode a message to a picture for the model.

        Raises:
            BadPictureError: This picture is damaged.
            CameraError: The model can use none of the topic's pictures.
        """
        encoding = getattr(message, "encoding", "")
        if encoding in ENCODINGS and ENCODINGS[encoding].order == "metres" and self._wanted.band not in (None, "depth"):
            raise self._fault(
                f"its encoding {encoding} is depth in metres", f"{self._wanted.band}, which this model sees", _LOOK
            )
        try:
            image = picture(message) if hasattr(message, "step") else compressed_picture(message)
        except EncodingError as error:
            raise self._fault(reason(error), "an encoding of images", "have the driver publish another one") from error
        except (ValueError, TypeError, BufferError) as error:
            raise BadPictureError(
                f"camera {self.name}: {reason(error)}", "a complete picture", "check its publisher"
            ) from error
        return self._suited(image, encoding or message.format)

    def _suited(self, image: Image, encoding: str) -> Image:
        """Convert an image to what the model needs.

        Raises:
            CameraError: The conversion would have to invent data.
        """
        if image.ndim == 3 and self._wanted.channels == 1:
            self._greying.see(image)
            image = to_grey(image)
        dtype: Dtype = "uint16" if image.dtype.itemsize == 2 else "uint8"
        channels: Channels = 1 if image.ndim == 2 else 3
        for found, needed in ((dtype, self._wanted.dtype), (channels, self._wanted.channels)):
            if needed is not None and found != needed:
                raise self._fault(
                    f"its encoding {encoding:.40} gives {dtype}, {channels} channel{'s' if channels > 1 else ''}; this "
                    f"model needs {self._wanted.dtype or dtype}, {self._wanted.channels or channels}",
                    "what the model was trained for",
                    "use a model for this topic, or another topic",
                )
        if self._wanted.dtype is None and self.dtype not in (None, dtype):
            raise self._fault(f"its encoding became {encoding:.40}", f"{self.dtype} as before", "reopen it")
        self._check(image)
        self.dtype, self.channels = dtype, channels
        return image

    def _fault(self, found: str, expected: str, fix: str) -> CameraError:
        return CameraError(f"camera {self.name}: {found}", expected, fix)


class RosCamera(TopicCamera):
    """``ros2:TOPIC``: a topic camera with its own node while it is open; see ``Camera``."""

    def __init__(self, name: str, config: CameraConfig, wanted: Wanted, *, clock: Clock = MONOTONIC) -> None:
        super().__init__(name, None, config, wanted, patient=False, clock=clock)
        self._session: Session | None = None
        self._is_interrupted = False

    def open(self) -> None:
        """Join the graph and wait for the first picture, which determines dtype and channels."""
        self._leave()
        config = self._config
        qos = TopicQos(config.reliability or "auto", config.durability or "volatile", config.depth or DEPTH)
        self._session = Session(config.domain)
        try:
            self._topic = ImageTopic(self._session.node, config.target, qos=qos, compressed=config.compressed)
            if self._is_interrupted:  # while the topic was created
                self._topic.interrupt()
            super().open()
        except BaseException:
            self._leave()
            raise

    def interrupt(self) -> None:
        """End a wait in ``open`` or ``read``; called from another thread."""
        self._is_interrupted = True
        super().interrupt()

    def close(self) -> None:
        """Leave the graph; no thread is left."""
        self._leave()
        self._is_interrupted = False

    def _leave(self) -> None:
        super().close()
        topic, self._topic = self._topic, None
        if topic is not None:
            topic.close()
        session, self._session = self._session, None
        if session is not None:
            session.close()


def _clock_kind(config: CameraConfig, simulated: RosClock | None) -> ClockKind:
    """Return the clock of the stamps: by default the time of day, or simulated time."""
    if "clock" in config.model_fields_set and config.clock != "wall":
        return config.clock
    return "wall" if simulated is None else "monotonic"
