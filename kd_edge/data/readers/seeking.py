"""Frames of a video by their moment, one at a time: for looking anywhere into a recording of hours."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kd_edge.data.readers import opencv_video
from kd_edge.data.readers.container import CutOffError, UnopenedError, decoded, faults, opened, rate, told
from kd_edge.data.readers.pixels import Channels, ImageMaker
from kd_edge.data.readers.sidecar import stamps_beside
from kd_edge.data.readers.timing import SAME_NS, Piece, Placed, nanoseconds, placed
from kd_edge.errors import DataError
from kd_edge.types import Image

_BACK_NS = (2_000_000_000, 20_000_000_000)
"""So much before the wanted moment is looked, one after the other, where one period before it was too late."""
_ON_NS = 2_000_000_000
"""A moment that lies at most so much ahead is reached by decoding on."""
_KEPT_NS = 1_000_000_000
"""Frames that had to be decoded on the way are given where they lie at most so much before the wanted one."""
_LOOKED_AT = 250
"""So many packets tell whether a file's frames have stamps of their own."""
_ROUNDED_NS = 1_500_000
"""A container's stamps may differ so much from those beside it, which they are rounded from."""


class _OtherClockError(ValueError):
    """The stamps beside a file are not those that it was written with."""


class Found(NamedTuple):
    """A frame, and how long it is the one that is shown.

    Attributes:
        image: (H, W) or (H, W, 3) in R, G, B order; uint8 or uint16.
        since_ns: Its time since the first frame of the file.
        next_ns: That of the frame behind it; None: it is the last one.
    """

    image: Image
    since_ns: int
    next_ns: int | None


def seconds_by_packets(path: Path) -> float:
    """Time from the first to the last frame, of a file whose header does not tell: all of it is read, none decoded.

    Raises:
        DataError: Absent, damaged or no video; the file is named.
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
    """One video, open, and decoded where it is looked at.

    Frames, their pixels and their times are those of ``read_video``. Files whose frames have stamps are searched
    without an index: a packet list of an hour would take longer to read than a user waits for a first picture. AVI,
    whose stamps are numbers, MPEG streams, which are sought by decoding times, and files without stamps are reached as
    ``timing.placed`` does: MPEG by a packet list that is made when it is first needed, the last from their beginning.
    Stamps beside the file (see ``sidecar``) are the frames' times; where the file's own are of another clock, it is
    reached as MPEG is.

    Args:
        path: The file.
        channels: 1 makes colour grey, 3 grey colour.
        max_height_px: Higher pictures are scaled down to this height.

    Raises:
        DataError: Absent, or no video; the file is named.
    """

    def __init__(self, path: Path, channels: Channels, max_height_px: int | None) -> None:
        self._path = path
        self._maker = ImageMaker(channels, max_height_px)
        self._stack = ExitStack()
        self._source: Generator[Placed, None, None] | None = None
        self._upcoming: Iterator[Placed] = iter(())
        self._shown: Placed | None = None
        self._following: Placed | None = None
        self._given_ns = -1
        try:
            self._beside = stamps_beside(path)
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
        """The last frame at or before a moment (the first one where it lies before all), as the last of a list.

        Before it come frames that had to be decoded on the way and lie at most a second before.

        Raises:
            DataError: The file is damaged there; it is named.
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
        if self._shown is None or not self._shown.since_ns <= wanted_ns + SAME_NS <= self._shown.since_ns + _ON_NS:
            self._upcoming, self._given_ns = self._from(max(0, wanted_ns)), -1
            self._shown, self._following = next(self._upcoming, None), None
            self._following = next(self._upcoming, None)
        if self._shown is None:
            raise ValueError("it has no picture there")
        while self._following is not None and self._following.since_ns <= wanted_ns + SAME_NS:
            if self._shown.since_ns > max(self._given_ns, wanted_ns - _KEPT_NS):
                yield self._made(self._shown)
            self._shown, self._following = self._following, next(self._upcoming, None)
        yield self._made(self._shown)

    def _made(self, shown: Placed) -> Found:
        following, self._given_ns = self._following, shown.since_ns
        return Found(
            self._maker.image(shown.picture), shown.since_ns, None if following is None else following.since_ns
        )

    def _from(self, wanted_ns: int) -> Iterator[Placed]:
        """Pictures from one at or before a moment on."""
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
                continue  # pictures after a key frame may lean on the group before
        return self._begun(0)

    def _begun(self, since_ns: int) -> Iterator[Placed]:
        if self._source is not None:
            self._source.close()  # the file that it has opened, too
        self._source = self._sought(since_ns) if self._is_stamped else self._placed(since_ns)
        return self._source

    def _placed(self, since_ns: int) -> Generator[Placed, None, None]:
        try:
            with closing(placed(self._path, Piece(start_ns=since_ns))) as pictures:
                for found, _ in pictures:
                    yield found
        except CutOffError:  # all before it are there
            return

    def _sought(self, since_ns: int) -> Generator[Placed, None, None]:
        self._container.seek(self._start + int(Fraction(since_ns, 10**9) / self._unit), stream=self._stream)
        last, has_begun = Placed(-1, -1, None), False
        try:
            for picture in decoded(self._container, self._stream):
                has_begun = has_begun or bool(picture.key_frame)  # pictures before it lean on what was not read
                if not has_begun or picture.pts is None or picture.pts < self._origin:
                    continue
                last = self._timed(picture, last)
                yield last
        except CutOffError:
            return

    def _timed(self, picture: Any, last: Placed) -> Placed:
        """A picture with its time; only files with stamps beside them have their pictures numbered."""
        since_ns, number = nanoseconds(picture.pts - self._origin, self._unit), -1
        if self._beside is not None:
            nearest = int(np.abs(self._beside - since_ns).argmin()) if last.number < 0 else last.number + 1
            number = min(nearest, len(self._beside) - 1)
            if abs(int(self._beside[number]) - since_ns) > _ROUNDED_NS:
                raise _OtherClockError
            since_ns = int(self._beside[number])
        if since_ns <= last.since_ns:
            raise ValueError("its time stamps do not increase")
        return Placed(number, since_ns, picture)

    @property
    def _start(self) -> int:
        return self._stream.start_time or 0

    def _has_stamps(self) -> bool:
        """Whether the first packets have one each, and different ones."""
        stamps: list[Any] = []
        for packet in self._container.demux(self._stream):
            if packet.size:
                stamps.append(packet.pts)
            if len(stamps) >= _LOOKED_AT:
                break
        return None not in stamps and len(set(stamps)) == len(stamps)


def _damaged(path: Path, error: BaseException) -> DataError:
    if isinstance(error, OSError) and not path.is_file():
        return DataError(f"no file {path}", "a video", "bring it back, or correct the manifest")
    return DataError(f"{path} is damaged: {told(error)}", "a readable video", "fetch it again, or leave it out")
