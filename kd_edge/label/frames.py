"""Pictures for the page: any frame of a recording as a JPEG of constant contrast."""

from __future__ import annotations

import threading
from bisect import bisect_right, insort
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kd_edge.data.readers.files.media import Media
from kd_edge.data.readers.seeking import Found, Seeker
from kd_edge.data.readers.timing import SAME_NS
from kd_edge.errors import DataError
from kd_edge.packages import import_extra
from kd_edge.types import Image

HEIGHT_PX = 480
"""Taller pictures are scaled down to this height."""
CACHE_BYTES = 48_000_000
"""Cached decoded frames of each open file."""
OPEN_FILES = 6
_SAMPLED = 5
_PERCENTILES = (0.5, 99.5)
_QUALITY = 88
_LONGEST_S = 10_000_000.0


class Contrast(NamedTuple):
    """The values shown as black and as white, with a linear scale in between."""

    low: float
    high: float


class Picture(NamedTuple):
    """A frame for the page.

    Attributes:
        jpeg: The picture.
        since_s: Its time since the first frame of its file.
        next_s: That of the frame behind it; None: it is the last one.
    """

    jpeg: bytes
    since_s: float
    next_s: float | None


class Frames:
    """Frames of files; keeps the last few files open, and the last few decoded frames of each.

    Threads may share it: each file is read by one at a time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: OrderedDict[Path, _Film] = OrderedDict()

    def picture(
        self, path: Path, media: Media, seconds: float, *, nearest: bool = False, contrast: Contrast | None = None
    ) -> Picture:
        """The last frame at or before a time in a file; the first one if the time precedes all.

        Args:
            path: The file, or the folder of images.
            media: What reads it.
            seconds: Since its first frame.
            nearest: The frame behind it, where that lies nearer: what another camera saw at that moment.
            contrast: None takes ``contrast`` of the file.

        Raises:
            DataError: Absent, damaged or no pictures; the file is named.
        """
        return self._film(path, media).picture(seconds, nearest=nearest, contrast=contrast)

    def contrast(self, path: Path, media: Media, length_s: float) -> Contrast:
        """Contrast of a file: the full range for 8 bit; for 16 bit, the percentiles 0.5 and 99.5 of a sample.

        Args:
            path: The file.
            media: What reads it.
            length_s: Its length, s; the sample is spread over it.

        Raises:
            DataError: As ``picture``.
        """
        return self._film(path, media).contrast(length_s)

    def close(self) -> None:
        """Close all files."""
        with self._lock:
            while self._open:
                self._open.popitem()[1].close()

    def _film(self, path: Path, media: Media) -> _Film:
        with self._lock:
            film = self._open.pop(path, None) or _Film(path, media)
            self._open[path] = film
            if len(self._open) > OPEN_FILES:
                self._open.popitem(last=False)[1].close()
            return film


class _Film:
    """One file and its last decoded frames."""

    def __init__(self, path: Path, media: Media) -> None:
        self._path, self._media = path, media
        self._lock = threading.Lock()
        self._at: Callable[[int], list[Found]] | None = None
        self._seeker: Seeker | None = None
        self._kept: OrderedDict[int, Found] = OrderedDict()
        self._moments: list[int] = []
        self._bytes = 0
        self._contrast: Contrast | None = None

    def close(self) -> None:
        with self._lock:
            if self._seeker is not None:
                self._seeker.close()
            self._at = self._seeker = None
            self._kept.clear()
            self._moments.clear()
            self._bytes = 0

    def picture(self, seconds: float, *, nearest: bool, contrast: Contrast | None) -> Picture:
        wanted_ns = round(min(max(0.0, seconds), _LONGEST_S) * 1e9)
        with self._lock:
            found = self._found(wanted_ns)
            if nearest and found.next_ns is not None and found.next_ns - wanted_ns < wanted_ns - found.since_ns:
                found = self._found(found.next_ns)
            shown = contrast or self._contrast or Contrast(0.0, 255.0)
        jpeg = _jpeg(found.image, shown)
        return Picture(jpeg, found.since_ns / 1e9, None if found.next_ns is None else found.next_ns / 1e9)

    def contrast(self, length_s: float) -> Contrast:
        with self._lock:
            if self._contrast is None:
                self._contrast = self._measured(length_s)
            return self._contrast

    def _measured(self, length_s: float) -> Contrast:
        first = self._found(0).image
        if first.dtype == np.uint8:
            return Contrast(0.0, 255.0)
        places = np.linspace(0.0, length_s, _SAMPLED)
        sample = np.concatenate([self._found(round(s * 1e9)).image[::2, ::2].ravel() for s in places])
        low, high = (float(value) for value in np.percentile(sample, _PERCENTILES))
        return Contrast(low, max(high, low + 1.0))

    def _found(self, wanted_ns: int) -> Found:
        place = bisect_right(self._moments, wanted_ns + SAME_NS) - 1
        if place >= 0:
            kept = self._kept[self._moments[place]]
            if kept.next_ns is None or wanted_ns + SAME_NS < kept.next_ns:
                self._kept.move_to_end(kept.since_ns)
                return kept
        frames = self._frames()(wanted_ns)
        for found in frames:
            self._keep(found)
        return frames[-1]

    def _keep(self, found: Found) -> None:
        if (before := self._kept.pop(found.since_ns, None)) is None:
            insort(self._moments, found.since_ns)
        else:
            self._bytes -= before.image.nbytes
        self._kept[found.since_ns] = found
        self._bytes += found.image.nbytes
        while self._bytes > CACHE_BYTES and len(self._kept) > 1:
            moment, oldest = self._kept.popitem(last=False)
            self._bytes -= oldest.image.nbytes
            self._moments.pop(bisect_right(self._moments, moment) - 1)

    def _frames(self) -> Callable[[int], list[Found]]:
        if self._at is None:
            stills = self._media.stills(self._path)
            if stills is None:
                self._seeker = Seeker(self._path, self._media.channels, HEIGHT_PX)
                seeker = self._seeker
                self._at = lambda wanted_ns: [self._upright(found) for found in seeker.at(wanted_ns)]
            else:
                stamps, picture = stills.stamps_ns, stills.picture
                since = stamps - stamps[0]

                def one(wanted_ns: int) -> list[Found]:
                    number = max(0, int(np.searchsorted(since, wanted_ns + SAME_NS, side="right")) - 1)
                    following = int(since[number + 1]) if number + 1 < len(since) else None
                    return [Found(picture(number), int(since[number]), following)]

                self._at = one
        return self._at

    def _upright(self, found: Found) -> Found:
        return found._replace(image=self._media.upright(found.image[None])[0])


def _jpeg(image: Image, contrast: Contrast) -> bytes:
    """Encode a picture of 8 or 16 bit as a JPEG with the given contrast."""
    cv2: Any = import_extra("cv2", "cpu")
    if image.dtype != np.uint8 or contrast != (0.0, 255.0):
        scale = 255.0 / max(1e-9, contrast.high - contrast.low)
        # (H, W[, 3]) float32: a table of 65,536 values would take longer for small pictures
        shown = np.clip((image.astype(np.float32) - contrast.low) * scale, 0.0, 255.0).astype(np.uint8)
    else:
        shown = image
    if shown.ndim == 3:
        shown = cv2.cvtColor(shown, cv2.COLOR_RGB2BGR)
    written, coded = cv2.imencode(".jpg", shown, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not written:
        raise DataError(f"a picture {image.shape} cannot be shown", "one with pixels", "leave the recording out")
    return bytes(coded)
