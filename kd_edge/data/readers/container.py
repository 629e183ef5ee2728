"""Video files opened through PyAV (FFmpeg), recognised by content and prevented from opening other files."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from kd_edge.data.readers.bounds import FRAME_PIXELS, check_pixels
from kd_edge.data.readers.ffv1 import Checksums
from kd_edge.errors import reason
from kd_edge.packages import import_extra
from kd_edge.reading import open_regular

EXTRA = "replay"
"""The extra that installs PyAV on a robot; ``train`` includes it too."""

_REFERENCE_FORMATS = frozenset({"hls", "concat", "dash", "sdp", "imf", "webm_dash_manifest", "mlv", "vobsub", "image2"})
"""FFmpeg's names of formats that refer to other files or addresses."""
_TEXT_ART = frozenset({"tty", "bin", "xbin", "adf", "idf"})
THREADS = 0
"""Threads of a decoder; 0 uses all cores, for files that support it."""
_READ_AHEAD_BYTES = 1 << 18
_HEAD_BYTES = 1024
_CHUNK_HEADER = 8  # bytes between a packet's position in an AVI's index and its content
_BOUNDS = {"max_pixels": str(FRAME_PIXELS)}
_OPTIONS = {**_BOUNDS, "err_detect": "crccheck+explode"}
"""Decoder options that make damaged pictures errors; by default they are concealed or dropped."""


class UnopenedError(ValueError):
    """FFmpeg does not support the file or its codec; another decoder may."""


class CutOffError(ValueError):
    """The file ends inside a frame."""


class _Content:
    """A file as passed to FFmpeg: its bytes under a neutral name.

    The real name may contain any bytes, look like a URL or an option, or have a wrong suffix.
    """

    name = "recording"

    def __init__(self, file: BinaryIO) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


@contextmanager
def opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """Open a file and return PyAV's container and its first video stream.

    Raises:
        UnopenedError: The file is not a video that FFmpeg can decode.
        ValueError: The file must not be read: it refers to other files, or its frames have too many pixels.
        OSError: The file is missing or not a regular file.
        MissingExtraError: PyAV is not installed.
    """
    av = import_extra("av", EXTRA)
    with open_regular(path) as file:
        try:
            container = av.open(
                _Content(file),
                options=_BOUNDS,  # for probing, which precedes the decoders
                container_options={"protocol_whitelist": "none"},  # so that nothing else is opened
                buffer_size=_READ_AHEAD_BYTES,
            )
        except (av.FFmpegError, ArithmeticError, ValueError, LookupError) as error:
            raise _unopened(file, error_text(error)) from error
        with container:
            if container.format.name in _REFERENCE_FORMATS | _TEXT_ART:
                raise ValueError(f"it is not a video but {container.format.name}, text or a list of other files")
            yield container, _stream(file, container)


def _stream(file: BinaryIO, container: Any) -> Any:
    if not container.streams.video:
        raise _unopened(file, "it has no picture")
    stream = container.streams.video[0]
    if stream.codec_context is None or not stream.time_base:
        raise UnopenedError("its header names no known codec")
    if stream.width or stream.height:
        check_pixels(stream.width, stream.height)
    stream.codec_context.options = _OPTIONS
    stream.codec_context.thread_count = THREADS
    return stream


def _unopened(file: BinaryIO, why: str) -> ValueError:
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    if head and b"\0" not in head:  # possibly a playlist, which no other decoder may try
        return ValueError("it is text, not a video")
    return UnopenedError(why)


def faults() -> tuple[type[Exception], ...]:
    """Exceptions that PyAV may raise when reading a damaged file."""
    return (import_extra("av", EXTRA).FFmpegError, ArithmeticError, ValueError, LookupError, OSError)


def error_text(error: BaseException) -> str:
    """FFmpeg's message, without the placeholder for the file name."""
    return getattr(error, "strerror", None) or reason(error)


def rate(stream: Any) -> float:
    """Mean frame rate from the header, 1/s; 30 if the header lacks it.

    Raises:
        ValueError: The rate is implausible.
    """
    found = float(stream.average_rate or 30)
    if not 0.001 <= found <= 10_000:
        raise ValueError(f"its header says {found:g} frames per second")
    return found


def decoded(container: Any, stream: Any) -> Iterator[Any]:
    """Yield pictures in display order; a recording that begins inside a group of pictures starts with the next group.

    Raises:
        CutOffError: The file ends inside a frame; all frames before it have been yielded.
        ValueError: The decoder reports a damaged picture, or a packet is not where an AVI's index says. FFmpeg may
            raise other errors, see ``faults``.
    """
    index = getattr(stream, "index_entries", None) if container.format.name == "avi" else None  # None: an older PyAV
    is_index_valid, has_begun = None, False
    checksums = Checksums() if getattr(stream.codec_context, "name", "") == "ffv1" else None
    for packet in container.demux(stream):
        if index and packet.dts is not None:
            has_moved = _moved_up(index, packet)
            if is_index_valid is None:  # an index that is wrong from the start proves nothing
                is_index_valid = not has_moved
            if has_moved and is_index_valid:
                raise ValueError("frames are lost inside it")
        cut_off = packet.is_corrupt  # the file ends inside it
        if checksums is not None and packet.size and not cut_off and checksums.find_damage(bytes(packet)):
            raise ValueError("a picture's checksum is wrong")
        try:
            pictures = stream.codec_context.decode(None) if cut_off else packet.decode()
        except ValueError:  # InvalidDataError
            if has_begun or packet.is_keyframe or packet.size == 0:
                raise
            continue
        for picture in pictures:
            has_begun = True
            if picture.is_corrupt:
                raise ValueError("a picture is damaged")
            yield picture
        if cut_off:
            raise CutOffError("it breaks off")


def _moved_up(index: Any, packet: Any) -> bool:
    """Whether an AVI's index has the packet of this number elsewhere, so that packets before it are missing."""
    entry = index.search_timestamp(packet.dts, any_frame=True)
    if entry < 0 or index[entry].timestamp != packet.dts:
        return False
    return bool(index[entry].pos + _CHUNK_HEADER != packet.pos)


@functools.cache
def decoder_name() -> str:
    """Names and versions of the video decoder and its fallback; part of the keys of data derived from frames."""
    parts = [_version("av", "PyAV"), _version("cv2", "OpenCV")]
    return ", ".join(filter(None, parts))


def _version(module: str, name: str) -> str:
    try:
        found = import_extra(module, EXTRA)
    except Exception:  # the reason is reported where the package is needed
        return ""
    libraries = getattr(found, "library_versions", {})
    codec = ".".join(map(str, libraries.get("libavcodec", ())))
    return f"{name} {found.__version__}" + (f" (libavcodec {codec})" if codec else "")
