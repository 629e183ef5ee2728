"""Measure a camera for some seconds: rate, stamps, brightness, dots, repeated pictures. Figures only, no advice."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kd_edge.artifact import Band, Manifest
from kd_edge.errors import BadPictureError, KdEdgeError, is_bug, printable, reason
from kd_edge.health import LOOK_NS, PictureHealth
from kd_edge.packages import import_extra
from kd_edge.resizing import resize
from kd_edge.runtime.cameras.base import Camera, clock_of, timeouts_of
from kd_edge.runtime.cameras.dots import dots_per_1000
from kd_edge.runtime.clock import MAX_AHEAD_MS, MONOTONIC, OLDEST_NS, STAMP_LIMIT_NS, Clock, ClockKind, stamp_of
from kd_edge.types import Cause, Frame, Image, Int64
from kd_edge.window import FixedWindow

log = logging.getLogger("kd_edge.runtime")

SETTLE_NS = 500_000_000
"""Frames of a live camera's first half second are ignored: exposure settles, buffers are emptied."""
MOST_SECONDS = 600.0
MOST_FRAMES = 200_000
LONG = 1.5
"""A distance between two frames of more than this many usual ones means that a frame is missing."""
STEP_NS = 500_000_000
"""If stamps and arrivals diverge by more than this from one frame to the next, the clock has stepped."""
BRIGHTER = 0.05
"""Relative change of the mean between two frames that a scene rarely causes, but exposure and lamps do."""
RUNS_ALIKE = 0.02
"""Two clocks run alike if their rates differ by no more than this share."""
BINS = 32
PAUSE_SECONDS = 0.005
DOTS_NS = 500_000_000
"""Shortest interval between two dot searches: they take longer than everything else and must not make frames late."""
_GRID = 8  # every 8th pixel in both directions is compared to detect repeated pictures
_VALUES = 1 << 16
_COUNTED = 100_000  # at most about this many values of a picture enter the histogram


@dataclass(frozen=True, slots=True)
class Pace:
    """Intervals between frames.

    Attributes:
        fps: Frames per second from the first frame to the last; None if no time passed.
        period_ms: The median interval.
        jitter_ms: 95 % of the intervals are within this of the median.
        longest_ms: The longest interval.
        gaps: Number of intervals longer than ``LONG`` medians.
    """

    fps: float | None
    period_ms: float
    jitter_ms: float
    longest_ms: float
    gaps: int


@dataclass(frozen=True, slots=True)
class Stamps:
    """Properties of a live camera's stamps.

    Attributes:
        declared: Their clock according to the camera's configuration.
        looks_like: The clock they appear to come from; None if too few were seen.
        age_ms: Minimum, median and maximum time from stamp to arrival, by the clock they look like; None if that is
            not a clock of this machine.
        repeated: Frames with the same stamp as the one before.
        backward: Frames with an earlier stamp than the one before.
        steps: Frames at which stamps and arrivals diverged by more than ``STEP_NS``.
        unusable: Stamps that are not a number of nanoseconds.
    """

    declared: ClockKind
    looks_like: ClockKind | None
    age_ms: tuple[float, float, float] | None
    repeated: int
    backward: int
    steps: int
    unusable: int


@dataclass(frozen=True, slots=True)
class Values:
    """Raw pixel values of the sampled pictures.

    Attributes:
        full_scale: Largest value of the bits in use: 255, 1023, 4095, 16383, 65535.
        percentiles: The 1st, 50th and 99th percentiles of all values.
        black: Share of values in the lowest 128th of the full scale.
        saturated: Share of values at the full scale.
        histogram: Shares of ``BINS`` equal intervals from 0 to the full scale.
        dots_per_1000: Bright minus dark isolated dots per 1000 pixels, median of the pictures; None for colour, depth
            and thermal pictures.
        mean: Mean over all frames.
        jumps: Frames whose mean differs from that of the one before by more than a share of ``BRIGHTER``.
        largest_jump: Largest such difference, as a share.
    """

    full_scale: int
    percentiles: tuple[float, float, float]
    black: float
    saturated: float
    histogram: tuple[float, ...]
    dots_per_1000: float | None
    mean: float
    jumps: int
    largest_jump: float


