"""Numbers and times of a video's frames, by presentation stamps and never by a mean frame rate."""

from __future__ import annotations

import functools
import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Generator, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kd_edge.data.readers.container import CutOffError, decoded, faults, opened, rate
from kd_edge.data.readers.sidecar import stamps_beside
from kd_edge.types import Int64

LONGEST_NS = 10**16
"""Later stamps (four months) are damage."""
SAME_NS = 500_000
"""Times that differ by less are equal, because they are often given in milliseconds."""
_LONGEST_REORDERING = 16  # most frames by which a packet may precede its picture in display order
_REMEMBERED = 256
_CLOCK = re.compile(r"(\d{1,4}):(\d{2}):(\d{2}(?:\.\d+)?)")


class Piece(NamedTuple):
    """A range of frames by number and by time since the first frame of the file; both limits apply.

    Attributes:
        start: First frame, 0-based.
        stop: Frame to stop before.
        start_ns: Earliest time of a frame.
        stop_ns: Time to stop before.
    """

    start: int = 0
    stop: int | None = None
    start_ns: int = 0
    stop_ns: int | None = None

    @property
    def is_from_start(self) -> bool:
        """Whether the piece includes the first frame of the file."""
        return self.start <= 0 and self.start_ns <= SAME_NS

    def is_over(self, number: int, since_ns: int) -> bool:
        """Whether this frame and all later ones are after the piece."""
        return (self.stop is not None and number >= self.stop) or (
            self.stop_ns is not None and since_ns >= self.stop_ns - SAME_NS
        )

    def is_before(self, number: int, since_ns: int) -> bool:
        """Whether this frame is before the piece."""
        return number < self.start or since_ns < self.start_ns - SAME_NS


class Placed(NamedTuple):
    """A decoded picture and its position in the file.

    Attributes:
        number: Index in display order, 0-based.
        since_ns: Time since the first frame of the file; strictly increasing.
        picture: PyAV's frame.
    """

    number: int
    since_ns: int
    picture: Any


class Stamps:
    """Converts stamps to strictly increasing times since the first one.

    A stamp that is missing, not later than the previous one, or implausible is replaced by the previous time plus the
    usual frame period.
    """

    def __init__(self, period_ns: float) -> None:
        self._period_ns = max(1, round(period_ns))
        self._first_ns: int | None = None
        self._last_ns = -1

    def since_first(self, stamp_ns: int | None) -> int:
        """Return the time of the next frame."""
        following = self._last_ns + self._period_ns if self._last_ns >= 0 else 0
        if stamp_ns is None:
            self._last_ns = following
            return following
        if self._first_ns is None:
            self._first_ns = stamp_ns - following
        since = stamp_ns - self._first_ns
        self._last_ns = since if self._last_ns < since <= LONGEST_NS else following
        return self._last_ns


class Track(NamedTuple):
    """Stamps of a file's frames, read from its packets, in the file's unit.

    Attributes:
        stamps: Stamps of the frames in display order, increasing; empty if the frames have none.
        keys: Stamps of the frames from which decoding can begin, increasing.
        seeks: Stamps to seek to for these frames.
    """

    stamps: Int64
    keys: Int64
    seeks: Int64


_NO_TRACK = Track(*[np.zeros(0, np.int64)] * 3)


class Promised(NamedTuple):
    """Length of a file according to its header; 0 if the header lacks it."""

    frames: int
    seconds: float


