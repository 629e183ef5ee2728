"""Which frame of a video is which, and when it was: by presentation stamps, never by a mean frame rate."""

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
"""No recording lasts four months: a later stamp is damage."""
SAME_NS = 500_000
"""Moments that differ by less are the same: files and people write milliseconds."""
_LONGEST_REORDERING = 16  # frames by which a packet may come before its picture is shown
_REMEMBERED = 256
_CLOCK = re.compile(r"(\d{1,4}):(\d{2}):(\d{2}(?:\.\d+)?)")


class Piece(NamedTuple):
    """Which frames are wanted: by number, or by the time since the first frame of the file; what is first ends it.

    Attributes:
        start: First frame, 0-based.
        stop: Frame to stop before.
        start_ns: No frame before it.
        stop_ns: No frame from it on.
    """

    start: int = 0
    stop: int | None = None
    start_ns: int = 0
    stop_ns: int | None = None

    @property
    def is_from_start(self) -> bool:
        """Whether the first frame of the file belongs to it."""
        return self.start <= 0 and self.start_ns <= SAME_NS

    def is_over(self, number: int, since_ns: int) -> bool:
        """Whether this frame and all behind it lie behind the piece."""
        return (self.stop is not None and number >= self.stop) or (
            self.stop_ns is not None and since_ns >= self.stop_ns - SAME_NS
        )

    def is_before(self, number: int, since_ns: int) -> bool:
        """Whether this frame lies before the piece."""
        return number < self.start or since_ns < self.start_ns - SAME_NS


class Placed(NamedTuple):
    """A decoded picture and its place in the file.

    Attributes:
        number: 0-based, in the order of display.
        since_ns: Time since the first frame of the file; increases strictly.
        picture: PyAV's.
    """

    number: int
    since_ns: int
    picture: Any


class Stamps:
    """Stamps as time since the first one, strictly increasing.

    One that is missing, equal to the one before, earlier or absurd becomes the time of the frame before and the usual
    time between two.
    """

    def __init__(self, period_ns: float) -> None:
        self._period_ns = max(1, round(period_ns))
        self._first_ns: int | None = None
        self._last_ns = -1

    def since_first(self, stamp_ns: int | None) -> int:
        """The next frame's time."""
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
    """What a file's packets tell of its frames, in the file's unit.

    Attributes:
        stamps: Of the frames in the order of display, increasing; empty where they have none of their own.
        keys: Of those from which decoding can begin, increasing.
        seeks: Where to look for these.
    """

    stamps: Int64
    keys: Int64
    seeks: Int64


_NO_TRACK = Track(*[np.zeros(0, np.int64)] * 3)


class Promised(NamedTuple):
    """What a header says of how long its file is; 0 where it does not tell."""

    frames: int
    seconds: float


