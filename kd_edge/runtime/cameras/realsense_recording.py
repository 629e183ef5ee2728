"""Play back every frame of one infrared imager from RealSense recordings (.bag, .db3) with librealsense.

Since 2.58 librealsense writes rosbag2 (.db3) and reads both, but only files it wrote itself.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import subprocess
import sys
import time
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from kd_edge.data.readers.bounds import check_pixels
from kd_edge.errors import DataError, printable, reason
from kd_edge.reading import open_regular
from kd_edge.runtime.cameras.base import Wanted
from kd_edge.runtime.cameras.config import CameraConfig
from kd_edge.runtime.cameras.librealsense import focal_of_profile, infrared_profiles, is_lit, librealsense
from kd_edge.types import Image

log = logging.getLogger("kd_edge.runtime")

ENDINGS = (".bag", ".db3")
POLL_MS = 200
"""Length of one wait for a frame; the end of a recording shows as a wait without a frame."""
BEGIN_SECONDS = 3.0
"""A recording that has delivered no frame for this long, and is not being read, has none."""
SILENT_SECONDS = 10.0
"""A recording that delivers no frame for this long without ending is damaged."""
LONGEST_NS = 10**16
OPEN_SECONDS = 30.0
"""A recording that librealsense does not open within this time is damaged."""
STOP_SECONDS = 5.0
"""Longest wait for librealsense's reading thread; on a busy machine it takes a few milliseconds."""
_LEFT: deque[Any] = deque(maxlen=16)
"""Playbacks whose thread may still be running, kept alive so that they are not destroyed under it."""
_TOPICS = "SELECT EXISTS (SELECT 1 FROM topics WHERE name LIKE '/device\\_%/sensor\\_%' ESCAPE '\\')"
_COUNT = """SELECT count(*) FROM messages JOIN topics ON topics.id = messages.topic_id
WHERE topics.name GLOB '/device_*/sensor_*/Infrared_' || ? || '/image/data*'"""
_OPEN = """import json, sys
sys.path[:] = json.loads(sys.argv[1])
import pyrealsense2 as rs
config = rs.config()
config.enable_device_from_file(sys.argv[2], False)
config.resolve(rs.pipeline_wrapper(rs.pipeline()))"""
_ROS1_SIGNATURE = b"#ROSBAG V2.0\n"


def is_recording(path: Path) -> bool:
    """Whether librealsense wrote a file, judging by its topics; for .bag files, whether it is a ROS 1 bag at all."""
    if path.suffix.lower() not in ENDINGS:
        return False
    try:
        with open_regular(path) as file:
            head = file.read(len(_ROS1_SIGNATURE))
        if path.suffix.lower() == ".bag":
            return head == _ROS1_SIGNATURE
        return bool(_number(path, _TOPICS))
    except (OSError, sqlite3.Error):
        return False


def _number(path: Path, query: str, *given: object) -> int:
    """Return the number that a query of a ``.db3`` returns."""
    # immutable: creates no files next to it and waits for no lock
    address = f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1"
    with closing(sqlite3.connect(address, uri=True)) as database:
        return int(database.execute(query, given).fetchone()[0])


