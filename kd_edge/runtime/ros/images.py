"""Decode ROS 2's image messages; needs no ROS, since any object with the fields of a message will do."""

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
"""Header of ROS's compressedDepth before the PNG: a format number and the depth quantisation."""
MILLIMETRES = 1000.0
"""Depth in metres is converted to whole millimetres as in the models' data, 0 where it is missing."""
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
    """Memory layout of an encoding of ``sensor_msgs/msg/Image``.

    Attributes:
        dtype: NumPy type of a sample.
        channels: Samples per pixel.
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
"""Supported encodings."""


class EncodingError(ValueError):
    """An unsupported encoding: no other picture of this topic will be readable, either."""


def picture(message: Stored) -> Image:
    """Return the pixels of an uncompressed image, without the padding of its rows.

    Args:
        message: A ``sensor_msgs/msg/Image``; all of its fields are validated.

    Returns:
        (H, W) or (H, W, 3) in R, G, B order, uint8 or uint16, a copy; depth in metres as millimetres, 0 where it is
        missing.

    Raises:
        EncodingError: Its encoding is not in ``ENCODINGS``.
        ValueError: Its size is invalid, or larger than its data.
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
    """Return a view (H, W, channels) of the message's samples."""
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
    """Convert depth to whole millimetres; values that are not finite or not positive become 0, missing."""
    known = np.isfinite(metres) & (metres > 0)
    with np.errstate(over="ignore"):  # an overflow becomes the largest distance
        scaled = np.where(known, metres, 0.0) * MILLIMETRES
    return np.minimum(np.rint(scaled), np.iinfo(np.uint16).max).astype(np.uint16)


def compressed_picture(message: Compressed) -> Image:
    """Decode a compressed image: JPEG, 8- or 16-bit PNG, or ``compressedDepth``.

    Args:
        message: A ``sensor_msgs/msg/CompressedImage``.

    Returns:
        As ``picture``.

    Raises:
        EncodingError: Depth is not packed as PNG.
        ValueError: The image cannot be decoded, or is too large.
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
    """Decode depth from a header and a 16-bit PNG of millimetres or, if the message was in metres, inverse depth."""
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
    """Convert an R, G, B image to grey; a grey one is returned unchanged."""
    if image.ndim == 2:
        return image
    cv2 = import_extra("cv2", "cpu")
    grey: Image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return grey
