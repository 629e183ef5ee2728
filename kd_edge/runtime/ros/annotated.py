"""Draw the label onto the picture, for RViz and Foxglove; only while there are subscribers."""

from __future__ import annotations

import array
from typing import Any

import numpy as np
import numpy.typing as npt

from kd_edge.errors import printable
from kd_edge.packages import import_extra
from kd_edge.runtime.ros.loading import load
from kd_edge.runtime.ros.outputs import Origin, set_header
from kd_edge.types import Frame, Image, LabelState, Prediction

Uint8 = npt.NDArray[np.uint8]
COLOURS = {
    LabelState.OK: (0, 200, 0),
    LabelState.DEGRADED: (230, 160, 0),
    LabelState.UNKNOWN: (160, 160, 160),
    LabelState.WARMING: (90, 140, 255),
    LabelState.STALE: (220, 0, 0),
}
"""R, G, B of the bar, by state."""
WIDEST_PX = 640
"""Wider pictures are scaled down: they are only for viewing."""
NARROWEST_PX = 320
"""Narrower pictures, as of thermal arrays, are scaled up so that the text fits."""
TALLEST_PX = 2 * WIDEST_PX
"""Height limit, so that a single column of pixels is not scaled up to gigabytes."""
BAR_PX = 28
MARGIN_PX = 6
FONT_SCALE = 0.5


def shown(image: Image) -> Uint8:
    """Convert any frame to (H, W, 3) uint8 R, G, B, at a width at which text is readable.

    16-bit frames are stretched from their 1st to their 99th percentile.
    """
    cv2: Any = import_extra("cv2", "cpu")
    picture = _stretched(image) if image.dtype == np.uint16 else image.astype(np.uint8)
    height, width = image.shape[:2]
    wanted = min(max(width, NARROWEST_PX), WIDEST_PX)
    if wanted != width or height > TALLEST_PX:
        size = (wanted, min(max(1, round(height * wanted / width)), TALLEST_PX))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if wanted < width else cv2.INTER_NEAREST)
    return np.repeat(picture[:, :, None], 3, axis=2) if picture.ndim == 2 else picture


def _stretched(image: Image) -> Uint8:
    low, high = np.percentile(image[::4, ::4], (1, 99))
    scaled = np.clip((image.astype(np.float32) - low) * (255 / max(high - low, 1)), 0, 255)
    stretched: Uint8 = scaled.astype(np.uint8)
    return stretched


def annotated(frame: Frame, prediction: Prediction) -> Uint8:
    """Append a bar below a frame with its label and confidence, or its state and the reason.

    Returns:
        (H + bar, W, 3) uint8, R, G, B.
    """
    cv2: Any = import_extra("cv2", "cpu")
    picture = shown(frame.image)
    bar: Uint8 = np.zeros((BAR_PX, picture.shape[1], 3), np.uint8)
    colour = COLOURS[prediction.state]
    bar[:, : round(picture.shape[1] * prediction.confidence)] = tuple(c // 3 for c in colour)
    text = caption(prediction).encode("ascii", "replace").decode()  # the font has no other characters
    (text_px, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, FONT_SCALE, 1)
    scale = FONT_SCALE * min(1.0, (picture.shape[1] - 2 * MARGIN_PX) / text_px)  # long names are drawn smaller
    cv2.putText(bar, text, (MARGIN_PX, BAR_PX - 9), cv2.FONT_HERSHEY_SIMPLEX, scale, colour, 1, cv2.LINE_AA)
    return np.concatenate([picture, bar])


def caption(prediction: Prediction) -> str:
    """Describe a prediction in a few words."""
    if prediction.label is None:
        return f"{prediction.state.value} {prediction.reason.value}".rstrip()
    why = f" ({prediction.state.value}: {prediction.reason.value})" if prediction.reason else ""
    return printable(f"{prediction.label} {prediction.confidence:.0%}{why}")


def set_image(message: Any, picture: Uint8, origin: Origin) -> None:
    """Write (H, W, 3) uint8 R, G, B into a ``sensor_msgs/Image``."""
    set_header(message.header, origin)
    message.height, message.width = picture.shape[:2]
    message.encoding, message.is_bigendian, message.step = "rgb8", 0, 3 * picture.shape[1]
    message.data = array.array("B", picture.tobytes())  # a list would take 50 times as long


class AnnotatedImages:
    """The publisher of ``~/annotated``.

    Args:
        node: The rclpy node.
        fps: Maximum pictures per second and camera; 0 for none. May be changed at any time.
    """

    def __init__(self, node: Any, fps: float) -> None:
        self._node, self.fps, self._kind = node, fps, load("sensor_msgs.msg").Image
        self._publisher = node.create_publisher(self._kind, "~/annotated", 1)
        self._published_ns: dict[str, int] = {}

    def is_due(self, source: str, now_ns: int) -> bool:
        """Whether there is a subscriber and the camera's last picture is long enough ago."""
        if self.fps <= 0 or self._publisher.get_subscription_count() == 0:
            return False
        published_ns = self._published_ns.get(source)
        return published_ns is None or not 0 <= now_ns - published_ns < 1e9 / self.fps

    def publish(self, frame: Frame, prediction: Prediction, origin: Origin, now_ns: int) -> None:
        """Draw and publish."""
        self._published_ns[prediction.source] = now_ns
        message = self._kind()
        set_image(message, annotated(frame, prediction), origin)
        self._publisher.publish(message)

    def close(self) -> None:
        """Destroy the publisher."""
        self._node.destroy_publisher(self._publisher)