def nanoseconds(stamp: int, unit: Fraction) -> int:
    """Convert a stamp of any size to ns, rounded."""
    return int((2 * stamp * unit.numerator * 10**9 + unit.denominator) // (2 * unit.denominator))


def placed(path: Path, piece: Piece) -> Generator[tuple[Placed, Promised], None, None]:
    """Yield the pictures of a piece and some before and after it, with the length according to the header.

    Decoding begins at the key frame before the piece. In an AVI with B-frames, stamps are those of packets in coding
    order: frames are then counted from the key frame or, if key frames are not reliable either (open groups of
    pictures), from the first frame of the file, which is slow but exact. The latter also applies to any other file
    whose frames have no stamps.

    The stamps of a sidecar file (see ``sidecar``), if present, are the frames' times.

    Raises:
        CutOffError: The file is truncated; raised after the last whole frame.
        ValueError: The file is damaged. FFmpeg may raise other errors, see ``faults``.
    """
    stat = path.stat()
    sidecar_ns = stamps_beside(path)
    if sidecar_ns is not None:  # the file's own may be rounded, or of another clock: select by number
        piece = Piece(max(piece.start, int(np.searchsorted(sidecar_ns, piece.start_ns - SAME_NS))))
    for seeking in (False,) if piece.is_from_start else (True, False):
        with opened(path) as (container, stream):
            order = _Order(path, stat.st_size, stat.st_mtime_ns, container, stream)
            numbered = order.from_key(piece) if seeking else order.from_start()
            promised, reached = _promised(container, stream) if sidecar_ns is None else _length(sidecar_ns), False
            try:
                first = next(numbered, None)
                if seeking and (first is None or first.number > order.first_of(piece)):
                    continue  # the key frame before the piece was not found: decode from the beginning
                for found in chain([first] if first else [], numbered):
                    reached = reached or not piece.is_before(found.number, found.since_ns)
                    yield found if sidecar_ns is None else _timed(found, sidecar_ns), promised
            except CutOffError:
                raise
            except faults():
                if reached or not seeking:
                    raise
                continue  # in open groups, pictures after a key frame depend on the previous group
            return


class _Order:
    """Numbers and times of one file's frames."""

    def __init__(self, path: Path, size: int, mtime_ns: int, container: Any, stream: Any) -> None:
        self._key = (path, size, mtime_ns)
        self._container, self._stream = container, stream
        self._unit: Fraction = stream.time_base
        self._rate = rate(stream)
        self._is_avi = container.format.name == "avi"
        self._is_reordered = self._is_avi and bool(stream.codec_context.has_b_frames)

    def first_of(self, piece: Piece) -> int:
        """Number of the first frame of a piece, or of the last frame of the file if the piece begins after it."""
        wanted_ns = piece.start_ns - SAME_NS
        if self._is_avi:
            return max(piece.start, math.ceil(Fraction(wanted_ns, 10**9) / self._unit))
        stamps = self._track().stamps
        if not len(stamps):
            return piece.start
        by_time = bisect_left(stamps, wanted_ns, key=self._since_ns)
        return min(max(piece.start, by_time), len(stamps) - 1)

    def from_start(self) -> Iterator[Placed]:
        """Yield all pictures of the file."""
        if self._is_reordered:
            yield from self._counted(0, is_first=True)
        elif self._is_avi:
            yield from self._stamped(is_sought=False)
        else:
            stamps = Stamps(1e9 / self._rate)
            for number, picture in enumerate(decoded(self._container, self._stream)):
                raw = None if picture.pts is None else nanoseconds(picture.pts, self._unit)
                yield Placed(number, stamps.since_first(raw), picture)

    def from_key(self, piece: Piece) -> Iterator[Placed]:
        """Yield pictures from the key frame at or before a piece on; nothing if it cannot be found."""
        origin = self._stream.start_time or 0
        if self._is_reordered:
            found = _origin(*self._key)
            if found is not None:
                self._seek(found + max(0, self.first_of(piece) - _LONGEST_REORDERING))
                yield from self._counted(found, is_first=False)
        elif self._is_avi:
            self._seek(origin + self.first_of(piece))
            yield from self._stamped(is_sought=True)
        elif len((track := self._track()).stamps):
            wanted = track.stamps[self.first_of(piece)]
            key = bisect_right(track.keys, wanted) - 1
            if key >= 0:
                self._seek(int(track.seeks[key]))
                yield from self._tracked(track)

    def _seek(self, stamp: int) -> None:
        self._container.seek(stamp, stream=self._stream)

    def _stamped(self, *, is_sought: bool) -> Iterator[Placed]:
        """Yield an AVI's frames by their stamps, which are frame numbers; numbers of dropped frames are skipped."""
        delay, origin = _delay(*self._key), self._stream.start_time or 0
        number = -1
        for picture in decoded(self._container, self._stream):
            if picture.pts is None and is_sought and number < 0:
                return  # the position is unknown without a stamp
            following = number + 1 if picture.pts is None else picture.pts - delay - origin
            if following <= number:
                raise ValueError("its time stamps do not increase")
            number = following
            yield Placed(number, nanoseconds(number, self._unit), picture)

    def _counted(self, origin: int, *, is_first: bool) -> Iterator[Placed]:
        """Yield the frames of an AVI whose stamps are out of order, counted from a key frame."""
        number = -1
        for picture in decoded(self._container, self._stream):
            if number < 0 and not is_first:
                if picture.pts is None or not picture.key_frame:
                    return
                number = picture.pts - origin
            else:
                number += 1
            yield Placed(number, nanoseconds(number, self._unit), picture)

    def _tracked(self, track: Track) -> Iterator[Placed]:
        for picture in decoded(self._container, self._stream):
            number = -1 if picture.pts is None else bisect_left(track.stamps, picture.pts)
            if not 0 <= number < len(track.stamps) or track.stamps[number] != picture.pts:
                raise ValueError("a picture has a stamp that no packet has")
            yield Placed(number, self._since_ns(picture.pts), picture)

    def _since_ns(self, stamp: int) -> int:
        return nanoseconds(int(stamp), self._unit) - nanoseconds(int(self._track().stamps[0]), self._unit)

    def _track(self) -> Track:
        return _track(*self._key)


@functools.lru_cache(maxsize=_REMEMBERED)
def _track(path: Path, size: int, mtime_ns: int) -> Track:
    """Read the track of a file, once and without decoding; empty if its frames have no stamps."""
    stamps: list[int] = []
    keys: list[tuple[int, int]] = []
    decoded_at: list[int] = []
    with opened(path) as (container, stream):
        for packet in container.demux(stream):
            if packet.size == 0 or not (keys or packet.is_keyframe):
                continue  # a recording may begin between key frames, which are not shown
            if packet.is_corrupt:
                break  # the file ends inside this packet
            if packet.pts is None:
                return _NO_TRACK
            if packet.is_keyframe:
                by_dts = packet.dts is not None and "mpeg" in container.format.name  # MPEG is searched by it
                keys.append((packet.pts, min(packet.dts, packet.pts) if by_dts else packet.pts))
            decoded_at += [] if packet.dts is None else [packet.dts]
            stamps += [] if packet.is_discard else [packet.pts]
        is_reordered = bool(stream.codec_context.has_b_frames)
    at = np.array(stamps, dtype=np.int64)
    goes_back = np.any(np.diff(decoded_at) < 0) or (not is_reordered and np.any(np.diff(at) <= 0))
    at.sort()
    if not stamps or goes_back or np.any(np.diff(at) <= 0):
        return _NO_TRACK
    starts = np.array(sorted(keys), dtype=np.int64)
    return Track(at, starts[:, 0], starts[:, 1])


@functools.lru_cache(maxsize=4096)
def _delay(path: Path, size: int, mtime_ns: int) -> int:
    """Delay of an AVI's picture stamps after those of the packets: FFmpeg expects H.264 to be reordered."""
    with opened(path) as (container, stream):
        packet = next(container.demux(stream), None)
        return 0 if packet is None or None in (packet.pts, packet.dts) else int(packet.pts - packet.dts)


@functools.lru_cache(maxsize=4096)
def _origin(path: Path, size: int, mtime_ns: int) -> int | None:
    """Stamp of the first frame of a reordered AVI, if its key frames are stamped by display order; otherwise None.

    Most encoders do so, except with open groups of pictures. The second key frame decides; it is decoded up to once per
    file.
    """
    with opened(path) as (container, stream):
        origin: int | None = None
        for number, picture in enumerate(decoded(container, stream)):
            if number == 0:
                origin = picture.pts
            elif picture.key_frame:
                known = origin is not None and picture.pts is not None
                return origin if known and picture.pts - origin == number else None
    return None


def _length(stamps_ns: Int64) -> Promised:
    return Promised(len(stamps_ns), float(stamps_ns[-1]) / 1e9)


def _timed(found: Placed, stamps_ns: Int64) -> Placed:
    """A picture with its time from the sidecar file."""
    if found.number >= len(stamps_ns):
        raise ValueError(f"more pictures than the {len(stamps_ns)} stamps next to it")
    return found._replace(since_ns=int(stamps_ns[found.number]))


def _promised(container: Any, stream: Any) -> Promised:
    """Length in the header. An edit list may show only part of the file; the length is of that part."""
    frames = stream.frames
    index = getattr(stream, "index_entries", None) if "mov" in container.format.name else None
    if index:
        frames = min(frames, sum(not getattr(entry, "is_discard", False) for entry in index))
    clock = _CLOCK.fullmatch(stream.metadata.get("DURATION", ""))  # Matroska does not store the number of frames
    until_s = 0.0 if clock is None else 3600 * int(clock[1]) + 60 * int(clock[2]) + float(clock[3])
    return Promised(frames, max(0.0, until_s - float((stream.start_time or 0) * stream.time_base)))
