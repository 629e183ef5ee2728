"""What a killed recorder leaves: cut to what is whole, in place, so that it works on a full disk too."""

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
    """Cut a Matroska file behind its last whole cluster, and its stamps to as many as it has frames.

    A file that is whole stays as it is. One without a whole frame is removed.

    Args:
        video: Written by ``LosslessWriter``, its stamps beside it; either may break off.

    Returns:
        (T,) ns of its frames, increasing; empty where there is none.

    Raises:
        OSError: It cannot be read or written.
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
    os.truncate(beside(video), len(_lines([HEADER, *kept])))  # lines are written as here: the first ones stay
    if more := [kept[0] + ns for ns in since_first[len(kept) :] if kept[0] + ns > kept[-1]]:  # after a power cut
        with beside(video).open("ab") as file:
            file.write(_lines(more))
    return kept + more


def _lines(values: Sequence[object]) -> bytes:
    return "".join(f"{value}\n" for value in values).encode("ascii")


def _whole_lines(file: Path) -> list[int]:
    """Stamps of whole lines, as long as they increase."""
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
    """Where the last element ends that is whole: a header, or a cluster of frames."""
    size, end = video.stat().st_size, 0
    with open_regular(video) as file:
        for start, length in _elements(file):
            if start + length > size:
                break
            end = start + length
    return end


def _elements(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """Place and length of what the elements hold: those of a segment, which has no length before it is finished."""
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
    """How many bytes a number of variable width has; 0 where it breaks off."""
    width = 9 - head[0].bit_length() if head and head[0] else 0
    return width if width <= len(head) else 0


def _times(video: Path) -> list[int]:
    """When its whole frames were, as the file has it: ns since the first, in milliseconds."""
    found: list[int] = []
    try:
        with opened(video) as (container, stream):
            for packet in container.demux(stream) if "matroska" in container.format.name else ():
                if packet.is_corrupt:
                    break
                if packet.size and packet.pts is not None:
                    found.append(nanoseconds(packet.pts, stream.time_base))
    except faults():  # what came before it stays
        pass
    return [ns - found[0] for ns in found]
