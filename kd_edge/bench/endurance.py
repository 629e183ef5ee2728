"""Soak test: a long stream of accelerated frames with faults, monitored for memory, descriptors and threads."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from kd_edge import artifact as artifacts
from kd_edge.artifact import Band, Manifest
from kd_edge.bench.measure import FRAME_NS, noise
from kd_edge.data.synthetic.dataset import SyntheticStream
from kd_edge.engines import EngineName
from kd_edge.errors import BadPictureError, CameraError
from kd_edge.runtime.cameras.base import Channels, Dtype
from kd_edge.runtime.cameras.config import TimeOuts
from kd_edge.runtime.options import StreamOptions
from kd_edge.runtime.stream import LabelStream
from kd_edge.types import Frame, Image

WARM_SHARE = 0.05
"""Share of frames that fill queues, pools and caches; later measurements are compared with the state after them."""
LOOKS = 200
FAULT_EVERY = 997
"""Frames between two faults."""
FIGURE_FRAMES = 90
"""Three seconds of the generated figure: one action, repeated."""
FIGURE_BYTES = 200_000_000
FEWEST_FRAMES = 15
"""Minimum number of frames, as fewer large pictures fit: less than half a second shows no action."""
SMALLEST_PX = 32
"""Minimum size of a picture that shows the figure."""


class SoakReport(BaseModel):
    """Memory, descriptors and threads of a process over a long stream.

    Attributes:
        frames: Frames read.
        hours: Duration of these frames at 30 frames per second.
        faults: Number of injected faults.
        reconnects: How often the camera was reopened.
        labels: Predictions by state.
        rss_mb: Resident memory after warming up, 10^6 bytes.
        rss_change_mb: Smallest and largest difference from it afterwards.
        descriptors: Smallest and largest number of open files.
        threads: Smallest and largest number of threads.
    """

    model_config = ConfigDict(frozen=True)
    frames: int
    hours: float
    faults: int
    reconnects: int
    labels: dict[str, int]
    rss_mb: float
    rss_change_mb: tuple[float, float]
    descriptors: tuple[int, int]
    threads: tuple[int, int]


class AcceleratedClock:
    """A clock that advances with every frame instead of with real time."""

    def __init__(self) -> None:
        self.ns = 1_000_000_000_000

    def now_ns(self) -> int:
        """Current time of the stream."""
        return self.ns

    def sleep(self, seconds: float) -> None:
        """Advance the clock immediately."""
        self.ns += round(seconds * 1e9)

    def wall_ns(self) -> int:
        """The monotonic time: this clock is never set."""
        return self.ns

    def suspended_ns(self) -> int:
        """Zero: this clock is never suspended."""
        return 0


def pictures(manifest: Manifest, size: tuple[int, int]) -> list[Image]:
    """Frames to cycle through: the generated figure if it suits the model, noise otherwise.

    Args:
        manifest: Manifest of the model that the frames are for.
        size: (H, W).
    """
    is_suitable = (manifest.band, manifest.preprocess.channels) in (("nir", 1), ("rgb", 3))
    count = min(FIGURE_FRAMES, FIGURE_BYTES // (size[0] * size[1] * manifest.preprocess.channels))
    if not is_suitable or manifest.dtype != "uint8" or min(size) < SMALLEST_PX or count < FEWEST_FRAMES:
        return noise(manifest, size)
    figure = SyntheticStream(manifest.band, height=size[0], width=size[1])
    return [figure.frame(k)[0] for k in range(count)]


class UnrulyCamera:
    """A live camera in lockstep with its consumer that injects faults: gaps, damage, clock errors, unplugging.

    Args:
        manifest: Manifest of the model that the frames are for.
        size: (H, W).
        frames: Number of frames after which the camera is silent.
        clock: Clock, advanced by 1/30 s with every frame.
    """

    name = "unruly"
    fps: float | None = 30.0
    live, can_vanish, ended = True, True, False
    timeouts = TimeOuts(read_timeout_ms=500, reconnect_max_ms=100)

    def __init__(self, manifest: Manifest, size: tuple[int, int], frames: int, clock: AcceleratedClock) -> None:
        self.band: Band | None = manifest.band
        self.dtype: Dtype | None = manifest.dtype
        self.channels: Channels | None = manifest.preprocess.channels
        self.count = self.faults = 0
        self.turn = threading.Semaphore(1)
        self._images = pictures(manifest, size)
        self._smaller = self._images[0][::2, ::2].copy()
        self._frames, self._clock = frames, clock

    def open(self) -> None:
        """It is always there."""

    def close(self) -> None:
        """Nothing to release."""

    def read(self, timeout_seconds: float) -> Frame | None:
        """The next frame once the last one has been labelled."""
        if self.count >= self._frames or not self.turn.acquire(timeout=timeout_seconds):
            return None
        self.count += 1
        self._clock.ns += FRAME_NS
        image, stamp_ns = self._images[self.count % len(self._images)], self._clock.ns
        if self.count % FAULT_EVERY == 0:
            self.faults += 1
            kind = self.faults % 5
            if kind < 3:
                self.turn.release()  # no prediction will come of it
            if kind == 0:
                raise CameraError("unplugged", "a cable", "plug it in")
            if kind == 1:
                raise BadPictureError("damaged", "a picture", "check the cable")
            if kind == 2:
                stamp_ns += 3_600_000_000_000
            if kind == 3:
                image = self._smaller
            if kind == 4:
                self._clock.ns += 2_000_000_000
                stamp_ns = self._clock.ns
        return Frame(image, stamp_ns, self.count, self.name)


def soak(
    model: Path | str,
    frames: int,
    *,
    size: tuple[int, int] = (480, 640),
    engine: EngineName = "onnxruntime",
    threads: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> SoakReport:
    """Stream accelerated frames through capture, recogniser, watchdog and sinks, and watch the process.

    Args:
        model: The artifact.
        frames: How many.
        size: (H, W) of the frames.
        engine: What runs the model, see ``open_engine``.
        threads: Of the engine.
        progress: Told how many frames of how many are done.
    """
    manifest = artifacts.load(model).manifest
    clock = AcceleratedClock()
    camera = UnrulyCamera(manifest, size, frames, clock)
    warm, every = round(frames * WARM_SHARE), max(1, frames // LOOKS)
    looks: list[tuple[float, int, int]] = []
    with tempfile.TemporaryDirectory() as folder, _quiet(), contextlib.ExitStack() as opened:
        options = StreamOptions(sinks=(f"jsonl:{folder}/labels.jsonl?max_mb=1",), engine=engine, threads=threads)
        labels = opened.enter_context(LabelStream(model, camera, options, clock))
        looked = 0
        while camera.count < frames:
            next(labels)
            camera.turn.release()
            if camera.count >= max(warm, looked + every):
                looked = camera.count
                looks.append(_look())
                progress(camera.count, frames)
        statistics = labels.statistics
    rss, descriptors, counted = (np.array(column) for column in zip(*looks, strict=True))
    return SoakReport(
        frames=camera.count,
        hours=camera.count / 30 / 3600,
        faults=camera.faults,
        reconnects=statistics.reconnects,
        labels=statistics.labels,
        rss_mb=float(rss[0]),
        rss_change_mb=(float((rss - rss[0]).min()), float((rss - rss[0]).max())),
        descriptors=(int(descriptors.min()), int(descriptors.max())),
        threads=(int(counted.min()), int(counted.max())),
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Faults on purpose are no news."""
    log = logging.getLogger("kd_edge.runtime")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def _look() -> tuple[float, int, int]:
    """Resident memory in MB, open files and threads of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a listing of one's own descriptors is all it is
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6, descriptors, len(os.listdir("/proc/self/task"))  # noqa: PTH208
