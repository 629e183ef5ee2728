"""The files of one's own recordings: videos, folders of images, arrays and signals, each read as one clip."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from kd_edge.data.dataset import Probe
from kd_edge.data.readers.files.settings import DEFAULT_FPS, Modality
from kd_edge.data.readers.images import IMAGES, read_image
from kd_edge.data.readers.sensor_files import Columns, read_signal
from kd_edge.data.readers.video import VIDEOS, read_video, video_info
from kd_edge.errors import DataError, import_extra, reason
from kd_edge.reading import is_file, open_regular, read_bytes
from kd_edge.types import Clip, Int64

Kind = Literal["video", "images", "array", "signal"]

VERSION = 1
"""Of how files are read: another one makes caches anew."""
STAMPS = "stamps.csv"
"""Beside the images of a sequence: a line ``stamp_ns`` and one number for each image."""
ENDINGS = (*VIDEOS, *IMAGES, ".npy", ".csv", ".txt")
_STAMP_BYTES = 64_000_000
_LATE_SECONDS = 0.5
"""A piece may end so much after its recording does: whoever marked it did so by hand."""


def is_media(name: str) -> bool:
    """Whether a table's cell looks like a recording: a file of a known kind, or a folder."""
    path = PurePath(name)
    return path.suffix.lower() in ENDINGS or name.endswith("/") or (not path.suffix and len(path.parts) > 1)


def kind_of(path: Path) -> Kind:
    """What a file or folder holds, by its name.

    Raises:
        DataError: Nothing that is known, or it is not there.
    """
    ending = path.suffix.lower()
    if path.is_dir():
        return "images"
    if not is_file(path):
        raise DataError(f"no file {path}", "a recording", "correct its path in the manifest, or bring it back")
    if ending in VIDEOS:
        return "video"
    if ending == ".npy":
        return "array"
    if ending in (".csv", ".txt"):
        return "signal"
    raise DataError(
        f"{path} is of a kind that is not known",
        f"one of {', '.join(ENDINGS)}, or a folder of images",
        "convert it, for example with ffmpeg",
    )


class Media:
    """Reads the files of one modality.

    Args:
        settings: What ``dataset.toml`` says of it.
        channels: 1 or 3 for pictures.
        max_height_px: Higher pictures are scaled down to this height while decoding.
    """

    def __init__(self, settings: Modality, channels: Literal[1, 3], max_height_px: int | None) -> None:
        self._settings, self._channels, self._max_height_px = settings, channels, max_height_px

    @property
    def key(self) -> str:
        """Everything beside the file that decides what is read."""
        s = self._settings
        return f"files{VERSION}-c{self._channels}-h{self._max_height_px}-f{s.fps}-r{s.rotation}-{s.rate_hz}"

    def read(self, path: Path, start_s: float = 0.0, end_s: float | None = None) -> Clip:
        """A recording, or the piece of it from ``start_s`` until before ``end_s``; stamps are 0 at its first frame.

        Returns:
            (T, H, W) or (T, H, W, 3), uint8 or uint16; a signal (T, ...) float32.

        Raises:
            DataError: Absent, damaged or shorter than the piece; the file is named.
        """
        kind = kind_of(path)
        clip = self._whole_video(path, start_s, end_s) if kind == "video" else self._cut(path, kind, start_s, end_s)
        turned = self._settings.rotation // 90 if kind != "signal" and clip.frames.ndim >= 3 else 0
        if not turned:
            return clip
        return Clip(np.ascontiguousarray(np.rot90(clip.frames, -turned, axes=(1, 2))), clip.stamps_ns)

    def probe(self, path: Path) -> Probe:
        """Length by the header, without decoding.

        Raises:
            DataError: Absent or damaged.
        """
        kind = kind_of(path)
        if kind == "video":
            info = video_info(path)
            return Probe(info.frames, max(0, info.frames - 1) / info.fps)
        if kind == "signal":
            clip = self._signal(path)
            return Probe(len(clip), clip.seconds)
        stamps = self._stamps(path, _array_length(path) if kind == "array" else len(_image_files(path)))
        return Probe(len(stamps), float(stamps[-1] - stamps[0]) / 1e9 if len(stamps) else 0.0)

    def dtype(self, path: Path) -> str:
        """Type of its values, ``uint8``, ``uint16`` or ``float32``, by its first frame.

        Raises:
            DataError: Absent or damaged.
        """
        kind = kind_of(path)
        if kind == "video":
            return video_info(path).dtype if self._channels == 1 else "uint8"
        if kind == "images":
            return str(self._image(_image_files(path)[0]).dtype)
        return "float32" if kind == "signal" else str(_opened(path).dtype)

    def _whole_video(self, path: Path, start_s: float, end_s: float | None) -> Clip:
        grey = self._channels == 1
        rate = video_info(path).fps
        stop = None if end_s is None else max(round(start_s * rate) + 1, round(end_s * rate))
        clip = read_video(path, gray=grey, start=round(start_s * rate), stop=stop, max_height_px=self._max_height_px)
        if end_s is not None:
            _check_end(path, start_s + clip.seconds + 1 / rate, end_s)
        return clip

    def _cut(self, path: Path, kind: Kind, start_s: float, end_s: float | None) -> Clip:
        if kind == "signal":
            whole = self._signal(path)
            inside = _inside(path, whole.stamps_ns, start_s, end_s)
            return Clip(whole.frames[inside], whole.stamps_ns[inside] - whole.stamps_ns[inside][0])
        files = _image_files(path) if kind == "images" else None
        frames = None if files is not None else _opened(path)
        stamps = self._stamps(path, len(files) if files is not None else len(_some(frames)))
        inside = _inside(path, stamps, start_s, end_s)
        if files is not None:
            pictures = [self._image(file) for file, wanted in zip(files, inside, strict=True) if wanted]
            if len({(p.shape, p.dtype) for p in pictures}) > 1:
                raise _damaged(path, "its images differ in size or type")
            return Clip(np.stack(pictures), stamps[inside] - stamps[inside][0])
        return Clip(np.array(_some(frames)[inside]), stamps[inside] - stamps[inside][0])

    def _signal(self, path: Path) -> Clip:
        header = _header(path)
        time = next((k for k, name in enumerate(header) if name in ("t", "time", "time_s", "stamp", "stamp_ns")), None)
        axes = 0 if time is None else 1 if time == 0 else 0
        signal = read_signal(path, Columns(axes=axes, time=time or 0, timed=time is not None), self._settings.rate_hz)
        if signal.stamps_ns is not None:
            return Clip(signal.values, signal.stamps_ns)
        stamps = np.arange(len(signal.values)) * round(1e9 / self._settings.rate_hz)
        return Clip(signal.values, stamps.astype(np.int64))

    def _image(self, file: Path) -> npt.NDArray[Any]:
        picture = read_image(file, grey=self._channels == 1)
        height = picture.shape[0]
        if self._max_height_px is None or height <= self._max_height_px:
            return picture
        cv2 = import_extra("cv2", "cpu")
        width = max(1, round(picture.shape[1] * self._max_height_px / height))
        smaller: npt.NDArray[Any] = cv2.resize(picture, (width, self._max_height_px), interpolation=cv2.INTER_AREA)
        return smaller

    def _stamps(self, path: Path, count: int) -> Int64:
        """(count,) ns: those beside the images, or evenly spaced ones."""
        beside = (path if path.is_dir() else path.parent) / STAMPS
        if path.is_dir() and is_file(beside):
            return _stamps_of(beside, count)
        return np.round(np.arange(count) * 1e9 / (self._settings.fps or DEFAULT_FPS)).astype(np.int64)


