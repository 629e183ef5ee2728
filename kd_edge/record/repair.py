"""Repair the files of an interrupted recorder by truncating them in place, which also works on a full disk."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from kd_edge.data.readers.container import faults, opened
from kd_edge.data.readers.sidecar import HEADER, beside
from kd_edge.data.readers.timing import nanoseconds
from kd_edge.reading import open_regular, read_bytes

_SEGMENT = b"\x18\x53\x80\x67"
_MOST_STAMPS_BYTES = 64_000_000
_MOST_DIGITS = 18  # of nanoseconds in 64 bits
_LONGEST_HEAD = 12  # of an element: four bytes of id, eight of size


def repaired(video: Path) -> list[int]:
    """Truncate a Matroska file after its last complete cluster, and its time stamps to as many as it has frames.

    A complete file is not changed. A file without a complete frame is removed.

    Args:
        video: A file written by ``LosslessWriter``, with its time stamps next to it; either may be truncated.

    Returns:
        (T,) capture times of its frames, ns, increasing; empty if there are none.

    Raises:
        OSError: A file cannot be read or written.
    """
    stamps = _whole_lines(beside(video))
    end = _whole_bytes(video)
    if end < video.stat().st_size:
        os.truncate(video, end)
    since_first = _times(video) if stamps else []
    kept = stamps[: len(since_first)]
    if not kept:
        video.unlink(missing_ok=True)
        beside(video).unlink(missing_ok=True)
        return []
    os.truncate(beside(video), len(_lines([HEADER, *kept])))  # same format as written, so the first lines stay
    if more := [kept[0] + ns for ns in since_first[len(kept) :] if kept[0] + ns > kept[-1]]:  # after a power cut
        with beside(video).open("ab") as file:
            file.write(_lines(more))
    return kept + more


def _lines(values: Sequence[object]) -> bytes:
    return "".join(f"{value}\n" for value in values).encode("ascii")


def _whole_lines(file: Path) -> list[int]:
    """Time stamps of complete lines, up to the first that does not increase."""
    try:
        lines = read_bytes(file, _MOST_STAMPS_BYTES).split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    found: list[int] = []
    for line in lines[1:]:
        if not line.isdigit() or len(line) > _MOST_DIGITS or (found and int(line) <= found[-1]):
            break
        found.append(int(line))
    return found


def _whole_bytes(video: Path) -> int:
    """Position after the last complete element, a header or a cluster of frames."""
    size, end = video.stat().st_size, 0
    with open_regular(video) as file:
        for start, length in _elements(file):
            if start + length > size:
                break
            end = start + length
    return end


def _elements(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """Yield position and length of each element's content; a segment has no length until it is finished."""
    at = 0
    while True:
        file.seek(at)
        head = file.read(_LONGEST_HEAD)
        width = _width(head)
        digits = _width(head[width:]) if width else 0
        if not digits:
            return
        length = int.from_bytes(head[width : width + digits], "big") & ((1 << 7 * digits) - 1)
        start = at + width + digits
        is_segment = head[:width] == _SEGMENT
        yield start, 0 if is_segment else length
        at = start if is_segment else start + length


def _width(head: bytes) -> int:
    """Number of bytes of a variable-width number; 0 if it is truncated."""
    width = 9 - head[0].bit_length() if head and head[0] else 0
    return width if width <= len(head) else 0


def _times(video: Path) -> list[int]:
    """Times of its complete frames from the container: ns since the first, with a resolution of 1 ms."""
    found: list[int] = []
    try:
        with opened(video) as (container, stream):
            for packet in container.demux(stream) if "matroska" in container.format.name else ():
                if packet.is_corrupt:
                    break
                if packet.size and packet.pts is not None:
                    found.append(nanoseconds(packet.pts, stream.time_base))
    except faults():  # keep the frames before it
        pass
    return [ns - found[0] for ns in found]
