"""Random access to the frames of a video by time, for recordings of hours."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kd_edge.data.readers import opencv_video
from kd_edge.data.readers.container import CutOffError, UnopenedError, decoded, error_text, faults, opened, rate
from kd_edge.data.readers.pixels import Channels, ImageMaker
from kd_edge.data.readers.sidecar import stamps_beside
from kd_edge.data.readers.timing import SAME_NS, Piece, Placed, nanoseconds, placed
from kd_edge.errors import DataError
from kd_edge.types import Image

_BACK_NS = (2_000_000_000, 20_000_000_000)
"""How far before the requested time to seek, in turn, if one frame period before it was not enough."""
_AHEAD_NS = 2_000_000_000
"""A time at most this far ahead is reached by decoding on instead of seeking."""
_KEPT_NS = 1_000_000_000
"""Frames decoded on the way are returned if they are at most this far before the requested one."""
_PACKETS_CHECKED = 250
"""Number of packets that decide whether a file's frames have their own stamps."""
_ROUNDED_NS = 1_500_000
"""Largest difference between a container's stamps and those of its sidecar file, due to rounding."""


class _OtherClockError(ValueError):
    """The stamps of the sidecar file are not those that the video was written with."""


class Found(NamedTuple):
    """A frame and the time for which it is shown.

    Attributes:
        image: (H, W) or (H, W, 3) in R, G, B order; uint8 or uint16.
        since_ns: Its time since the first frame of the file.
        next_ns: Time of the next frame; None for the last one.
    """

    image: Image
    since_ns: int
    next_ns: int | None


def seconds_by_packets(path: Path) -> float:
    """Return the time from the first to the last frame, by reading all packets of a file without decoding them.

    Raises:
        DataError: The file is missing, damaged or not a video; the message names it.
    """
    stamps: list[int] = []
    try:
        with opened(path) as (container, stream):
            stamps += (packet.pts for packet in container.demux(stream) if packet.size and packet.pts is not None)
            unit: Fraction = stream.time_base
    except faults() as error:
        raise _damaged(path, error) from error
    return float((max(stamps) - min(stamps)) * unit) if stamps else 0.0