def _inside(path: Path, stamps_ns: Int64, start_s: float, end_s: float | None) -> npt.NDArray[np.bool_]:
    """Which frames lie in a piece.

    Raises:
        DataError: None does, or the piece goes on after the recording's end.
    """
    since_ns = stamps_ns - (stamps_ns[0] if len(stamps_ns) else 0)
    inside: npt.NDArray[np.bool_] = since_ns >= round(start_s * 1e9)
    if end_s is not None:
        inside &= since_ns < round(end_s * 1e9)
        _check_end(path, float(since_ns[-1]) / 1e9 if len(since_ns) else 0.0, end_s)
    if not inside.any():
        raise DataError(
            f"{path} has no frame between {start_s:g} s and {'its end' if end_s is None else f'{end_s:g} s'}",
            "a piece inside the recording",
            "correct start_s and end_s in the manifest",
        )
    return inside


def _check_end(path: Path, length_s: float, end_s: float) -> None:
    if end_s > length_s + _LATE_SECONDS:
        raise DataError(
            f"{path} ends after {length_s:.2f} s, its piece at {end_s:g} s",
            "a piece inside the recording",
            "correct end_s in the manifest",
        )


def _image_files(folder: Path) -> list[Path]:
    """A folder's images in the order of the numbers in their names; files that begin with a dot are none of them."""
    found = [p for p in folder.iterdir() if p.suffix.lower() in IMAGES and not p.name.startswith(".")]
    if not found:
        raise DataError(f"{folder} holds no image", f"one of {', '.join(IMAGES)}", "check the path")
    return sorted(found, key=lambda p: [(1, int(s)) if s.isdigit() else (0, s) for s in re.split(r"(\d+)", p.name)])


def _opened(path: Path) -> npt.NDArray[Any]:
    """An array as it lies in its file: (T, H, W[, 3]) pictures, or a signal (T, ...) of numbers."""
    try:
        open_regular(path).close()  # mapping would wait for a FIFO
        array: npt.NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    except (ValueError, OSError, EOFError) as error:
        raise _damaged(path, reason(error)) from error
    pictures = array.dtype in (np.uint8, np.uint16) and (array.ndim == 3 or array.shape[3:] == (3,))
    if not (pictures or (array.dtype.kind == "f" and array.ndim >= 2)) or 0 in array.shape:
        raise _damaged(path, f"it holds {array.dtype} {array.shape}, not (T, H, W[, 3]) of 8 or 16 bit")
    return array


def _array_length(path: Path) -> int:
    return len(_opened(path))


def _some(frames: npt.NDArray[Any] | None) -> npt.NDArray[Any]:
    assert frames is not None
    return frames


def _stamps_of(file: Path, count: int) -> Int64:
    try:
        lines = read_bytes(file, _STAMP_BYTES).decode().split()
        stamps = np.array([int(line) for line in (lines[1:] if lines[:1] == ["stamp_ns"] else lines)], dtype=np.int64)
    except (OSError, ValueError, OverflowError) as error:
        raise _damaged(file, reason(error)) from error
    if len(stamps) != count or np.any(np.diff(stamps) <= 0):
        raise _damaged(file, f"{len(stamps)} stamps for {count} images, or they do not increase")
    return stamps - stamps[0]


def _header(path: Path) -> Sequence[str]:
    try:
        with open_regular(path) as file:
            line = file.readline(4096).decode("utf-8-sig", "replace")
    except OSError as error:
        raise _damaged(path, error.strerror or reason(error)) from error
    return [name.strip().lower() for name in next(csv.reader([line]), [])]


def _damaged(path: Path, found: str) -> DataError:
    return DataError(f"{path} is damaged: {found}", "a readable recording", "fetch it again; training goes on without it")