@dataclass(frozen=True, slots=True)
class Match:
    """How well the pictures match a model.

    Attributes:
        model: Name of the model.
        judged: Share of frames at which pictures in the window were unhealthy, by reason; empty if all were healthy or
            the model has no health statistics.
        details: The latest figures for each reason.
        can_judge: Whether the model has statistics of healthy pictures.
        limits: Its intensity window; if the window adapts to the picture, the range of values it was trained on.
        is_window: Whether ``limits`` are those of a window.
        below: Share of values below ``limits``.
        above: Share of values above ``limits``.
    """

    model: str
    judged: dict[str, float]
    details: dict[str, str]
    can_judge: bool
    limits: tuple[float, float]
    is_window: bool
    below: float
    above: float


@dataclass(frozen=True, slots=True)
class Checkup:
    """Measurements of a camera.

    Attributes:
        camera: Name of the camera.
        band: Its spectral band; if the camera does not declare one, that of the model it fits; None if unknown.
        live: Whether it is live, not a recording.
        seconds: How long it was watched; for a recording, its length up to that point.
        frames: Number of frames measured.
        damaged: Number of further frames that could not be decoded.
        nominal_fps: The rate it declares.
        dtype: Pixel type; empty without a frame.
        size_px: Height and width.
        channels: 1 or 3.
        sizes: Number of different frame sizes and types.
        arrivals: Intervals between arrivals; None for a recording or fewer than three frames.
        captures: Intervals between stamps; None for fewer than three frames.
        stamps: Properties of the stamps; None for a recording or fewer than three frames.
        values: Pixel values; None without a frame.
        repeated: Frames that exactly repeat the previous picture.
        longest_same_ms: The longest time that one picture stayed unchanged.
        match: Comparison with the model; None if no model was given.
        fault: Why the check-up ended early; empty if it did not.
    """

    camera: str
    band: Band | None
    live: bool
    seconds: float
    frames: int
    damaged: int
    nominal_fps: float | None
    dtype: str
    size_px: tuple[int, int]
    channels: int
    sizes: int
    arrivals: Pace | None
    captures: Pace | None
    stamps: Stamps | None
    values: Values | None
    repeated: int
    longest_same_ms: float
    match: Match | None
    fault: str


def examine(camera: Camera, seconds: float, manifest: Manifest | None = None, clock: Clock = MONOTONIC) -> Checkup:
    """Measure an open camera for at most about ``seconds``, its read time-out included.

    A camera fault ends the check-up and is reported in the result.

    Args:
        camera: An open camera; the caller closes it.
        seconds: How long to watch; for a recording, how much of it to read.
        manifest: The model that the pictures are meant for.
        clock: Clock for arrival times.
    """
    watch = _Watch(camera, manifest)
    timeout_seconds = timeouts_of(camera).read_timeout_ms / 1e3
    began_ns = clock.now_ns()
    length_ns = round(min(seconds, MOST_SECONDS) * 1e9) + (SETTLE_NS if camera.live else 0)
    while not camera.ended and watch.count < MOST_FRAMES:
        left_ns = length_ns - (clock.now_ns() - began_ns)
        if left_ns <= 0 or (not camera.live and watch.recorded_ns >= length_ns):
            break
        try:
            frame = camera.read(min(timeout_seconds, left_ns / 1e9))
        except BadPictureError:
            watch.damaged += 1
            clock.sleep(PAUSE_SECONDS)
            continue
        except Exception as error:  # whatever a driver raises
            watch.fault = error.found if isinstance(error, KdEdgeError) else reason(error)
            if is_bug(error):
                log.error("camera %s fails here:", printable(camera.name), exc_info=error)
            break
        received_ns, wall_ns = clock.now_ns(), clock.wall_ns()
        if frame is None:
            clock.sleep(PAUSE_SECONDS)
        elif not camera.live or received_ns - began_ns >= SETTLE_NS:
            watch.see(frame, received_ns, wall_ns)
    return watch.result((clock.now_ns() - began_ns) / 1e9)