class Seeker:
    """An open video that decodes frames at requested times.

    Frames, their pixels and their times are those of ``read_video``. Files whose frames have stamps are searched
    without an index, because reading the packet list of an hour would take too long for a first picture. Other files
    are searched by ``timing.placed``: AVI, whose stamps are frame numbers; MPEG streams, which are searched by decoding
    times, with a packet list read on first use; and files without stamps, from their beginning. The stamps of a sidecar
    file (see ``sidecar``), if present, are the frames' times; if the file's own stamps are of another clock, it is
    searched like MPEG.

    Args:
        path: The file.
        channels: 1 converts colour to grey, 3 grey to colour.
        max_height_px: Higher pictures are scaled down to this height.

    Raises:
        DataError: The file is missing or not a video; the message names it.
    """

    def __init__(self, path: Path, channels: Channels, max_height_px: int | None) -> None:
        self._path = path
        self._maker = ImageMaker(channels, max_height_px)
        self._stack = ExitStack()
        self._source: Generator[Placed, None, None] | None = None
        self._upcoming: Iterator[Placed] = iter(())
        self._shown: Placed | None = None
        self._following: Placed | None = None
        self._returned_ns = -1
        try:
            self._sidecar_ns = stamps_beside(path)
            self._container, self._stream = self._stack.enter_context(opened(path))
            self._unit: Fraction = self._stream.time_base
            kind = self._container.format.name  # "matroska,webm", "mov,mp4,...", "mpegts"
            self._is_stamped = kind != "avi" and "mpeg" not in kind and self._has_stamps()
            self._container.seek(self._start, stream=self._stream)
            first = next(decoded(self._container, self._stream), None)
            if first is None:
                raise ValueError("it has no picture")
            self._origin: int = first.pts or 0
            self._rate = rate(self._stream)
        except UnopenedError as error:
            self.close()
            fix = "convert it, for example with ffmpeg -i IN -c:v ffv1 OUT.mkv"
            known = opencv_video.fault(path) is None
            raise DataError(
                f"{path} cannot be searched" if known else f"{path} is damaged: {error}", "a readable video", fix
            ) from error
        except faults() as error:
            self.close()
            raise _damaged(path, error) from error

    def close(self) -> None:
        """Close the file."""
        self._forget()
        self._stack.close()

    def at(self, wanted_ns: int) -> list[Found]:
        """Return a list that ends in the last frame at or before a time (in the first frame if it is before all).

        The frames before it in the list were decoded on the way and are at most a second earlier.

        Raises:
            DataError: The file is damaged there; the message names it.
        """
        try:
            try:
                return list(self._found(wanted_ns))
            except _OtherClockError:
                self._forget()
                self._is_stamped = False
                return list(self._found(wanted_ns))
        except faults() as error:
            self._forget()
            raise _damaged(self._path, error) from error

    def _forget(self) -> None:
        if self._source is not None:
            self._source.close()
        self._source, self._upcoming, self._shown, self._following = None, iter(()), None, None

    def _found(self, wanted_ns: int) -> Iterator[Found]:
        if self._shown is None or not self._shown.since_ns <= wanted_ns + SAME_NS <= self._shown.since_ns + _AHEAD_NS:
            self._upcoming, self._returned_ns = self._from(max(0, wanted_ns)), -1
            self._shown, self._following = next(self._upcoming, None), None
            self._following = next(self._upcoming, None)
        if self._shown is None:
            raise ValueError("it has no picture there")
        while self._following is not None and self._following.since_ns <= wanted_ns + SAME_NS:
            if self._shown.since_ns > max(self._returned_ns, wanted_ns - _KEPT_NS):
                yield self._made(self._shown)
            self._shown, self._following = self._following, next(self._upcoming, None)
        yield self._made(self._shown)

    def _made(self, shown: Placed) -> Found:
        following, self._returned_ns = self._following, shown.since_ns
        return Found(
            self._maker.image(shown.picture), shown.since_ns, None if following is None else following.since_ns
        )

    def _from(self, wanted_ns: int) -> Iterator[Placed]:
        """Iterate over pictures, beginning with one at or before a time."""
        for back_ns in (round(1e9 / self._rate), *_BACK_NS):
            if back_ns > wanted_ns:
                break
            pictures = self._begun(wanted_ns - back_ns)
            try:
                first = next(pictures, None)
                if first is not None and first.since_ns <= wanted_ns + SAME_NS:
                    return chain([first], pictures)
            except _OtherClockError:
                raise
            except faults():
                continue  # pictures after a key frame may depend on the previous group
        return self._begun(0)

    def _begun(self, since_ns: int) -> Iterator[Placed]:
        if self._source is not None:
            self._source.close()  # also closes the file that it opened
        self._source = self._sought(since_ns) if self._is_stamped else self._placed(since_ns)
        return self._source

    def _placed(self, since_ns: int) -> Generator[Placed, None, None]:
        try:
            with closing(placed(self._path, Piece(start_ns=since_ns))) as pictures:
                for found, _ in pictures:
                    yield found
        except CutOffError:  # all frames before it are complete
            return

    def _sought(self, since_ns: int) -> Generator[Placed, None, None]:
        self._container.seek(self._start + int(Fraction(since_ns, 10**9) / self._unit), stream=self._stream)
        last, has_begun = Placed(-1, -1, None), False
        try:
            for picture in decoded(self._container, self._stream):
                has_begun = has_begun or bool(picture.key_frame)  # earlier pictures depend on frames not read
                if not has_begun or picture.pts is None or picture.pts < self._origin:
                    continue
                last = self._timed(picture, last)
                yield last
        except CutOffError:
            return

    def _timed(self, picture: Any, last: Placed) -> Placed:
        """A picture with its time; its number is known only if there is a sidecar file."""
        since_ns, number = nanoseconds(picture.pts - self._origin, self._unit), -1
        if self._sidecar_ns is not None:
            nearest = int(np.abs(self._sidecar_ns - since_ns).argmin()) if last.number < 0 else last.number + 1
            number = min(nearest, len(self._sidecar_ns) - 1)
            if abs(int(self._sidecar_ns[number]) - since_ns) > _ROUNDED_NS:
                raise _OtherClockError
            since_ns = int(self._sidecar_ns[number])
        if since_ns <= last.since_ns:
            raise ValueError("its time stamps do not increase")
        return Placed(number, since_ns, picture)

    @property
    def _start(self) -> int:
        return self._stream.start_time or 0

    def _has_stamps(self) -> bool:
        """Whether the first packets have one distinct stamp each."""
        stamps: list[Any] = []
        for packet in self._container.demux(self._stream):
            if packet.size:
                stamps.append(packet.pts)
            if len(stamps) >= _PACKETS_CHECKED:
                break
        return None not in stamps and len(set(stamps)) == len(stamps)


def _damaged(path: Path, error: BaseException) -> DataError:
    if isinstance(error, OSError) and not path.is_file():
        return DataError(f"no file {path}", "a video", "restore it, or correct the manifest")
    return DataError(f"{path} is damaged: {error_text(error)}", "a readable video", "fetch it again, or leave it out")
