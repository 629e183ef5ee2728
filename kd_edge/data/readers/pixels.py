"""Convert decoded pictures to arrays: upright, grey or R, G, B, 8 or 16 bit as stored.

Grey of more than 8 bit keeps its stored values: up to 1023 for 10 bit, up to 65535 for 16 bit. So does R, G, B of more
than 8 bit. YCbCr of more than 8 bit (HDR of phones) is reduced to 8 bit with a warning in the log. Grey of YCbCr is its
Y, 0 to 255 (a limited range is expanded); grey of R, G, B is 0.299 R + 0.587 G + 0.114 B.
"""

from __future__ import annotations

import functools
import logging
import re
import struct
from typing import Any, Literal, NamedTuple, cast

import numpy as np

from kd_edge.packages import import_extra
from kd_edge.types import Image

Channels = Literal[1, 3]

log = logging.getLogger("kd_edge.data")

_Y_PLANES = frozenset({"nv12", "nv21", "nv16"}) | {
    f"{kind}{sampling}p" for kind in ("yuv", "yuvj", "yuva") for sampling in (410, 411, 420, 422, 440, 444)
}
"""8-bit formats whose first plane contains only Y."""
_DEEP_RGB = re.compile(r"(?:rgb48|bgr48|rgba64|bgra64|gbra?p(?:9|10|12|14|16))(?:le|be)")
_FULL_RANGE = 2  # AVCOL_RANGE_JPEG
_LOWEST_Y, _Y_STEPS = 16, 219


def is_grey(form: str) -> bool:
    """Whether a pixel format, by FFmpeg's name, has one channel."""
    return form.startswith(("gray", "ya8", "ya16", "mono"))


def is_deep(form: Any) -> bool:
    """Whether a pixel format of PyAV keeps more than 8 bit: grey and R, G, B, but not YCbCr."""
    return bool(_DEEP_RGB.fullmatch(form.name)) or (is_grey(form.name) and form.components[0].bits > 8)


class _Size(NamedTuple):
    """Size of a picture as stored, in pixels."""

    height: int
    width: int


