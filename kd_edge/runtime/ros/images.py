"""ROS 2's image messages as pictures; nothing here needs ROS: a message is whatever has its fields."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from kd_edge.data.readers.bounds import check_pixels
from kd_edge.data.readers.images import IMAGE_BYTES, decode, rgb_or_grey
from kd_edge.packages import import_extra
from kd_edge.types import Image

DEPTH_HEADER = "<i2f"
"""What ROS's compressedDepth puts before the PNG: a number of its format and how depth was quantised."""
MILLIMETRES = 1000.0
"""Depth in metres becomes what the models' data has: whole millimetres, 0 where there is none."""
COLOUR, GREY = 3, 1


class Stored(Protocol):
    """A ``sensor_msgs/msg/Image``."""

    @property
    def width(self) -> int: ...  # noqa: D102 - as ROS documents it
    @property
    def height(self) -> int: ...  # noqa: D102
    @property
    def encoding(self) -> str: ...  # noqa: D102
    @property
    def is_bigendian(self) -> int: ...  # noqa: D102
    @property
    def step(self) -> int: ...  # noqa: D102
    @property
    def data(self) -> Any: ...  # noqa: D102


class Compressed(Protocol):
    """A ``sensor_msgs/msg/CompressedImage``."""

    @property
    def format(self) -> str: ...  # noqa: D102
    @property
    def data(self) -> Any: ...  # noqa: D102


class Pixels(NamedTuple):
    """How an encoding of ``sensor_msgs/msg/Image`` lies in memory.

    Attributes:
        dtype: Of a sample, as NumPy's.
        channels: Samples of a pixel.
        order: ``grey``, ``rgb``, ``bgr`` or ``metres``.
    """

    dtype: str
    channels: int
    order: str


ENCODINGS = {
    "mono8": Pixels("u1", 1, "grey"),
    "8UC1": Pixels("u1", 1, "grey"),
    "mono16": Pixels("u2", 1, "grey"),
    "16UC1": Pixels("u2", 1, "grey"),
    "32FC1": Pixels("f4", 1, "metres"),
    "rgb8": Pixels("u1", 3, "rgb"),
    "rgb16": Pixels("u2", 3, "rgb"),
    "rgba8": Pixels("u1", 4, "rgb"),
    "bgr8": Pixels("u1", 3, "bgr"),
    "8UC3": Pixels("u1", 3, "bgr"),
    "bgra8": Pixels("u1", 4, "bgr"),
}
"""Encodings that are understood."""


class EncodingError(ValueError):
    """An encoding that is not understood: no other picture of this topic will be, either."""


def picture(message: Stored) -> Image:
    """The pixels of an uncompressed image, without the padding of its rows.

    Args:
        message: A ``sensor_msgs/msg/Image``; nothing of it is believed.

    Returns:
        (H, W) or (H, W, 3) in R, G, B order, uint8 or uint16, a copy; depth in metres as millimetres, 0 where there is
        none.

    Raises:
        EncodingError: Its encoding is none of ``ENCODINGS``.
        ValueError: Its size is none, or more than its bytes.
    """
    pixels = ENCODINGS.get(message.encoding)
    if pixels is None:
        raise EncodingError(f"an image is encoded as {message.encoding!r:.40}, not as one of {', '.join(ENCODINGS)}")
    samples = _samples(message, pixels)
    native = samples.dtype.newbyteorder("=")
    if pixels.order == "metres":
        return _millimetres(samples[:, :, 0].astype(native))
    if pixels.channels == 1:
        return np.array(samples[:, :, 0], dtype=native)
    colour = samples[:, :, 2::-1] if pixels.order == "bgr" else samples[:, :, :COLOUR]
    return np.array(colour, dtype=native, order="C")


def _samples(message: Stored, pixels: Pixels) -> npt.NDArray[Any]:
    """The samples (H, W, channels) where they lie in the message."""
    check_pixels(message.width, message.height)
    data = np.frombuffer(message.data, np.uint8)
    dtype = np.dtype(pixels.dtype).newbyteorder(">" if message.is_bigendian else "<")
    row_bytes = message.width * pixels.channels * dtype.itemsize
    needed = message.step * (message.height - 1) + row_bytes
    if message.step < row_bytes or len(data) < needed:
        raise ValueError(
            f"an image of {message.width}x{message.height} {message.encoding} has {len(data):,} bytes in rows of "
            f"{message.step:,}, not {max(needed, row_bytes * message.height):,}"
        )
    shape = (message.height, message.width, pixels.channels)
    strides = (message.step, pixels.channels * dtype.itemsize, dtype.itemsize)
    return np.ndarray(shape, dtype, data, strides=strides)


def _millimetres(metres: npt.NDArray[Any]) -> Image:
    """Depth as whole millimetres; what is not finite or not in front of the camera is no depth, 0."""
    known = np.isfinite(metres) & (metres > 0)
    with np.errstate(over="ignore"):  # it is the farthest there is
        scaled = np.where(known, metres, 0.0) * MILLIMETRES
    return np.minimum(np.rint(scaled), np.iinfo(np.uint16).max).astype(np.uint16)


def compressed_picture(message: Compressed) -> Image:
    """The pixels of a compressed image: JPEG, PNG of 8 or 16 bit, or depth as ``compressedDepth`` packs it.

    Args:
        message: A ``sensor_msgs/msg/CompressedImage``.

    Returns:
        As ``picture``.

    Raises:
        EncodingError: Depth that is packed otherwise than as PNG.
        ValueError: It cannot be decoded, or is too large.
    """
    content = memoryview(message.data).cast("B")
    if len(content) > IMAGE_BYTES:
        raise ValueError(f"a compressed image has {len(content):,} bytes, more than {IMAGE_BYTES:,}")
    cv2 = import_extra("cv2", "cpu")
    if "compressedDepth" in message.format:
        return _packed_depth(cv2, message.format, content)
    image = decode(cv2, bytes(content))
    return rgb_or_grey(cv2, image, grey=False)


def _packed_depth(cv2: Any, format_: str, content: memoryview) -> Image:
    """Depth from a 16 bit PNG behind a header, millimetres, or where the message held metres, their inverse."""
    if "rvl" in format_:
        raise EncodingError(f"depth is packed as {format_!r:.40}, not as PNG")
    header = struct.calcsize(DEPTH_HEADER)
    if len(content) <= header:
        raise ValueError(f"a compressed image has {len(content)} bytes, no more than its header")
    packed = decode(cv2, bytes(content[header:]))
    if packed.ndim != 2:
        raise ValueError("depth is packed in a PNG of colour")
    if not format_.startswith("32FC1"):
        return packed
    _, numerator, shift = struct.unpack_from(DEPTH_HEADER, content)
    with np.errstate(all="ignore"):
        metres = np.where(packed > 0, numerator / (packed.astype(np.float64) - shift), np.nan)
        return _millimetres(metres)


def to_grey(image: Image) -> Image:
    """An image of R, G, B as one of grey; one that is grey as it is."""
    if image.ndim == 2:
        return image
    cv2 = import_extra("cv2", "cpu")
    grey: Image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return grey
