"""Decode video files through PyAV: whole, or an interval of frames, one at a time or as a clip."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from kd_edge.errors import DataError, import_extra, reason
from kd_edge.types import Clip, Image

VIDEOS = (".avi", ".mp4", ".mkv", ".mov", ".m4v", ".mpg", ".mpeg", ".webm", ".ts")
"""Endings of files that are read as videos."""

_DEEP_GREY = frozenset({"gray10le", "gray12le", "gray14le", "gray16le"})
"""Pixels of one channel and more than 8 bit: values stay what they are."""
_LONGEST_REORDERING = 16  # frames by which a packet may come before its picture is shown
_CHUNK_HEADER = 8  # bytes between a packet's place in an AVI's index and its content


class VideoInfo(NamedTuple):
    """What the header of a video file says.

    Attributes:
        frames: Number of frames; 0 when the header does not tell.
        fps: Frame rate, 1/s.
        height_px: Height of the pictures.
        width_px: Width of the pictures.
        seconds: Duration; 0 when the header does not tell.
        dtype: Type of a grey picture's pixels: ``uint16`` where the file is grey of more than 8 bit.
    """

    frames: int
    fps: float
    height_px: int
    width_px: int
    seconds: float = 0.0
    dtype: Literal["uint8", "uint16"] = "uint8"


class VideoFrame(NamedTuple):
    """One decoded frame.

    Attributes:
        image: (H, W) or (H, W, 3) uint8, R, G, B; (H, W) uint16 of grey files of more than 8 bit.
        number: Position of the frame in the file, 0-based.
        stamp_ns: Time since the first frame of the interval.
    """

    image: Image
    number: int
    stamp_ns: int


def read_video(
    path: Path,
    *,
    gray: bool = False,
    start: int = 0,
    stop: int | None = None,
    max_height_px: int | None = None,
    whole: bool = False,
) -> Clip:
    """Decode a video, or an interval of it, into one clip.

    Args:
        path: The file.
        gray: Return one channel (luminance, full range) instead of three; grey of more than 8 bit as it is stored.
        start: First frame, 0-based.
        stop: Frame to stop before; None reads to the end. Beyond the end it reads what exists.
        max_height_px: Scale higher pictures down to this height while decoding (area average, same proportions).
        whole: Raise where the file ends earlier than its header says, instead of returning what there is.

    Returns:
        Clip of (T, H, W, 3) uint8 in R, G, B order, or (T, H, W) uint8 or uint16; stamps from the file,
        0 at the first frame.

    Raises:
        DataError: Absent, damaged, without a picture or without a frame in the interval; the file is named.
    """
    decoded = list(iterate_video(path, gray=gray, start=start, stop=stop, max_height_px=max_height_px, whole=whole))
    if not decoded:
        raise _damaged(path, "it has no picture" if start == 0 else f"it ends before frame {start}")
    stamps_ns = np.array([frame.stamp_ns for frame in decoded], dtype=np.int64)
    if np.any(np.diff(stamps_ns) <= 0):
        raise _damaged(path, "its time stamps do not increase")
    return Clip(np.stack([frame.image for frame in decoded]), stamps_ns)


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

    An interval is reached from the key frame before it. Frames are numbered by the file's time stamps, so the number of
    a frame that was dropped while recording stays empty. Where an AVI has B-frames its stamps are those of packets in
    coding order: frames are then counted on from the key frame, or from the first frame of the file where key frames
    cannot be trusted either (open groups of pictures), which is slow but exact.

    A picture that the decoder finds damaged is an error, as is a packet that is not where an AVI's index has it: frames
    after it would carry a wrong number. What a decoder does not notice passes, because H.264 and Motion JPEG
    have no check sums: 0.05 % of a file overwritten with zeros, inside one picture, gave a wrong picture at times.

    Args:
        path: The file.
        gray: Return one channel (luminance, full range) instead of three; grey of more than 8 bit as it is stored.
        start: First frame, 0-based.
        stop: Frame to stop before; None reads to the end.
        max_height_px: Scale higher pictures down to this height while decoding (area average, same proportions).
        whole: Raise at the end where the header promised more. Two frames, or 2 %, may be missing: some encoders count
            frames they do not write.

    Yields:
        Frames in the order of display.

    Raises:
        DataError: Absent or damaged; the file is named.
    """
    require_file(path)
    av = import_extra("av", "train")
    last, declared, size = -1, 0, None
    first: float | None = None
    try:
        maker = _ImageMaker(gray, max_height_px)
        for number, seconds, picture, declared in _pictures(av, path, start):  # noqa: B007
            if stop is not None and number >= stop:
                break
            size = size or (picture.height, picture.width)
            if size != (picture.height, picture.width):
                raise _damaged(path, "its pictures differ in size")
            last = number
            if number < start:
                continue
            first = seconds if first is None else first
            yield VideoFrame(maker.image(picture), number, round((seconds - first) * 1e9))
    except (av.FFmpegError, ArithmeticError, ValueError, OSError) as error:
        raise _damaged(path, _reason(error) + (f", after {last + 1} frames" if last >= 0 else "")) from error
    end = declared if stop is None else min(stop, declared)
    if whole and end - (last + 1) > max(2, (end - start) // 50):
        raise _damaged(path, f"it ends after {last + 1} frames, its header says {declared}")


def video_info(path: Path) -> VideoInfo:
    """Read the header of a video file; nothing is decoded.

    Raises:
        DataError: Absent, not a video, or an AVI that is shorter in bytes than it says; the file is named.
    """
    require_file(path)
    av = import_extra("av", "train")
    try:
        _require_whole_riff(path)
        with av.open(str(path)) as container:
            stream = _stream(container)
            deep = stream.codec_context.pix_fmt in _DEEP_GREY
            info = VideoInfo(
                stream.frames, _rate(stream), stream.height, stream.width,
                max(0, container.duration or 0) / 1e6, "uint16" if deep else "uint8",
            )  # fmt: skip
    except (av.FFmpegError, ArithmeticError, ValueError, OSError) as error:
        raise _damaged(path, _reason(error)) from error
    if info.height_px < 1 or info.width_px < 1:
        raise _damaged(path, "its header has no picture size")
    return info


def require_file(path: Path) -> None:
    """Raise a DataError unless the file is there."""
    if not path.is_file():
        raise DataError(f"no file {path}", "a video", "complete the data set (kd-edge data check)")


def _pictures(av: Any, path: Path, start: int) -> Iterator[tuple[int, float, Any, int]]:
    """(number, time in seconds, picture, frames as the header says) from ``start`` or before it on."""
    for seeking in (True, False) if start > 0 else (False,):
        with av.open(str(path)) as container:
            stream = _stream(container)
            stat = path.stat()
            if _reordered(container, stream):
                origin = _origin(path, stat.st_size, stat.st_mtime_ns) if seeking else None
                if seeking and origin is None:
                    continue
                numbered = _counted(container, stream, start, origin)
            else:
                late = _delay(path, stat.st_size, stat.st_mtime_ns) if container.format.name == "avi" else 0
                numbered = _stamped(container, stream, start if seeking else 0, late)
            reached = False
            try:
                first = next(numbered, None)
                if seeking and (first is None or first[0] > start):
                    continue  # the key frame before was not found: begin at the beginning
                for number, seconds, picture in chain([first] if first else [], numbered):
                    reached = reached or number >= start
                    yield number, seconds, picture, stream.frames
            except (av.FFmpegError, ValueError):
                if reached or not seeking:
                    raise
                continue  # where groups are open, pictures after a key frame lean on the group before
            return


def _stream(container: Any) -> Any:
    if not container.streams.video:
        raise ValueError("it has no picture")
    stream = container.streams.video[0]
    if stream.codec_context is None or not stream.time_base:
        raise ValueError("its header names no codec that is known")
    stream.codec_context.options = {"err_detect": "explode"}  # else damaged pictures are patched up or left out
    return stream


def _decode(container: Any, stream: Any) -> Iterator[Any]:
    """Pictures in the order of display, as far as the file goes; one that the decoder finds damaged is an error."""
    index = getattr(stream, "index_entries", None) if container.format.name == "avi" else None  # None: an older PyAV
    for packet in container.demux(stream):
        if index and packet.dts is not None and _moved_up(index, packet):
            raise ValueError("frames are lost inside it")
        cut_off = packet.is_corrupt  # the file ends inside it
        for picture in stream.codec_context.decode(None) if cut_off else packet.decode():
            if picture.is_corrupt:
                raise ValueError("a picture is damaged")
            yield picture
        if cut_off:
            return


def _moved_up(index: Any, packet: Any) -> bool:
    """Whether an AVI's index has the packet of this number elsewhere: those before it were not found."""
    place = index.search_timestamp(packet.dts, any_frame=True)
    if place < 0 or index[place].timestamp != packet.dts:
        return False
    return bool(index[place].pos + _CHUNK_HEADER != packet.pos)


def _rate(stream: Any) -> float:
    """Frame rate, 1/s."""
    rate = float(stream.average_rate or 30)
    if not 0.01 <= rate <= 10_000:
        raise ValueError(f"its header says {rate:g} frames a second")
    return rate


def _reordered(container: Any, stream: Any) -> bool:
    """Whether the stamps are those of packets in coding order, which only AVI with B-frames has."""
    return container.format.name == "avi" and bool(stream.codec_context.has_b_frames)


def _stamped(container: Any, stream: Any, start: int, late: int) -> Iterator[tuple[int, float, Any]]:
    """(number, time in seconds, picture) in the order of display, from the key frame at or before ``start``.

    ``late`` is what all stamps are too late by, in the stream's unit.
    """
    rate = _rate(stream)
    origin = stream.start_time or 0
    if start > 0:
        container.seek(origin + int(start / (rate * float(stream.time_base))), stream=stream)
    number = -1
    for picture in _decode(container, stream):
        if picture.pts is not None:
            number = round((picture.pts - late - origin) * float(stream.time_base) * rate)
            yield number, picture.time, picture
        elif start > 0 and number < 0:
            return  # a place without a stamp cannot be told: the caller begins at the beginning
        else:
            number += 1
            yield number, number / rate, picture


def _counted(container: Any, stream: Any, start: int, origin: int | None) -> Iterator[tuple[int, float, Any]]:
    """The same for reordered stamps: frames are counted on from a key frame, or from the first without ``origin``."""
    rate = _rate(stream)
    if origin is not None:
        container.seek(origin + max(0, start - _LONGEST_REORDERING), stream=stream)
    number = -1
    for picture in _decode(container, stream):
        if number < 0 and origin is not None:
            if picture.pts is None or not picture.key_frame:
                return
            number = picture.pts - origin
        else:
            number += 1
        yield number, number / rate, picture


@functools.lru_cache(maxsize=4096)
def _delay(path: Path, size: int, mtime_ns: int) -> int:
    """By how much an AVI's pictures are stamped later than their packets: FFmpeg expects H.264 to be reordered."""
    with import_extra("av", "train").open(str(path)) as container:
        packet = next(container.demux(_stream(container)), None)
        return 0 if packet is None or None in (packet.pts, packet.dts) else int(packet.pts - packet.dts)


@functools.lru_cache(maxsize=4096)
def _origin(path: Path, size: int, mtime_ns: int) -> int | None:
    """Stamp of the first frame of a reordered AVI, if its key frames are stamped by their place in the display order.

    Most encoders' are; open groups of pictures are not. The second key frame tells: it is counted up to once a file.
    """
    with import_extra("av", "train").open(str(path)) as container:
        origin: int | None = None
        for number, picture in enumerate(_decode(container, _stream(container))):
            if number == 0:
                origin = picture.pts
            elif picture.key_frame:
                known = origin is not None and picture.pts is not None
                return origin if known and picture.pts - origin == number else None
    return None


class _ImageMaker:
    """Pictures as arrays; keeps the converter between them."""

    def __init__(self, gray: bool, max_height_px: int | None) -> None:
        self._gray = gray
        self._max_height = max_height_px
        self._converter = import_extra("av.video.reformatter", "train").VideoReformatter()

    def image(self, picture: Any) -> Image:
        stored = picture.format.name
        form = "rgb24" if not self._gray else stored if stored in _DEEP_GREY else "gray"
        target: dict[str, Any] = {}
        if self._max_height is not None and picture.height > self._max_height:
            width = max(1, round(picture.width * self._max_height / picture.height))
            target = {"width": width, "height": self._max_height, "interpolation": "AREA"}
        array: Image = self._converter.reformat(picture, format=form, **target).to_ndarray()
        return array


def _require_whole_riff(path: Path) -> None:
    """Raise ValueError when an AVI is shorter than its first chunk says: a copy that was cut off."""
    with path.open("rb") as file:
        head = file.read(12)
    declared = int.from_bytes(head[4:8], "little")
    if head[:4] == b"RIFF" and head[8:] == b"AVI " and 0 < declared < 0xFFFFFFFF:
        missing = declared + 8 - path.stat().st_size
        if missing > 1:  # the last chunk may lack its padding byte
            raise ValueError(f"{missing} bytes are missing at its end")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or reason(error)


def _damaged(path: Path, found: str) -> DataError:
    return DataError(f"{path} is damaged: {found}", "a readable video", "fetch it again; training goes on without it")