def nanoseconds(stamp: int, unit: Fraction) -> int:
    """A stamp in ns, rounded, however large."""
    return int((2 * stamp * unit.numerator * 10**9 + unit.denominator) // (2 * unit.denominator))


def placed(path: Path, piece: Piece) -> Generator[tuple[Placed, Promised], None, None]:
    """Pictures of a piece, and some before and behind it; and what the header promises.

    A piece is reached from the key frame before it. Where an AVI has B-frames its stamps are those of packets in coding
    order: frames are then counted on from the key frame, or from the first frame of the file where key frames cannot be
    trusted either (open groups of pictures), which is slow but exact. So are the frames of any other file that
    have no stamps of their own.

    Where stamps lie beside the file (see ``sidecar``), these are the frames' times.

    Raises:
        CutOffError: After the last whole frame.
        ValueError: Damaged. What FFmpeg raises is another one of its kind.
    """
    stat = path.stat()
    beside = stamps_beside(path)
    if beside is not None:  # the file's own may be rounded, or of another clock: go by numbers
        piece = Piece(max(piece.start, int(np.searchsorted(beside, piece.start_ns - SAME_NS))))
    for seeking in (False,) if piece.is_from_start else (True, False):
        with opened(path) as (container, stream):
            order = _Order(path, stat.st_size, stat.st_mtime_ns, container, stream)
            numbered = order.from_key(piece) if seeking else order.from_start()
            promised, reached = _promised(container, stream) if beside is None else _told_beside(beside), False
            try:
                first = next(numbered, None)
                if seeking and (first is None or first.number > order.first_of(piece)):
                    continue  # the key frame before was not found: begin at the beginning
                for found in chain([first] if first else [], numbered):
                    reached = reached or not piece.is_before(found.number, found.since_ns)
                    yield found if beside is None else _timed(found, beside), promised
            except CutOffError:
                raise
            except faults():
                if reached or not seeking:
                    raise
                continue  # where groups are open, pictures after a key frame lean on the group before
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
        """Number of the first frame of a piece, or of the last one of the file where it begins behind that."""
        wanted_ns = piece.start_ns - SAME_NS
        if self._is_avi:
            return max(piece.start, math.ceil(Fraction(wanted_ns, 10**9) / self._unit))
        stamps = self._track().stamps
        if not len(stamps):
            return piece.start
        by_time = bisect_left(stamps, wanted_ns, key=self._since_ns)
        return min(max(piece.start, by_time), len(stamps) - 1)

    def from_start(self) -> Iterator[Placed]:
        """All pictures of the file."""
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
        """Pictures from the key frame at or before a piece on; none where that cannot be found."""
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
        """An AVI's frames by their stamps, which are their numbers: that of a frame that was dropped stays empty."""
        late, origin = _delay(*self._key), self._stream.start_time or 0
        number = -1
        for picture in decoded(self._container, self._stream):
            if picture.pts is None and is_sought and number < 0:
                return  # a place without a stamp cannot be told
            following = number + 1 if picture.pts is None else picture.pts - late - origin
            if following <= number:
                raise ValueError("its time stamps do not increase")
            number = following
            yield Placed(number, nanoseconds(number, self._unit), picture)

    def _counted(self, origin: int, *, is_first: bool) -> Iterator[Placed]:
        """An AVI's frames whose stamps are out of order, counted on from a key frame."""
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
    """Read once a file, without decoding; empty where its frames have no stamps of their own."""
    stamps: list[int] = []
    keys: list[tuple[int, int]] = []
    decoded_at: list[int] = []
    with opened(path) as (container, stream):
        for packet in container.demux(stream):
            if packet.size == 0 or not (keys or packet.is_keyframe):
                continue  # a recording may begin between key frames: these are not shown
            if packet.is_corrupt:
                break  # it ends inside this one
            if packet.pts is None:
                return _NO_TRACK
            if packet.is_keyframe:
                by_dts = packet.dts is not None and "mpeg" in container.format.name  # what is sought for there
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
    """By how much an AVI's pictures are stamped later than their packets: FFmpeg expects H.264 to be reordered."""
    with opened(path) as (container, stream):
        packet = next(container.demux(stream), None)
        return 0 if packet is None or None in (packet.pts, packet.dts) else int(packet.pts - packet.dts)


@functools.lru_cache(maxsize=4096)
def _origin(path: Path, size: int, mtime_ns: int) -> int | None:
    """Stamp of the first frame of a reordered AVI, if its key frames are stamped by their place in the display order.

    Most encoders' are; open groups of pictures are not. The second key frame tells: it is counted up to once a file.
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


def _told_beside(stamps_ns: Int64) -> Promised:
    return Promised(len(stamps_ns), float(stamps_ns[-1]) / 1e9)


def _timed(found: Placed, stamps_ns: Int64) -> Placed:
    """A picture with the time that lies beside its file."""
    if found.number >= len(stamps_ns):
        raise ValueError(f"more pictures than the {len(stamps_ns)} stamps beside it")
    return found._replace(since_ns=int(stamps_ns[found.number]))


def _promised(container: Any, stream: Any) -> Promised:
    """An edit list may show less than the file holds: what it shows is what is promised."""
    frames = stream.frames
    index = getattr(stream, "index_entries", None) if "mov" in container.format.name else None
    if index:
        frames = min(frames, sum(not getattr(entry, "is_discard", False) for entry in index))
    clock = _CLOCK.fullmatch(stream.metadata.get("DURATION", ""))  # Matroska counts no frames
    until_s = 0.0 if clock is None else 3600 * int(clock[1]) + 60 * int(clock[2]) + float(clock[3])
    return Promised(frames, max(0.0, until_s - float((stream.start_time or 0) * stream.time_base)))