class _Watch:
    """Accumulates the times and sums of frames; keeps no pictures."""

    def __init__(self, camera: Camera, manifest: Manifest | None) -> None:
        self.damaged, self.fault = 0, ""
        self._camera, self._manifest = camera, manifest
        self._band = camera.band or (None if manifest is None else manifest.band)
        self._cv2: Any = import_extra("cv2", "cpu")
        self._times: list[tuple[int, int, int]] = []  # stamp, arrival, time of day
        self._unusable = 0
        self._kinds: Counter[tuple[str, tuple[int, ...]]] = Counter()
        self._same = _Same()
        self._counts: Int64 = np.zeros(_VALUES, np.int64)
        self._dots: list[float] = []
        self._means: list[float] = []
        self._looked_ns = self._dotted_ns = -STAMP_LIMIT_NS
        self._health = None if manifest is None or manifest.health is None else _health(manifest)
        self._judged: Counter[str] = Counter()
        self._details: dict[str, str] = {}
        self._health_ns = -1

    @property
    def count(self) -> int:
        """Number of frames so far."""
        return len(self._means)

    @property
    def recorded_ns(self) -> int:
        """Time from the first to the last stamp."""
        return self._times[-1][0] - self._times[0][0] if self._times else 0

    def see(self, frame: Frame, received_ns: int, wall_ns: int) -> None:
        """Add a frame; the pixel values of about ten a second are counted."""
        image, stamp_ns = frame.image, stamp_of(frame.captured_ns)
        if isinstance(stamp_ns, Cause):
            self._unusable += 1
        else:
            self._times.append((stamp_ns, received_ns, wall_ns))
        self._kinds[image.dtype.name, image.shape] += 1
        moment_ns = received_ns if self._camera.live or isinstance(stamp_ns, Cause) else stamp_ns
        self._means.append(sum(self._cv2.mean(image)) / (1 if image.ndim == 2 else image.shape[2]))
        self._same.see(image[::_GRID, ::_GRID], moment_ns)
        if not 0 <= moment_ns - self._looked_ns < LOOK_NS:
            self._looked_ns = moment_ns
            self._count_values(image)
        if not 0 <= moment_ns - self._dotted_ns < DOTS_NS and image.ndim == 2 and self._band in (None, "nir"):
            self._dotted_ns = moment_ns
            self._dots.append(dots_per_1000(image))
        if self._health is not None and self._manifest is not None and moment_ns > self._health_ns:
            self._health_ns = moment_ns
            spec = self._manifest.preprocess
            self._health.see(resize(image, spec.resize_px, spec.holes), moment_ns)
            if cause := self._health.finding.cause:
                self._take(cause)

    def _take(self, cause: Cause) -> None:
        if cause.reason:
            self._judged[cause.reason.value] += 1
            self._details[cause.reason.value] = cause.detail

    def _count_values(self, image: Image) -> None:
        counts = np.bincount(image.reshape(-1)[:: max(1, image.size // _COUNTED)])
        self._counts[: len(counts)] += counts

    def result(self, seconds: float) -> Checkup:
        """Return the measurements so far."""
        times: Int64 = np.array(self._times, np.int64).reshape(-1, 3)
        camera, live = self._camera, self._camera.live
        (dtype, shape) = self._kinds.most_common(1)[0][0] if self._kinds else ("", (0, 0))
        enough = len(times) >= 3
        return Checkup(
            camera=camera.name,
            band=self._band,
            live=live,
            seconds=seconds if live else self.recorded_ns / 1e9,
            frames=self.count,
            damaged=self.damaged,
            nominal_fps=camera.fps,
            dtype=dtype,
            size_px=(shape[0], shape[1]),
            channels=shape[2] if len(shape) == 3 else 1,
            sizes=len(self._kinds),
            arrivals=_pace(times[:, 1]) if live and enough else None,
            captures=_pace(times[:, 0]) if enough else None,
            stamps=_stamps(times, clock_of(camera), self._unusable) if live and (enough or self._unusable) else None,
            values=self._values(dtype) if self.count else None,
            repeated=self._same.repeated,
            longest_same_ms=self._same.longest_ns / 1e6,
            match=None if self._manifest is None else self._match(self._manifest),
            fault=printable(self.fault),
        )

    def _values(self, dtype: str) -> Values:
        counts, total = self._counts, self._counts.sum()
        largest = int(np.flatnonzero(counts)[-1])
        full = 255 if dtype == "uint8" else (1 << max(8, largest.bit_length())) - 1
        up_to = np.cumsum(counts)
        means = np.array(self._means)
        jumps = np.abs(np.diff(means)) / np.maximum(means[:-1], 1.0)
        shares = np.histogram(np.arange(full + 1), BINS, weights=counts[: full + 1])[0] / total
        low, middle, high = (float(np.searchsorted(up_to, share * total)) for share in (0.01, 0.5, 0.99))
        return Values(
            full_scale=full,
            percentiles=(low, middle, high),
            black=float(counts[: (full >> 7) + 1].sum() / total),
            saturated=float(counts[full:].sum() / total),
            histogram=tuple(float(share) for share in shares),
            dots_per_1000=float(np.median(self._dots)) if self._dots else None,
            mean=float(means.mean()),
            jumps=int((jumps > BRIGHTER).sum()),
            largest_jump=float(jumps.max(initial=0.0)),
        )

    def _match(self, manifest: Manifest) -> Match:
        window, total = manifest.preprocess.window, max(1, self._counts.sum())
        is_window = isinstance(window, FixedWindow)
        low, high = (window.low, window.high) if isinstance(window, FixedWindow) else manifest.value_range
        values = np.arange(_VALUES)
        return Match(
            model=manifest.name,
            judged={reason: count / self.count for reason, count in self._judged.most_common()},
            details=self._details,
            can_judge=manifest.health is not None,
            limits=(low, high),
            is_window=is_window,
            below=float(self._counts[values < low].sum() / total),
            above=float(self._counts[values > high].sum() / total),
        )


class _Same:
    """Counts how often, and measures how long, a picture stays exactly the same."""

    def __init__(self) -> None:
        self.repeated = self.longest_ns = 0
        self._grid: npt.NDArray[np.generic] | None = None
        self._since_ns = 0

    def see(self, grid: npt.NDArray[np.generic], moment_ns: int) -> None:
        """Compare some pixels of a picture with those of the previous one."""
        if self._grid is not None and np.array_equal(grid, self._grid):
            self.repeated += 1
            self.longest_ns = max(self.longest_ns, moment_ns - self._since_ns)
        else:
            self._grid, self._since_ns = grid.copy(), moment_ns


def _health(manifest: Manifest) -> PictureHealth | None:
    hold_ns = round(manifest.clip_seconds * 1e9)
    return None if manifest.health is None else PictureHealth(manifest.health, hold_ns)


def _pace(times_ns: Int64) -> Pace:
    distances_ms = np.diff(times_ns) / 1e6
    period_ms = float(np.median(distances_ms))
    span_ns = int(times_ns[-1] - times_ns[0])
    return Pace(
        fps=(len(times_ns) - 1) * 1e9 / span_ns if span_ns > 0 else None,
        period_ms=period_ms,
        jitter_ms=float(np.percentile(np.abs(distances_ms - period_ms), 95)),
        longest_ms=float(distances_ms.max()),
        gaps=int((distances_ms > LONG * period_ms).sum()) if period_ms > 0 else 0,
    )


def _stamps(times: Int64, declared: ClockKind, unusable: int) -> Stamps:
    stamps, arrivals, walls = times.T
    moved = np.diff(stamps)
    looks_like = _looks_like(times) if len(times) >= 3 else None
    clock = {"monotonic": arrivals, "wall": walls}.get(looks_like or "")
    ages_ms = None if clock is None else (clock - stamps) / 1e6
    return Stamps(
        declared=declared,
        looks_like=looks_like,
        age_ms=None if ages_ms is None else (float(ages_ms.min()), float(np.median(ages_ms)), float(ages_ms.max())),
        repeated=int((moved == 0).sum()),
        backward=int((moved < 0).sum()),
        steps=int((np.abs(moved - np.diff(arrivals)) > STEP_NS).sum()),
        unusable=unusable,
    )


def _looks_like(times: Int64) -> ClockKind:
    """Guess the clock of the stamps: one of this machine's, ``device`` if it runs at their rate, else ``arrival``."""
    stamps, arrivals, walls = times.T
    moved, passed = np.diff(stamps), np.diff(arrivals)
    steady = np.abs(moved - passed) <= STEP_NS
    ratio = moved[steady].sum() / max(1, passed[steady].sum())
    if steady.mean() <= 0.5 or abs(ratio - 1) > RUNS_ALIKE:
        return "arrival"
    clocks: dict[ClockKind, Int64] = {"monotonic": arrivals, "wall": walls}
    for kind, now in clocks.items():
        if -MAX_AHEAD_MS * 1e6 <= np.median(now - stamps) <= OLDEST_NS:
            return kind
    return "device"