class Playback:
    """A recording read as fast as frames are requested; ``open``, iterate ``frames``, ``close``.

    Args:
        path: A file for which ``is_recording`` is true.
        config: Selects the imager (``index``) and whether lit frames are skipped (``emitter``).
        wanted: What the model needs; selects 8 or 16 bits if both are recorded.

    Attributes:
        fps: Nominal rate of the imager, known once the recording is open.
        focal: Its focal length as a share of the frame's width, known once it is open; None if not recorded.
    """

    def __init__(self, path: Path, config: CameraConfig, wanted: Wanted) -> None:
        self.fps = 0.0
        self.focal: float | None = None
        self._path, self._index = path, config.index or 1
        self._leaves_lit_out, self._wanted = config.emitter == "alternating", wanted
        self._rs: Any = librealsense()
        self._settings: Any = None
        self._pipeline: Any = None
        self._playback: Any = None
        self._has_begun = False

    def open(self) -> None:
        """Start at the first frame.

        Raises:
            DataError: The recording is damaged or does not contain the imager.
        """
        rs = self._rs
        self._has_begun = False
        self._check_opens()
        try:
            # referenced only by self: an object kept alive by a traceback would keep the file open
            self._pipeline, self._settings = rs.pipeline(), rs.config()
            self._settings.enable_device_from_file(str(self._path), False)
            index, kind, fps = self._chosen(self._profiles())
            self._settings.enable_stream(rs.stream.infrared, index, kind, fps)
            # must be set on the (new) device that will be started, before it starts: otherwise frames are lost
            self._device().as_playback().set_real_time(False)
            started = self._pipeline.start(self._settings)
            self._playback = started.get_device().as_playback()
            imager = started.get_stream(rs.stream.infrared, index)
            self.focal = focal_of_profile(imager.as_video_stream_profile())
        except RuntimeError as error:
            raise _damaged(self._path, reason(error)) from None
        self.fps = float(fps)

    def frames(self) -> Generator[tuple[Image, int], None, None]:
        """Iterate over pictures (H, W) with strictly increasing stamps in nanoseconds, relative to the first one.

        Stamps that do not increase are replaced by the previous stamp plus the nominal period.

        Raises:
            DataError: The recording is truncated, or lacks the metadata on which frames are lit.
        """
        first_ms, last_ns, heard, count = None, -1, time.monotonic(), 0
        while True:
            taken = self._taken()
            if taken is None:
                silent = time.monotonic() - heard
                has_begun = self._has_begun or silent > BEGIN_SECONDS  # the status is also "stopped" before the start
                if has_begun and self._playback.current_status() == self._rs.playback_status.stopped:
                    self._warn_of_lost(count)
                    return
                if silent > SILENT_SECONDS:
                    raise _damaged(self._path, f"no frame for {SILENT_SECONDS:g} s before its end")
                continue
            count, heard, (image, stamp_ms, lit) = count + 1, time.monotonic(), taken
            if self._leaves_lit_out and self._checked(lit):
                continue
            first_ms = stamp_ms if first_ms is None else first_ms
            stamp_ns = (stamp_ms - first_ms) * 1e6
            is_usable = last_ns < stamp_ns <= LONGEST_NS
            last_ns = round(stamp_ns) if is_usable else last_ns + max(1, round(1e9 / max(self.fps, 1)))
            yield image, last_ns

    def close(self) -> None:
        """Stop; librealsense closes the file when its last object is released."""
        if self._playback is not None and not self._stopped():
            log.info("%s: librealsense is left to finish reading", printable(str(self._path)))
            _LEFT.append(self._playback)
        self._settings = self._pipeline = self._playback = None

    def _stopped(self) -> bool:
        """Stop, and return whether librealsense's own thread is known to have ended.

        The thread outlives ``stop`` and crashes if its device is released before it ends. The status shows its end only
        after a first frame, because it is also "stopped" before the start.
        """
        try:
            if not self._has_begun:
                self._taken()
            self._pipeline.stop()
        except RuntimeError as error:
            log.debug("%s: %s", printable(str(self._path)), printable(reason(error)))
        ends = time.monotonic() + STOP_SECONDS
        while self._has_begun and time.monotonic() < ends:
            if self._playback.current_status() == self._rs.playback_status.stopped:
                return True
            time.sleep(0.001)
        return False

    def _check_opens(self) -> None:
        """Open the file in another process first: on some damaged recordings librealsense hangs, and Python with it."""
        command = [sys.executable, "-c", _OPEN, json.dumps(sys.path), str(self._path.absolute())]
        try:
            subprocess.run(command, capture_output=True, timeout=OPEN_SECONDS, check=False)  # noqa: S603 - ourselves
        except subprocess.TimeoutExpired:
            raise _damaged(self._path, f"librealsense does not open it in {OPEN_SECONDS:g} s") from None

    def _warn_of_lost(self, count: int) -> None:
        """Warn if a recording contains more frames than could be read: librealsense ends at damaged data."""
        if self._path.suffix.lower() != ".db3":
            return
        try:
            recorded = _number(self._path, _COUNT, str(self._index))
        except sqlite3.Error as error:
            log.warning("%s: damaged after %d frames (%s)", printable(str(self._path)), count, printable(reason(error)))
            return
        if count < recorded:
            log.warning("%s: only %d of its %d frames could be read", printable(str(self._path)), count, recorded)

    def _device(self) -> Any:
        return self._settings.resolve(self._rs.pipeline_wrapper(self._pipeline)).get_device()

    def _profiles(self) -> list[tuple[int, Any, int, int, int]]:
        """Index, format, rate, width and height of all recorded infrared profiles."""
        found = infrared_profiles(self._rs, self._device())
        return [(p.stream_index(), p.format(), p.fps(), p.width(), p.height()) for p in found]

    def _chosen(self, profiles: Sequence[tuple[int, Any, int, int, int]]) -> tuple[int, Any, int]:
        """Index, format and rate of the requested imager, in the bit depth that suits the model best."""
        preferred = [self._rs.format.y8, self._rs.format.y16]
        if self._wanted.dtype == "uint16":
            preferred.reverse()
        known = [profile for profile in profiles if profile[1] in preferred]
        found = [profile for profile in known if profile[0] == self._index]
        if not found:
            recorded = ", ".join(sorted({f"{index} ({kind.name.upper()})" for index, kind, *_ in known}))
            raise DataError(
                f"{self._path} has no infrared imager {self._index}",
                f"one that was recorded: {recorded}" if recorded else "an infrared imager, recorded as Y8 or Y16",
                "set index, or record it with the infrared streams on",
            )
        index, kind, fps, *size = min(found, key=lambda profile: preferred.index(profile[1]))
        try:
            check_pixels(*size)
        except ValueError as error:
            raise _damaged(self._path, str(error)) from None
        return index, kind, fps

    def _taken(self) -> tuple[Image, float, bool | None] | None:
        """Picture (a copy: kept frame sets stop the playback), stamp in ms and whether it is lit, of the next frame."""
        arrived, frames = self._pipeline.try_wait_for_frames(POLL_MS)
        frame = frames.get_infrared_frame(self._index) if arrived else None
        if not frame:
            return None
        self._has_begun = True
        return np.array(frame.get_data()), frame.get_timestamp(), is_lit(self._rs, frame)

    def _checked(self, lit: bool | None) -> bool:
        if lit is None:
            raise DataError(
                f"{self._path} does not record which frames the projector lit",
                "frame metadata, for emitter = 'alternating'",
                "leave emitter out, or record with a driver that keeps the metadata",
            )
        return lit


def _damaged(path: Path, why: str) -> DataError:
    return DataError(
        f"{path} cannot be replayed: {printable(why)}", "a recording of librealsense", "check or record it again"
    )
