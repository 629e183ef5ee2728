"""The one decoder of videos, for training and for running: whole, or a piece, one frame at a time or as a clip.

PyAV (FFmpeg) decodes whatever it knows, told by what is in a file and not by its name. Frames are upright (the display
matrix of a phone's clip is applied), come in the order of display and have strictly increasing stamps, 0 at the first.
What PyAV cannot open and OpenCV can is decoded by OpenCV; the log says so. See ``pixels`` for values and ``timing`` for
stamps.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from kd_edge.data.readers import opencv_video
from kd_edge.data.readers.container import CutOffError, UnopenedError, decoder_name, faults, opened, rate, told
from kd_edge.data.readers.pixels import Channels, ImageMaker, is_deep, is_grey
from kd_edge.data.readers.sidecar import stamps_beside
from kd_edge.data.readers.timing import Piece, Promised, placed
from kd_edge.errors import DataError, MissingExtraError
from kd_edge.types import Clip, Image

VIDEOS = (
    ".avi", ".mp4", ".mkv", ".mov", ".m4v", ".mpg", ".mpeg", ".webm", ".ts", ".mts", ".m2ts", ".wmv", ".flv", ".3gp",
    ".ogv", ".mxf", ".y4m",
)  # fmt: skip
"""Endings by which a folder's videos are found; one that is named is opened whatever it ends in."""
VERSION = 2
"""Of how frames are made of files; part of ``decoder_key``."""
_MISSING_SECONDS = 0.5
_MISSING_FRAMES = 2
_MISSING_SHARE = 50  # one in so many

log = logging.getLogger("kd_edge.data")


class VideoInfo(NamedTuple):
    """What the header of a video file says.

    Attributes:
        frames: Number of frames; 0 when the header does not tell.
        fps: Mean frame rate, 1/s.
        height_px: Height of the pictures as stored: one that is shown upright may be turned.
        width_px: Width of the pictures as stored.
        seconds: Duration; 0 when the header does not tell.
        dtype: ``uint16`` where the file is grey, or R, G, B, of more than 8 bit.
        channels: 1 of a grey file.
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
        image: (H, W) or (H, W, 3) in R, G, B order; uint8, or uint16 of files of more than 8 bit, see ``pixels``.
        number: Position of the frame in the file, 0-based.
        stamp_ns: Time since the first frame of the interval; increases strictly.
    """

    image: Image
    number: int
    stamp_ns: int


def decoder_key() -> str:
    """What decodes videos here: reader, PyAV and the OpenCV that stands in, each with its version."""
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
        gray: Return one channel (luminance, full range) instead of three; grey of more than 8 bit as it is stored.
        start: First frame, 0-based.
        stop: Frame to stop before; None reads to the end. Beyond the end it reads what exists.
        start_s: No frame before it, s since the first frame of the file.
        end_s: No frame from it on; None reads to the end.
        max_height_px: Scale higher pictures down to this height (area average, same proportions).
        whole: Raise where the file ends earlier than its header says, instead of returning what there is.

    Returns:
        Clip of (T, H, W, 3) uint8 in R, G, B order, or (T, H, W) uint8 or uint16; stamps from the file,
        0 at the first frame.

    Raises:
        DataError: Absent, damaged, without a picture or without a frame in the piece; the file is named.
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
    """Decode a video, or an interval of it, one frame at a time; only one is held.

    Frames are numbered in the order of their stamps. Those of an AVI are numbered by the stamps themselves, so that the
    number of a frame that was dropped while recording stays empty.

    A picture that the decoder finds damaged is an error, as is a packet that is not where an AVI's index has it: frames
    after it would carry a wrong number. What a decoder does not notice passes, because H.264 and Motion JPEG
    have no check sums: 0.05 % of a file overwritten with zeros, inside one picture, gave a wrong picture at times.

    Args:
        path: The file.
        gray: Return one channel (luminance, full range) instead of three; grey of more than 8 bit as it is stored.
        start: First frame, 0-based.
        stop: Frame to stop before; None reads to the end.
        max_height_px: Scale higher pictures down to this height (area average, same proportions).
        whole: Raise at the end where the header promised more. Two frames, or 2 %, may be missing: some encoders count
            frames they do not write.

    Yields:
        Frames in the order of display.

    Raises:
        DataError: Absent or damaged; the file is named.
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
    """What all the others here, and replay, decode by; a file without PyAV or not for it is given to OpenCV.

    Args:
        path: The file.
        channels: 1 makes colour grey, 3 grey colour; None leaves what is stored.
        piece: Which frames.
        max_height_px: Scale higher pictures down to this height.
        whole: Raise at the end where the file breaks off, or its header promised more.

    Raises:
        UndecodedError: Damaged, or no video.
        OSError: Not there, or no regular file.
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
    """What is wrong with a file, and after how many frames.

    Attributes:
        is_unknown: No decoder knows it.
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
        raise UndecodedError(told(error) + (f", after {last + 1} frames" if last >= 0 else "")) from error
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
        DataError: Absent, not a video, or an AVI that is shorter in bytes than it says; the file is named.
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
        raise _damaged(path, told(error)) from error
    if info.height_px < 1 or info.width_px < 1:
        raise _damaged(path, "its header has no picture size")
    return _timed(path, info)


def _timed(path: Path, info: VideoInfo) -> VideoInfo:
    """What a header says, with the length and the rate by the stamps beside the file where there are any."""
    try:
        stamps_ns = stamps_beside(path)
    except (OSError, ValueError) as error:
        raise _damaged(path, told(error)) from error
    if stamps_ns is None:
        return info
    fps = (len(stamps_ns) - 1) * 1e9 / int(stamps_ns[-1]) if len(stamps_ns) > 1 else info.fps
    return info._replace(frames=len(stamps_ns), fps=fps, seconds=int(stamps_ns[-1]) / 1e9 + 1 / fps)


def require_file(path: Path) -> None:
    """Raise a DataError unless the file is there."""
    if not path.is_file():
        raise DataError(f"no file {path}", "a video", "complete the data set (kd-edge data check)")


def _piece(start: int, stop: int | None, start_s: float, end_s: float | None) -> Piece:
    return Piece(start, stop, round(start_s * 1e9), None if end_s is None else round(end_s * 1e9))


def _wrapped(path: Path, frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
    """Pass frames on; refuse a damaged file, and one whose pictures differ in size."""
    require_file(path)
    first: tuple[int, ...] | None = None
    try:
        for frame in frames:
            first = first or frame.image.shape
            if frame.image.shape != first:  # a camera's may change; a clip has one size
                raise ValueError(f"its pictures differ in size, after {frame.number} frames")
            yield frame
    except (ValueError, OSError) as error:
        raise _damaged(path, told(error)) from error


def _require_whole_riff(path: Path) -> None:
    """Raise ValueError when an AVI is shorter than its first chunk says: a copy that was cut off."""
    with path.open("rb") as file:
        head = file.read(12)
    declared = int.from_bytes(head[4:8], "little")
    if head[:4] == b"RIFF" and head[8:] == b"AVI " and 0 < declared < 0xFFFFFFFF:
        missing = declared + 8 - path.stat().st_size
        if missing > 1:  # the last chunk may lack its padding byte
            raise ValueError(f"{missing} bytes are missing at its end")


def _damaged(path: Path, found: str) -> DataError:
    return DataError(f"{path} is damaged: {found}", "a readable video", "fetch it again; training goes on without it")
