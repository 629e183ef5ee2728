"""Recordings of RealSense cameras (.bag, .db3), played back by librealsense, every frame of one infrared imager.

Since 2.58 librealsense writes rosbag2 (.db3) and reads both; what other makers write in these formats it cannot read.
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
"""The end of a recording is a wait that gives nothing; so long is one."""
BEGIN_SECONDS = 3.0
"""A recording that has given no frame in so long, and is not being read, has none."""
SILENT_SECONDS = 10.0
"""A recording that gives no frame for so long, and does not end either, is damaged."""
LONGEST_NS = 10**16
OPEN_SECONDS = 30.0
"""A recording that librealsense does not open in so long is damaged."""
STOP_SECONDS = 5.0
"""So long its reading thread is waited for; on a busy machine it takes some milliseconds."""
_LEFT: deque[Any] = deque(maxlen=16)
"""Playbacks whose thread is not known to have ended, kept from being torn down under it."""
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
    """Whether a file is one that librealsense wrote, told by its topics; of a ROS 1 bag, that it is one at all."""
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
    """What a query of a ``.db3`` gives."""
    # immutable: no file is made beside it, and nobody's lock is waited for
    address = f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1"
    with closing(sqlite3.connect(address, uri=True)) as database:
        return int(database.execute(query, given).fetchone()[0])


class Playback:
    """An open recording, read as fast as it is asked for; ``open``, iterate ``frames``, ``close``.

    Args:
        path: One for which ``is_recording``.
        config: Which imager (``index``), and whether lit frames are left out (``emitter``).
        wanted: What the model needs decides between 8 and 16 bits where both are recorded.

    Attributes:
        fps: Nominal rate of the imager, known once it is open.
        focal: Its focal length as a share of the frame's width, likewise; None where the recording does not tell.
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
            DataError: It is damaged, or holds no such imager.
        """
        rs = self._rs
        self._has_begun = False
        self._check_opens()
        try:
            # held by self alone: what an error's traceback kept alive would keep the file open
            self._pipeline, self._settings = rs.pipeline(), rs.config()
            self._settings.enable_device_from_file(str(self._path), False)
            index, kind, fps = self._chosen(self._profiles())
            self._settings.enable_stream(rs.stream.infrared, index, kind, fps)
            # of the device that will be started, which is a new one now, and before it is: else frames are lost
            self._device().as_playback().set_real_time(False)
            started = self._pipeline.start(self._settings)
            self._playback = started.get_device().as_playback()
            imager = started.get_stream(rs.stream.infrared, index)
            self.focal = focal_of_profile(imager.as_video_stream_profile())
        except RuntimeError as error:
            raise _damaged(self._path, reason(error)) from None
        self.fps = float(fps)

    def frames(self) -> Generator[tuple[Image, int], None, None]:
        """Pictures (H, W) with their stamps from the first one on, nanoseconds, which always increase.

        Stamps that do not go on are replaced by the nominal rate's.

        Raises:
            DataError: It breaks off, or does not tell which frames are lit.
        """
        first_ms, last_ns, heard, count = None, -1, time.monotonic(), 0
        while True:
            taken = self._taken()
            if taken is None:
                silent = time.monotonic() - heard
                has_begun = self._has_begun or silent > BEGIN_SECONDS  # it is "stopped" before its start, too
                if has_begun and self._playback.current_status() == self._rs.playback_status.stopped:
                    self._tell_of_lost(count)
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
        """Stop; librealsense closes the file when its last object is gone."""
        if self._playback is not None and not self._stopped():
            log.info("%s: librealsense is left to finish reading", printable(str(self._path)))
            _LEFT.append(self._playback)
        self._settings = self._pipeline = self._playback = None

    def _stopped(self) -> bool:
        """Stop, and whether librealsense's own thread is known to have, which crashes once its device is gone.

        It outlives ``stop``. The status tells of it only after a first frame: it is "stopped" before the start, too.
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
        """Open it in another process first: on some damaged recordings librealsense hangs, and Python with it."""
        command = [sys.executable, "-c", _OPEN, json.dumps(sys.path), str(self._path.absolute())]
        try:
            subprocess.run(command, capture_output=True, timeout=OPEN_SECONDS, check=False)  # noqa: S603 - ourselves
        except subprocess.TimeoutExpired:
            raise _damaged(self._path, f"librealsense does not open it in {OPEN_SECONDS:g} s") from None

    def _tell_of_lost(self, count: int) -> None:
        """Say so where a recording holds more frames than could be read: librealsense ends at what is damaged."""
        if self._path.suffix.lower() != ".db3":
            return
        try:
            held = _number(self._path, _COUNT, str(self._index))
        except sqlite3.Error as error:
            log.warning("%s: damaged after %d frames (%s)", printable(str(self._path)), count, printable(reason(error)))
            return
        if count < held:
            log.warning("%s: only %d of its %d frames could be read", printable(str(self._path)), count, held)

    def _device(self) -> Any:
        return self._settings.resolve(self._rs.pipeline_wrapper(self._pipeline)).get_device()

    def _profiles(self) -> list[tuple[int, Any, int, int, int]]:
        """Index, format, rate, width and height of all that was recorded in infrared."""
        found = infrared_profiles(self._rs, self._device())
        return [(p.stream_index(), p.format(), p.fps(), p.width(), p.height()) for p in found]

    def _chosen(self, profiles: Sequence[tuple[int, Any, int, int, int]]) -> tuple[int, Any, int]:
        """Index, format and rate of the imager asked for, in the depth that suits the model best."""
        liked = [self._rs.format.y8, self._rs.format.y16]
        if self._wanted.dtype == "uint16":
            liked.reverse()
        known = [profile for profile in profiles if profile[1] in liked]
        found = [profile for profile in known if profile[0] == self._index]
        if not found:
            held = ", ".join(sorted({f"{index} ({kind.name.upper()})" for index, kind, *_ in known}))
            raise DataError(
                f"{self._path} has no infrared imager {self._index}",
                f"one that was recorded: {held}" if held else "an infrared imager, recorded as Y8 or Y16",
                "set index, or record it with the infrared streams on",
            )
        index, kind, fps, *size = min(found, key=lambda profile: liked.index(profile[1]))
        try:
            check_pixels(*size)
        except ValueError as error:
            raise _damaged(self._path, str(error)) from None
        return index, kind, fps

    def _taken(self) -> tuple[Image, float, bool | None] | None:
        """Picture, stamp in ms and whether it is lit, of the next frame; copied: kept sets stop the playback."""
        arrived, frames = self._pipeline.try_wait_for_frames(POLL_MS)
        frame = frames.get_infrared_frame(self._index) if arrived else None
        if not frame:
            return None
        self._has_begun = True
        return np.array(frame.get_data()), frame.get_timestamp(), is_lit(self._rs, frame)

    def _checked(self, lit: bool | None) -> bool:
        if lit is None:
            raise DataError(
                f"{self._path} does not tell which frames the projector lit",
                "frame metadata, for emitter = 'alternating'",
                "leave emitter out, or record with a driver that keeps the metadata",
            )
        return lit


def _damaged(path: Path, why: str) -> DataError:
    return DataError(
        f"{path} cannot be replayed: {printable(why)}", "a recording of librealsense", "check or record it again"
    )
