"""Recordings as cameras: MCAP, rosbag2, RealSense, video, images, .npy, UTD-MHAD depth, thermal arrays' CSV.

Frames are delivered by their stamps.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kd_edge.artifact import Band
from kd_edge.data.readers.bounds import check_matlab, check_pixels
from kd_edge.data.readers.images import IMAGE_BYTES, IMAGES, chosen, decode, rgb_or_grey, sequence
from kd_edge.data.readers.kinds import kind_of
from kd_edge.data.readers.pages import Pages
from kd_edge.data.readers.thermal_csv import settled, thermal_rows
from kd_edge.data.readers.video import VIDEOS, UndecodedError, frames_of
from kd_edge.errors import BrokenOffError, ConfigError, DataError, KdEdgeError, did_you_mean, reason
from kd_edge.files import expanded
from kd_edge.packages import import_extra
from kd_edge.reading import is_file, open_regular, read_bytes
from kd_edge.runtime.cameras import bags, realsense_recording
from kd_edge.runtime.cameras.bags import Recorded
from kd_edge.runtime.cameras.base import Channels, Dtype, Wanted
from kd_edge.runtime.cameras.config import CameraConfig, TimeOuts
from kd_edge.runtime.clock import MONOTONIC, Clock
from kd_edge.types import Frame, Image

DEFAULT_FPS = 30.0

Stamped = Generator[tuple[Image, int] | Recorded, None, None]


class ReplayCamera:
    """A recording; see ``Camera``. With ``realtime`` it behaves like a live camera, paced by its stamps.

    Attributes:
        focal: Focal length of its camera as a share of the frame's width, if recorded.
        recorded_hash: Hash of the labels predicted during recording; empty if not recorded.
    """

    can_vanish = False

    def __init__(
        self, name: str, config: CameraConfig, wanted: Wanted, *, realtime: bool = False, clock: Clock = MONOTONIC
    ) -> None:
        path = Path(config.target) if os.path.lexists(config.target) else expanded(config.target)
        self._is_named = not (name == config.uri or name.startswith("replay:"))
        self.name = name if self._is_named else f"{path.name}{config.topic or ''}"
        self.live = realtime
        self.timeouts: TimeOuts = config
        self.fps = config.fps
        self.band: Band | None = config.band
        self.dtype: Dtype | None = None
        self.channels: Channels | None = None
        self._path, self._config, self._wanted, self._clock = path, config, wanted, clock
        self._frames: Stamped | None = None
        self._next: Recorded | None = None
        self._fault: KdEdgeError | None = None
        self._ahead_ns = 0  # our clock minus the recording's
        self._count = 0
        self._truth: str | None = None
        self.focal: float | None = None
        self.recorded_hash = ""

    @property
    def ended(self) -> bool:
        """Whether the last frame has been read; False while it is not open."""
        return self._frames is not None and self._next is None and self._fault is None

    def open(self) -> None:
        """Open the recording at its start and read the first frame, which determines dtype and channels."""
        self.close()
        self._advance()
        if self._next is None:
            fault = self._fault or _unreadable(self._path, "it has no frame")
            self.close()
            raise fault
        image = self._next.image
        self.dtype = "uint16" if image.dtype == np.uint16 else "uint8"
        self.channels = 3 if image.ndim == 3 else 1
        self._count = 0
        self._ahead_ns = self._clock.now_ns() - self._next.stamp_ns if self.live else 0

    def read(self, timeout_seconds: float) -> Frame | None:
        """Return the next frame; paced when live.

        Raises:
            BrokenOffError: The data after the previous frame is damaged; the recording then counts as ended.
        """
        if self._fault is not None:
            fault, self._fault = self._fault, None
            raise BrokenOffError(fault.found, fault.expected, fault.fix) from fault
        if self._next is None:
            return None
        image, stamp_ns, frame_id, truth, cut = self._next
        captured_ns = self._ahead_ns + stamp_ns
        if self.live:
            ahead = (captured_ns - self._clock.now_ns()) / 1e9
            self._clock.sleep(max(0.0, min(ahead, timeout_seconds)))
            if ahead > timeout_seconds:
                return None
        frame_id = self._count if frame_id is None else frame_id
        frame = Frame(image, captured_ns, frame_id, self.name, truth or self._truth, cut)
        self._count += 1
        self._advance()
        return frame

    def close(self) -> None:
        """Release the file."""
        if self._frames is not None:
            self._frames.close()
        self._frames = self._next = self._fault = None

    def _advance(self) -> None:
        """Read ahead by one frame; its error is raised only after the previous frame has been delivered."""
        self._next = None
        try:
            self._frames = self._reader() if self._frames is None else self._frames
            following = next(self._frames, None)
            self._next = None if following is None else Recorded(*following)
        except KdEdgeError as error:
            self._fault = error
        except Exception as error:  # NumPy's, SciPy's and OpenCV's readers raise any kind on damaged files
            self._fault = _unreadable(self._path, reason(error))
            self._fault.__cause__ = error

    def _reader(self) -> Stamped:
        path, fps = self._path, self._config.fps or DEFAULT_FPS
        grey = self._wanted.channels == 1
        if realsense_recording.is_recording(path):
            return self._realsense()
        if (is_file(path) or path.is_dir()) and bags.is_bag(path):
            return self._bag(grey)
        self._check_no_topic()
        if path.is_dir():
            return _images(sequence(path), fps, grey)
        if is_file(path):
            return self._file(grey)
        if any(c in path.name for c in "*?["):
            return _images(chosen(path), fps, grey)
        raise _absent(path)

    def _file(self, grey: bool) -> Stamped:
        """Read one file by its content, independent of its name."""
        path, fps = self._path, self._config.fps
        kind = kind_of(path)
        if kind == "array":
            return _array(path, fps or DEFAULT_FPS)
        if kind == "matlab":
            self.band = self._config.band or "depth"
            return self._utd_depth()
        if kind == "pages":
            return _pages(path, fps or DEFAULT_FPS, grey)
        if kind == "thermal":
            self.band = self._config.band or "lwir"
            return _thermal(path, fps)
        if kind == "image":
            return _images([path], fps or DEFAULT_FPS, grey)
        if path.suffix.lower() in realsense_recording.ENDINGS:
            raise _unreadable(path, "it is damaged, or no RealSense wrote it")
        return self._video()

    def _video(self) -> Stamped:
        """Read frames as in training, evenly spaced if ``fps`` is set."""
        path, fps = self._path, self._config.fps
        try:
            for k, frame in enumerate(frames_of(path, self._wanted.channels)):
                yield frame.image, round(k * 1e9 / fps) if fps else frame.stamp_ns
        except UndecodedError as error:
            if path.suffix.lower() not in VIDEOS and error.is_unknown:
                raise DataError(
                    f"{path} is of a kind that cannot be replayed: {error}",
                    f"a video, an image ({', '.join(IMAGES)}), .npy, .mat, a thermal array's .csv, "
                    f"{', '.join(bags.ENDINGS)} or .bag",
                    "convert it, for example with ffmpeg",
                ) from error
            raise _unreadable(path, str(error)) from error

    def _realsense(self) -> Stamped:
        playback = realsense_recording.Playback(self._path, self._config, self._wanted)
        try:
            playback.open()
            self.band = self._config.band or "nir"
            scale = playback.fps / self._config.fps if self._config.fps else 1.0
            self.fps, self.focal = self._config.fps or playback.fps, playback.focal
            for image, stamp_ns in playback.frames():
                yield image, round(stamp_ns * scale)
        finally:
            playback.close()

    def _bag(self, grey: bool) -> Stamped:
        """Read a recording with topics; our own uses the name of its camera, unless another was given."""
        bag = bags.Bag(self._path, self._config.topic, grey)
        self.name = bag.camera if bag.camera is not None and not self._is_named else self.name
        self.band = self._config.band or bag.band
        self.focal, self.recorded_hash = bag.focal, bag.labels_hash
        for k, recorded in enumerate(bag):
            yield recorded._replace(stamp_ns=round(k * 1e9 / self.fps)) if self.fps else recorded

    def _check_no_topic(self) -> None:
        if self._config.topic is not None:
            raise ConfigError(
                f"topic {self._config.topic} of {self._path}",
                f"a recording with topics ({', '.join(bags.ENDINGS)})",
                "leave topic out",
            )

    def _utd_depth(self) -> Stamped:
        from kd_edge.data.readers import utd_mhad

        io = import_extra("scipy.io", "replay")
        with open_regular(self._path) as file:
            check_matlab(file)
        # SciPy follows nested cells until the stack overflows: only a plain array may be read.
        for name, shape, kind in io.whosmat(self._path):
            if name == "d_depth" and kind != "uint16":
                raise _unreadable(self._path, f"its {name} {shape} is of class {kind}, not uint16")
        sample = utd_mhad.sample_of(self._path)
        self._truth = utd_mhad.LABELS[sample.label] if sample is not None else None
        clip = utd_mhad.depth_clip(self._path)
        scale = utd_mhad.FPS / self._config.fps if self._config.fps else 1.0
        self.fps = self._config.fps or float(utd_mhad.FPS)
        for image, stamp_ns in zip(clip.frames, clip.stamps_ns, strict=True):
            yield image, round(int(stamp_ns) * scale)


def _array(path: Path, fps: float) -> Stamped:
    """Read frames of an .npy file (T, H, W[, 3]), memory-mapped, so that a long recording is never loaded whole."""
    open_regular(path).close()  # mapping would wait for a FIFO
    frames = np.lib.format.open_memmap(path, mode="r")
    if found := _misfit(frames.shape, frames.dtype):
        del frames  # the error must not keep the file mapped
        raise _unreadable(path, found)
    for k in range(len(frames)):
        yield np.array(frames[k]), round(k * 1e9 / fps)


def _misfit(shape: tuple[int, ...], dtype: np.dtype[Any]) -> str:
    """Return why an array is not a recording; empty if it is one."""
    right_shape = len(shape) == 3 or (len(shape) == 4 and shape[3] == 3)
    if dtype not in (np.uint8, np.uint16) or not right_shape:
        return f"it contains {dtype} {shape}, not uint8 or uint16 (T, H, W[, 3])"
    try:
        check_pixels(shape[2], shape[1])
    except ValueError as error:
        return str(error)
    return ""


def _thermal(path: Path, fps: float | None) -> Stamped:
    """Read frames of a thermal array after its sensor has settled; evenly spaced if ``fps`` is set."""
    for k, row in enumerate(settled(thermal_rows(path))):
        yield row.image, round(k * 1e9 / fps) if fps else row.stamp_ns


def _pages(path: Path, fps: float, grey: bool) -> Stamped:
    """Read the pages of a TIFF, each decoded on demand."""
    cv2 = import_extra("cv2", "cpu")
    with Pages(path) as pages:
        for k in range(len(pages)):
            image = pages[k]
            yield cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if grey and image.ndim == 3 else image, round(k * 1e9 / fps)


def _images(files: Sequence[Path], fps: float, grey: bool) -> Stamped:
    """Read images one after the other, 8 or 16 bit as stored."""
    cv2 = import_extra("cv2", "cpu")
    for k, file in enumerate(files):
        yield rgb_or_grey(cv2, _image(cv2, file), grey), round(k * 1e9 / fps)


def _image(cv2: Any, file: Path) -> Image:
    """Decode one image, its size checked first."""
    try:
        return decode(cv2, read_bytes(file, IMAGE_BYTES))
    except OSError as error:
        raise _unreadable(file, error.strerror or reason(error)) from error
    except ValueError as error:
        raise _unreadable(file, reason(error)) from error


def _absent(path: Path) -> DataError:
    if os.path.lexists(path):
        found = f"{path} is not a regular file"
    else:
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        found = f"no recording {path}{did_you_mean(path.name, siblings)}"
    return DataError(
        found,
        "a .mcap, rosbag2 or RealSense recording, a video, a folder of images, an .npy array, a UTD-MHAD depth .mat or "
        "a thermal array's .csv",
        "check the path after replay:",
    )


def _unreadable(path: Path, found: str) -> DataError:
    return DataError(f"{path} cannot be replayed: {found}", "a readable recording", "check or re-create the file")
