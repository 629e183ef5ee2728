"""The video decoder for training and for running: whole files or pieces, frame by frame or as a clip.

PyAV (FFmpeg) decodes any format it knows, recognised by content and not by name. Frames are upright (the display matrix
of phone videos is applied), in display order, and have strictly increasing stamps, 0 at the first. Files that only
OpenCV can open are decoded by OpenCV, with a warning in the log. See ``pixels`` for values and ``timing`` for stamps.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from kd_edge.data.readers import opencv_video
from kd_edge.data.readers.container import CutOffError, UnopenedError, decoder_name, error_text, faults, opened, rate
from kd_edge.data.readers.pixels import Channels, ImageMaker, is_deep, is_grey
from kd_edge.data.readers.sidecar import stamps_beside
from kd_edge.data.readers.timing import Piece, Promised, placed
from kd_edge.errors import DataError, MissingExtraError
from kd_edge.types import Clip, Image

VIDEOS = (
    ".avi", ".mp4", ".mkv", ".mov", ".m4v", ".mpg", ".mpeg", ".webm", ".ts", ".mts", ".m2ts", ".wmv", ".flv", ".3gp",
    ".ogv", ".mxf", ".y4m",
)  # fmt: skip
"""Suffixes by which videos are found in a folder; a file given by name may have any suffix."""
VERSION = 2
"""Version of decoding; part of ``decoder_key``."""
_MISSING_SECONDS = 0.5
_MISSING_FRAMES = 2
_MISSING_SHARE = 50  # one in this many frames

log = logging.getLogger("kd_edge.data")


class VideoInfo(NamedTuple):
    """Header of a video file.

    Attributes:
        frames: Number of frames; 0 if the header lacks it.
        fps: Mean frame rate, 1/s.
        height_px: Height of the pictures as stored, before the rotation to upright.
        width_px: Width of the pictures as stored, before the rotation to upright.
        seconds: Duration; 0 if the header lacks it.
        dtype: ``uint16`` if the file is grey, or R, G, B, of more than 8 bit.
        channels: 1 for a grey file, otherwise 3.
    """

    frames: int
    fps: float
    height_px: int
    width_px: int
    seconds: float = 0.0
    dtype: Literal["uint8", "uint16"] = "uint8"
    channels: Channels = 3


class VideoFrame(NamedTuple):
    """One decoded frame.

    Attributes:
        image: (H, W) or (H, W, 3) in R, G, B order; uint8, or uint16 for files of more than 8 bit, see ``pixels``.
        number: Index of the frame in the file, 0-based.
        stamp_ns: Time since the first frame of the interval; strictly increasing.
    """

    image: Image
    number: int
    stamp_ns: int


def decoder_key() -> str:
    """Return names and versions of the video decoders: this reader, PyAV and OpenCV as its fallback."""
    return f"video {VERSION} by {decoder_name()}"


def read_video(
    path: Path,
    *,
    gray: bool = False,
    start: int = 0,
    stop: int | None = None,
    start_s: float = 0.0,
    end_s: float | None = None,
    max_height_px: int | None = None,
    whole: bool = False,
) -> Clip:
    """Decode a video, or a piece of it, into one clip.

    Args:
        path: The file.
        gray: Return one channel (luminance, full range) instead of three; grey of more than 8 bit as stored.
        start: First frame, 0-based.
        stop: Frame to stop before; None, or a number beyond the end, reads to the end.
        start_s: Earliest time of a frame, in seconds since the first frame of the file.
        end_s: Time to stop before; None reads to the end.
        max_height_px: Scale higher pictures down to this height (area average, same aspect ratio).
        whole: Raise an error if the file ends earlier than its header says, instead of returning the existing frames.

    Returns:
        Clip of (T, H, W, 3) uint8 in R, G, B order, or (T, H, W) uint8 or uint16; stamps from the file,
        0 at the first frame.

    Raises:
        DataError: The file is missing, damaged, or has no picture in the piece; the message names it.
    """
    piece = _piece(start, stop, start_s, end_s)
    frames = list(_wrapped(path, frames_of(path, 1 if gray else 3, piece, max_height_px=max_height_px, whole=whole)))
    if not frames:
        where = f"frame {start}" if start else f"{start_s:g} s"
        raise _damaged(path, "it has no picture" if piece.is_from_start else f"it ends before {where}")
    return Clip(np.stack([f.image for f in frames]), np.array([f.stamp_ns for f in frames], dtype=np.int64))


def iterate_video(
    path: Path,
    *,
    gray: bool = False,
    start: int = 0,
    stop: int | None = None,
    max_height_px: int | None = None,
    whole: bool = False,
) -> Iterator[VideoFrame]:
    """Decode a video, or an interval of it, one frame at a time; only one is held in memory.

    Frames are numbered in the order of their stamps. In an AVI the stamps are the numbers, so that numbers of frames
    dropped while recording are skipped.

    A picture that the decoder reports as damaged is an error, as is a packet that is not where an AVI's index has it,
    because later frames would have wrong numbers. Damage that the decoder does not notice passes, because H.264 and
    Motion JPEG have no checksums: 0.05 % of a file overwritten with zeros inside one picture sometimes gave a wrong
    picture.

    Args:
        path: The file.
        gray: Return one channel (luminance, full range) instead of three; grey of more than 8 bit as stored.
        start: First frame, 0-based.
        stop: Frame to stop before; None reads to the end.
        max_height_px: Scale higher pictures down to this height (area average, same aspect ratio).
        whole: Raise an error at the end if the header promised more. Two frames, or 2 %, may be missing, because some
            encoders count frames they do not write.

    Yields:
        Frames in display order.

    Raises:
        DataError: The file is missing or damaged; the message names it.
    """
    piece = _piece(start, stop, 0.0, None)
    yield from _wrapped(path, frames_of(path, 1 if gray else 3, piece, max_height_px=max_height_px, whole=whole))


def frames_of(
    path: Path,
    channels: Channels | None,
    piece: Piece = Piece(),  # noqa: B008 - immutable
    *,
    max_height_px: int | None = None,
    whole: bool = True,
) -> Iterator[VideoFrame]:
    """Decode frames with PyAV, or with OpenCV if PyAV is missing or cannot open the file.

    The other functions of this module and replay are based on it.

    Args:
        path: The file.
        channels: 1 converts colour to grey, 3 grey to colour; None keeps the stored channels.
        piece: Range of frames.
        max_height_px: Scale higher pictures down to this height.
        whole: Raise an error at the end if the file is truncated or its header promised more.

    Raises:
        UndecodedError: The file is damaged or not a video.
        OSError: The file is missing or not a regular file.
    """
    try:
        yield from _by_pyav(path, channels, piece, max_height_px, whole)
    except (UnopenedError, MissingExtraError) as error:
        if (found := opencv_video.fault(path)) is not None:
            if isinstance(error, MissingExtraError) and found == opencv_video.UNKNOWN:
                raise
            unknown = UndecodedError(f"{found} ({error})" if found == opencv_video.UNKNOWN else found)
            unknown.is_unknown = found == opencv_video.UNKNOWN
            raise unknown from error
        why = error.found if isinstance(error, MissingExtraError) else str(error)
        log.warning("%s is decoded by OpenCV, not by PyAV: %s", path, why)
        yield from _cut(opencv_video.frames(path, channels, max_height_px), piece)


class UndecodedError(ValueError):
    """A file that cannot be decoded; the message has the reason and the number of frames before it.

    Attributes:
        is_unknown: Whether no decoder supports the file.
    """

    is_unknown = False


def _by_pyav(
    path: Path, channels: Channels | None, piece: Piece, max_height_px: int | None, whole: bool
) -> Iterator[VideoFrame]:
    last, since_ns = -1, 0
    first_ns: int | None = None
    is_over, breaks_off, promised = False, False, Promised(0, 0.0)
    maker: ImageMaker | None = None
    try:
        for (number, since_ns, picture), promised in placed(path, piece):  # noqa: B007
            if is_over := piece.is_over(number, since_ns):
                break
            last = number
            if piece.is_before(number, since_ns):
                continue
            maker = maker or ImageMaker(channels, max_height_px)
            first_ns = since_ns if first_ns is None else first_ns
            yield VideoFrame(maker.image(picture), number, since_ns - first_ns)
    except CutOffError:
        breaks_off = True
    except (UnopenedError, MissingExtraError):
        raise
    except faults() as error:
        if isinstance(error, OSError) and not path.is_file():
            raise
        raise UndecodedError(error_text(error) + (f", after {last + 1} frames" if last >= 0 else "")) from error
    if whole and not is_over:
        _check_whole(piece, promised, last, since_ns, breaks_off)


def _check_whole(piece: Piece, promised: Promised, last: int, since_ns: int, breaks_off: bool) -> None:
    end = promised.frames if piece.stop is None else min(piece.stop, promised.frames)
    if end - (last + 1) > max(_MISSING_FRAMES, (end - piece.start) // _MISSING_SHARE):
        raise UndecodedError(f"it ends after {last + 1} frames, its header says {promised.frames}")
    end_s = promised.seconds if piece.stop_ns is None else min(promised.seconds, piece.stop_ns / 1e9)
    if piece.stop is None and end_s - since_ns / 1e9 > max(_MISSING_SECONDS, end_s / _MISSING_SHARE):
        raise UndecodedError(f"it ends after {since_ns / 1e9:.2f} s, its header says {promised.seconds:.2f} s")
    if breaks_off:
        raise UndecodedError(f"it breaks off after {last + 1} frames")


def _cut(frames: Iterator[tuple[Image, int]], piece: Piece) -> Iterator[VideoFrame]:
    first_ns: int | None = None
    for number, (image, since_ns) in enumerate(frames):
        if piece.is_over(number, since_ns):
            return
        if not piece.is_before(number, since_ns):
            first_ns = since_ns if first_ns is None else first_ns
            yield VideoFrame(image, number, since_ns - first_ns)


def video_info(path: Path) -> VideoInfo:
    """Read the header of a video file; nothing is decoded.

    Raises:
        DataError: The file is missing, not a video, or an AVI that is shorter than its header says; the message names
            it.
    """
    require_file(path)
    try:
        _require_whole_riff(path)
        with opened(path) as (container, stream):
            form = stream.codec_context.format
            info = VideoInfo(
                stream.frames, rate(stream), stream.height, stream.width, max(0, container.duration or 0) / 1e6,
                "uint16" if form is not None and is_deep(form) else "uint8",
                1 if form is not None and is_grey(form.name) else 3,
            )  # fmt: skip
    except UnopenedError as error:
        if (other := opencv_video.info(path)) is None:
            raise _damaged(path, str(error)) from error
        info = VideoInfo(*other)
    except faults() as error:
        raise _damaged(path, error_text(error)) from error
    if info.height_px < 1 or info.width_px < 1:
        raise _damaged(path, "its header has no picture size")
    return _timed(path, info)


def _timed(path: Path, info: VideoInfo) -> VideoInfo:
    """A header with length and rate taken from the stamps of the sidecar file, if present."""
    try:
        stamps_ns = stamps_beside(path)
    except (OSError, ValueError) as error:
        raise _damaged(path, error_text(error)) from error
    if stamps_ns is None:
        return info
    fps = (len(stamps_ns) - 1) * 1e9 / int(stamps_ns[-1]) if len(stamps_ns) > 1 else info.fps
    return info._replace(frames=len(stamps_ns), fps=fps, seconds=int(stamps_ns[-1]) / 1e9 + 1 / fps)


def require_file(path: Path) -> None:
    """Raise a DataError unless the file exists."""
    if not path.is_file():
        raise DataError(f"no file {path}", "a video", "complete the data set (kd-edge data check)")


def _piece(start: int, stop: int | None, start_s: float, end_s: float | None) -> Piece:
    return Piece(start, stop, round(start_s * 1e9), None if end_s is None else round(end_s * 1e9))


def _wrapped(path: Path, frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
    """Yield the frames; raise a DataError for a damaged file, and for one whose pictures differ in size."""
    require_file(path)
    first: tuple[int, ...] | None = None
    try:
        for frame in frames:
            first = first or frame.image.shape
            if frame.image.shape != first:  # a camera may change the size, a clip must not
                raise ValueError(f"its pictures differ in size, after {frame.number} frames")
            yield frame
    except (ValueError, OSError) as error:
        raise _damaged(path, error_text(error)) from error


def _require_whole_riff(path: Path) -> None:
    """Raise a ValueError if an AVI is shorter than its first chunk says, as a truncated copy is."""
    with path.open("rb") as file:
        head = file.read(12)
    declared = int.from_bytes(head[4:8], "little")
    if head[:4] == b"RIFF" and head[8:] == b"AVI " and 0 < declared < 0xFFFFFFFF:
        missing = declared + 8 - path.stat().st_size
        if missing > 1:  # the last chunk may lack its padding byte
            raise ValueError(f"{missing} bytes are missing at its end")


def _damaged(path: Path, found: str) -> DataError:
    return DataError(f"{path} is damaged: {found}", "a readable video", "fetch it again; training continues without it")