class ImageMaker:
    """Converts pictures to arrays with one converter that is kept between them.

    Args:
        channels: 1 converts colour to grey, 3 grey to colour; None keeps the stored channels.
        max_height_px: Scale higher pictures down to this height (area average, same aspect ratio).
    """

    def __init__(self, channels: Channels | None, max_height_px: int | None = None) -> None:
        self._channels, self._max_height = channels, max_height_px
        self._cv2 = import_extra("cv2", "cpu")
        self._converter = import_extra("av.video.reformatter", "replay").VideoReformatter()
        self._turn: _Turn | None = None

    def image(self, picture: Any) -> Image:
        """Return a picture as a new array: (H, W) or (H, W, 3) in R, G, B order, uint8 or uint16.

        Raises:
            ValueError: The pixels have another type, or are grey of more than 8 bit where colour is wanted.
        """
        if self._turn is None or picture.key_frame:
            self._turn = _turn_of(picture)
        size = self._smaller(picture.height, picture.width, is_turned=self._turn[0])
        return cast("Image", np.ascontiguousarray(_turned(self._with_channels(picture, size), self._turn)))

    def _smaller(self, height: int, width: int, *, is_turned: bool) -> _Size | None:
        """Size, before rotation, to scale a picture down to; None if it is low enough."""
        height, width = (width, height) if is_turned else (height, width)
        if self._max_height is None or height <= self._max_height:
            return None
        shown = _Size(self._max_height, max(1, round(width * self._max_height / height)))
        return _Size(*shown[::-1]) if is_turned else shown

    def _with_channels(self, picture: Any, size: _Size | None) -> Image:
        form = picture.format.name
        if "f16" in form or "f32" in form:
            raise ValueError(f"its pixels are {form}, neither 8 nor 16 bit")
        if is_deep(picture.format):
            return self._deep(picture, form, size)
        if form in _Y_PLANES and self._channels == 1 and size is None:
            return self._luminance(picture, form)
        if is_grey(form) or (form in _Y_PLANES and self._channels == 1):
            grey = self._converted(picture, "gray", size)
            return cast("Image", self._cv2.cvtColor(grey, self._cv2.COLOR_GRAY2RGB)) if self._channels == 3 else grey
        if not picture.format.is_rgb:
            _warn_of_depth(max((part.bits for part in picture.format.components), default=8))
        colour = self._converted(picture, "rgb24", size)
        return self._grey_of(colour) if self._channels == 1 else colour

    def _deep(self, picture: Any, form: str, size: _Size | None) -> Image:
        if is_grey(form):
            if self._channels == 3:
                raise ValueError("it is grey of more than 8 bit where colour is wanted")
            native = "gray16le" if form.startswith("ya") else form
            return self._converted(picture, native, size).astype(np.uint16, copy=False)
        values: Image = np.array(picture.to_ndarray()[:, :, :3], dtype=np.uint16)
        values = cast("Image", np.ascontiguousarray(values[:, :, ::-1] if form.startswith("bgr") else values))
        if size is not None:
            values = self._cv2.resize(values, (size.width, size.height), interpolation=self._cv2.INTER_AREA)
        return self._grey_of(values) if self._channels == 1 else values

    def _grey_of(self, colour: Image) -> Image:
        grey: Image = self._cv2.cvtColor(colour, self._cv2.COLOR_RGB2GRAY)
        return grey

    def _luminance(self, picture: Any, form: str) -> Image:
        """Y, 0 to 255. Without chroma only the range has to be converted; the result of swscale, but faster."""
        plane = picture.planes[0]
        if plane.line_size < picture.width:  # negative stride: lines are stored from the last one on
            return self._converted(picture, "gray", None)
        luminance = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: picture.height, : picture.width]
        if form.startswith("yuvj") or picture.color_range == _FULL_RANGE:
            return luminance.copy()
        above = self._cv2.subtract(luminance, _LOWEST_Y)
        expanded: Image = self._cv2.convertScaleAbs(above, alpha=255 / _Y_STEPS)
        return expanded

    def _converted(self, picture: Any, form: str, size: _Size | None) -> Image:
        changes: dict[str, Any] = {} if form == picture.format.name else {"format": form}
        if size is not None:
            changes |= {"width": size.width, "height": size.height, "interpolation": "AREA"}
        converted = self._converter.reformat(picture, **changes, **_one_thread()) if changes else picture
        array: Image = converted.to_ndarray()
        return array.copy() if converted is picture else array  # the decoder reuses its own memory


@functools.cache
def _one_thread() -> dict[str, int]:
    """Argument for one thread, because labels need the other cores; an older PyAV lacks it and uses one anyway."""
    text = getattr(import_extra("av.video.reformatter", "replay").VideoReformatter.reformat, "__doc__", "") or ""
    return {"threads": 1} if "threads" in text else {}


@functools.cache
def _warn_of_depth(bits: int) -> None:
    if bits > 8:
        log.warning("colour of %d bit is read as 8 bit", bits)


# Whether to transpose a picture, then reverse its lines, then its columns.
_Turn = tuple[bool, bool, bool]
_UPRIGHT: _Turn = (False, False, False)
_QUARTERS = {90: (True, True, False), 180: (False, True, True), 270: (True, False, True)}  # anticlockwise


def _turn_of(picture: Any) -> _Turn:
    """Rotation and mirroring in a picture's display matrix; rotations other than by quarter turns are ignored."""
    try:
        matrix = picture.side_data.get("DISPLAYMATRIX")
    except ValueError:  # there is side data of a kind unknown to this PyAV
        return _QUARTERS.get(round(picture.rotation) % 360, _UPRIGHT)
    if matrix is None:
        return _UPRIGHT
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(matrix)[:36])
    if a and d and not (b or c):
        return (False, d < 0, a < 0)
    return (True, b < 0, c < 0) if b and c and not (a or d) else _UPRIGHT


def _turned(image: Image, turn: _Turn) -> Image:
    transposed, lines, columns = turn
    image = image.swapaxes(0, 1) if transposed else image
    image = image[::-1] if lines else image
    return image[:, ::-1] if columns else image
