"""Video files opened through PyAV (FFmpeg): by what is in them, and so that they open nothing else."""

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
"""The extra that brings PyAV to a robot; ``train`` has it too."""

_OTHERS_FILES = frozenset({"hls", "concat", "dash", "sdp", "imf", "webm_dash_manifest", "mlv", "vobsub", "image2"})
"""What FFmpeg calls files that name other files or addresses."""
_TEXT_ART = frozenset({"tty", "bin", "xbin", "adf", "idf"})
THREADS = 0
"""Of a decoder; 0 takes as many as there are cores, for files that are made for it."""
_READ_AHEAD_BYTES = 1 << 18
_HEAD_BYTES = 1024
_CHUNK_HEADER = 8  # bytes between a packet's place in an AVI's index and its content
_BOUNDS = {"max_pixels": str(FRAME_PIXELS)}
_OPTIONS = {**_BOUNDS, "err_detect": "crccheck+explode"}
"""Of the decoders: damaged pictures are errors; else they are patched up or left out."""


class UnopenedError(ValueError):
    """FFmpeg knows no such file or codec; another decoder may."""


class CutOffError(ValueError):
    """The file ends inside a frame."""


class _Content:
    """What FFmpeg sees of a file: its bytes, and a name that says nothing.

    A name may hold any bytes, look like a URL or an option, or end in what the file is not.
    """

    name = "recording"

    def __init__(self, file: BinaryIO) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


@contextmanager
def opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """A file's container and its first stream of pictures, as PyAV's objects.

    Raises:
        UnopenedError: No video that FFmpeg can decode.
        ValueError: One that must not be read: it names other files, or has more pixels than a frame may.
        OSError: Not there, or no regular file.
        MissingExtraError: PyAV is not installed.
    """
    av = import_extra("av", EXTRA)
    with open_regular(path) as file:
        try:
            container = av.open(
                _Content(file),
                options=_BOUNDS,  # what looks into it before the decoders do
                container_options={"protocol_whitelist": "none"},  # so nothing else is opened
                buffer_size=_READ_AHEAD_BYTES,
            )
        except (av.FFmpegError, ArithmeticError, ValueError, LookupError) as error:
            raise _unopened(file, told(error)) from error
        with container:
            if container.format.name in _OTHERS_FILES | _TEXT_ART:
                raise ValueError(f"it is no video but {container.format.name}, text or a list of other files")
            yield container, _stream(file, container)


def _stream(file: BinaryIO, container: Any) -> Any:
    if not container.streams.video:
        raise _unopened(file, "it has no picture")
    stream = container.streams.video[0]
    if stream.codec_context is None or not stream.time_base:
        raise UnopenedError("its header names no codec that is known")
    if stream.width or stream.height:
        check_pixels(stream.width, stream.height)
    stream.codec_context.options = _OPTIONS
    stream.codec_context.thread_count = THREADS
    return stream


def _unopened(file: BinaryIO, why: str) -> ValueError:
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    if head and b"\0" not in head:  # a playlist, perhaps: no other decoder may try it
        return ValueError("it is text, no video")
    return UnopenedError(why)


def faults() -> tuple[type[Exception], ...]:
    """What reading through PyAV may raise of a damaged file."""
    return (import_extra("av", EXTRA).FFmpegError, ArithmeticError, ValueError, LookupError, OSError)


def told(error: BaseException) -> str:
    """What FFmpeg says, without the name that it was not given."""
    return getattr(error, "strerror", None) or reason(error)


def rate(stream: Any) -> float:
    """Mean frame rate by the header, 1/s; 30 where it does not tell.

    Raises:
        ValueError: It is none that a recording has.
    """
    found = float(stream.average_rate or 30)
    if not 0.001 <= found <= 10_000:
        raise ValueError(f"its header says {found:g} frames a second")
    return found


def decoded(container: Any, stream: Any) -> Iterator[Any]:
    """Pictures in the order of display; a recording that was begun inside a group of pictures has those behind it.

    Raises:
        CutOffError: The file ends inside a frame; all before it were given.
        ValueError: A picture that the decoder finds damaged, or a packet that is not where an AVI's index has it. What
            FFmpeg raises is another one of its kind.
    """
    index = getattr(stream, "index_entries", None) if container.format.name == "avi" else None  # None: an older PyAV
    is_believed, has_begun = None, False
    checksums = Checksums() if getattr(stream.codec_context, "name", "") == "ffv1" else None
    for packet in container.demux(stream):
        if index and packet.dts is not None:
            has_moved = _moved_up(index, packet)
            is_believed = (
                not has_moved if is_believed is None else is_believed
            )  # wrong from the start: it tells nothing
            if has_moved and is_believed:
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
    """Whether an AVI's index has the packet of this number elsewhere: those before it were not found."""
    place = index.search_timestamp(packet.dts, any_frame=True)
    if place < 0 or index[place].timestamp != packet.dts:
        return False
    return bool(index[place].pos + _CHUNK_HEADER != packet.pos)


@functools.cache
def decoder_name() -> str:
    """What decodes videos here, with versions, and what stands in: part of the key of what is made of their frames."""
    parts = [_version("av", "PyAV"), _version("cv2", "OpenCV")]
    return ", ".join(filter(None, parts))


def _version(module: str, name: str) -> str:
    try:
        found = import_extra(module, EXTRA)
    except Exception:  # whoever needs it is told why
        return ""
    libraries = getattr(found, "library_versions", {})
    codec = ".".join(map(str, libraries.get("libavcodec", ())))
    return f"{name} {found.__version__}" + (f" (libavcodec {codec})" if codec else "")
