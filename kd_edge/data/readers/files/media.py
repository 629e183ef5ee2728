"""Readers of recorded files: videos, folders of images, arrays and signals, each read as one clip."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from kd_edge.data.dataset import Probe
from kd_edge.data.readers.arrays import mapped
from kd_edge.data.readers.bounds import check_pixels
from kd_edge.data.readers.colours import is_grey
from kd_edge.data.readers.files.settings import DEFAULT_FPS, Modality
from kd_edge.data.readers.images import read_image, sequence, sequence_names
from kd_edge.data.readers.kinds import kind_of
from kd_edge.data.readers.pages import ENDINGS as PAGES
from kd_edge.data.readers.pages import Pages, is_tiff
from kd_edge.data.readers.sensor_files import Columns, read_signal
from kd_edge.data.readers.sidecar import read_stamps
from kd_edge.data.readers.video import VIDEOS, decoder_key, iterate_video, read_video, video_info
from kd_edge.errors import DataError, printable, reason
from kd_edge.packages import import_extra
from kd_edge.reading import is_file, open_regular
from kd_edge.types import Clip, Image, Int64

Kind = Literal["video", "images", "array", "signal"]

VERSION = 2
"""Version of the reading code; part of the cache keys, so that changing it rebuilds caches."""
ANY_HEIGHT_PX = 1 << 16
"""A height limit that no picture exceeds."""
STAMPS = "stamps.csv"
"""File next to the images of a sequence: a line ``stamp_ns`` and one number per image."""
TEXTS = (".csv", ".txt")
"""Suffixes of files that are read as signals."""
ENDINGS = (*VIDEOS, ".npy", *PAGES, *TEXTS)
MOST_BYTES = 4_000_000_000
"""Limit for one decoded clip: two minutes of colour at 640 x 480 and 30 frames per second."""
_AXES = ("x", "y", "z")
_TIMES = ("t", "time", "time_s", "timestamp", "stamp", "stamp_ns")
LATE_SECONDS = 0.5
"""How long after its recording a piece may end, because pieces are marked by hand."""
_SAME_NS = 500_000  # stamps are often given in milliseconds


class Values(NamedTuple):
    """Type of a file's content.

    Attributes:
        dtype: ``uint8`` or ``uint16`` for pictures, ``float32`` for signals.
        is_picture: Whether the file contains pictures.
        axes: Number of axes of a signal (T, axes); 0 for anything else.
    """

    dtype: str
    is_picture: bool
    axes: int = 0


class Header(NamedTuple):
    """Header of a recording; no picture is decoded except the first of a folder of images.

    Attributes:
        frames: Number of frames; 0 if the header lacks it.
        seconds: Time from the first to the last frame.
        fps: Frames per second; 0 for fewer than two frames.
        dtype: Type of a value.
        size: Height and width in pixels, after the configured rotation; None for signals.
    """

    frames: int
    seconds: float
    fps: float
    dtype: str
    size: tuple[int, int] | None


class Stills(NamedTuple):
    """Pictures that are read lazily by index.

    Attributes:
        stamps_ns: (T,) time since the first picture, increasing.
        picture: Returns the picture of an index as ``Media.read`` does; raises a DataError if it is damaged.
    """

    stamps_ns: Int64
    picture: Callable[[int], Image]


class Media:
    """Reads the files of one modality.

    Args:
        settings: Its settings in ``dataset.toml``.
        channels: 1 or 3 for pictures.
        max_height_px: Higher pictures are scaled down to this height while decoding.
    """

    def __init__(self, settings: Modality, channels: Literal[1, 3], max_height_px: int) -> None:
        self._settings, self._channels, self._max_height_px = settings, channels, max_height_px

    @property
    def channels(self) -> Literal[1, 3]:
        """Number of channels of the pictures."""
        return self._channels

    @property
    def key(self) -> str:
        """Everything except the file that determines the result of reading."""
        settings = self._settings.model_dump_json(exclude={"joint"})  # for skeletons only: see ``Skeletons.key``
        return f"files{VERSION}-c{self._channels}-h{self._max_height_px}-{settings}-{decoder_key()}"

    def read(self, path: Path, start_s: float = 0.0, end_s: float | None = None) -> Clip:
        """Read a recording, or its piece from ``start_s`` up to, excluding, ``end_s``; stamps begin at 0.

        Returns:
            (T, H, W) or (T, H, W, 3), uint8 or uint16; a signal (T, ...) float32.

        Raises:
            DataError: The file is missing, damaged or shorter than the piece.
        """
        kind = _kind_of(path)
        if kind == "signal":
            return _cut(path, self._signal(path), start_s, end_s)
        if kind == "video":
            clip = self._video(path, start_s, end_s)
        elif kind == "images":
            clip = self._images(path, start_s, end_s)
        else:
            clip = self._array(path, start_s, end_s)
        if not self._settings.rotation or clip.frames.dtype.kind != "u":
            return clip
        return Clip(self.upright(clip.frames), clip.stamps_ns)

    def upright(self, frames: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Rotate pictures (T, H, W[, 3]) as configured."""
        return np.ascontiguousarray(np.rot90(frames, -self._settings.rotation // 90, axes=(1, 2)))

    def stills(self, path: Path) -> Stills | None:
        """Return the pictures of a folder of images or of an array for lazy reading; None for a video.

        Raises:
            DataError: The file is missing, damaged or contains no pictures.
        """
        kind = _kind_of(path)
        if kind == "video":
            return None
        if kind == "images":
            names = sequence_names(path)
            stamps = self._stamps(path, len(names))
            return Stills(stamps, lambda number: self._still(path, self._image(path / names[number])))
        frames = _opened(path) if kind == "array" else None
        if frames is None or frames.dtype.kind != "u":
            raise DataError(f"{path} is a signal", "pictures", "choose another modality")
        return Stills(self._stamps(path, len(frames)), lambda number: self._still(path, np.array(frames[number])))

    def _still(self, path: Path, stored: npt.NDArray[Any]) -> Image:
        try:
            picture: Image = self.upright(self._fitting(stored)[None])[0]
        except ValueError as error:
            raise _damaged(path, reason(error)) from error
        return picture

    def probe(self, path: Path) -> Probe:
        """Read the length from the header, without decoding pictures.

        Raises:
            DataError: The file is missing or damaged.
        """
        kind = _kind_of(path)
        if kind == "video":
            info = video_info(path)
            frames = info.frames or round(info.seconds * info.fps)
            return Probe(frames, max(0, frames - 1) / info.fps)
        if kind == "signal":
            clip = self._signal(path)
            return Probe(len(clip), clip.seconds)
        stamps = self._stamps(path, len(_opened(path)) if kind == "array" else len(sequence_names(path)))
        return Probe(len(stamps), float(stamps[-1] - stamps[0]) / 1e9)

    def header(self, path: Path) -> Header:
        """Return the results of ``probe`` and ``values`` and the size of the pictures, opening the file once.

        Raises:
            DataError: The file is missing or damaged.
        """
        kind = _kind_of(path)
        if kind == "video":
            info = video_info(path)
            frames = info.frames or round(info.seconds * info.fps)
            size = self._turned((info.height_px, info.width_px))
            return Header(frames, max(0, frames - 1) / info.fps, info.fps, info.dtype, size)
        if kind == "signal":
            clip = self._signal(path)
            return Header(len(clip), clip.seconds, rate_of(len(clip), clip.seconds), "float32", None)
        if kind == "images":
            names = sequence_names(path)
            stamps, first = self._stamps(path, len(names)), self._image(path / names[0])
        else:
            first, count = _first_of(path)
            stamps = self._stamps(path, count)
        seconds = float(stamps[-1] - stamps[0]) / 1e9
        is_picture = first.dtype.kind == "u"
        shape = self._turned((first.shape[0], first.shape[1])) if is_picture else None
        dtype = str(first.dtype) if is_picture else "float32"
        return Header(len(stamps), seconds, rate_of(len(stamps), seconds), dtype, shape)

    def _turned(self, size: tuple[int, int]) -> tuple[int, int]:
        return size[::-1] if self._settings.rotation % 180 else size

    def values(self, path: Path) -> Values:
        """Return the type of the file's content, judged by its first frame.

        Raises:
            DataError: The file is missing or damaged.
        """
        kind = _kind_of(path)
        if kind == "video":
            return Values(video_info(path).dtype, is_picture=True)
        if kind == "images":
            return Values(str(self._image(_image_files(path)[0]).dtype), is_picture=True)
        if kind == "signal":
            return Values("float32", is_picture=False, axes=3)
        array = _opened(path)
        if array.dtype.kind == "u":
            return Values(str(array.dtype), is_picture=True)
        return Values("float32", is_picture=False, axes=array.shape[1] if array.ndim == 2 else 0)

    def _video(self, path: Path, start_s: float, end_s: float | None) -> Clip:
        info, grey = video_info(path), self._channels == 1
        if info.dtype == "uint16" and info.channels < self._channels:
            raise DataError(
                f"{path} is grey of more than 8 bit", "colour, the band of its modality", "set band in dataset.toml"
            )
        if info.seconds:
            _check_piece(path, info.seconds, start_s, end_s)
        seconds = (max(info.seconds, info.frames / info.fps) if end_s is None else end_s) - start_s
        scale = min(1.0, self._max_height_px / min(info.height_px, info.width_px))  # it may be rotated
        pixels = info.height_px * info.width_px * scale**2
        _check_size(path, seconds * info.fps * pixels * self._channels * np.dtype(info.dtype).itemsize)
        return read_video(path, gray=grey, start_s=start_s, end_s=end_s, max_height_px=self._max_height_px, whole=True)

    def _images(self, path: Path, start_s: float, end_s: float | None) -> Clip:
        files = _image_files(path)
        stamps = self._stamps(path, len(files))
        inside = _inside(path, stamps, start_s, end_s)
        chosen = [file for file, wanted in zip(files, inside, strict=True) if wanted]
        _check_size(path, len(chosen) * self._image(chosen[0]).nbytes)
        pictures = [self._image(file) for file in chosen]
        if len({(picture.shape, picture.dtype) for picture in pictures}) > 1:
            raise _damaged(path, "its images differ in size or type")
        return _starting_at_zero(np.stack(pictures), stamps[inside])

    def _array(self, path: Path, start_s: float, end_s: float | None) -> Clip:
        frames = _opened(path)
        stamps = self._stamps(path, len(frames))
        inside = _inside(path, stamps, start_s, end_s)
        _check_size(path, int(inside.sum()) * frames[0].nbytes)
        if isinstance(frames, np.ndarray) and frames.dtype.kind == "f":
            return _starting_at_zero(np.array(frames[inside], dtype=np.float32), stamps[inside])
        try:
            pictures = [self._fitting(np.array(frames[int(k)])) for k in np.flatnonzero(inside)]
        except ValueError as error:
            raise _damaged(path, reason(error)) from error
        return _starting_at_zero(np.stack(pictures), stamps[inside])

    def _signal(self, path: Path) -> Clip:
        signal = read_signal(path, _columns(path, self._settings.columns), self._settings.rate_hz)
        regular_ns = np.round(np.arange(len(signal.values)) * 1e9 / self._settings.rate_hz).astype(np.int64)
        return Clip(signal.values, regular_ns if signal.stamps_ns is None else signal.stamps_ns)

    def _image(self, file: Path) -> npt.NDArray[Any]:
        return self._fitting(read_image(file, grey=self._channels == 1))

    def _fitting(self, picture: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Convert a picture to the modality's channels and scale it down to the height limit."""
        height, width = picture.shape[:2]
        cv2 = import_extra("cv2", "cpu")
        if picture.ndim == 3 and self._channels == 1:
            picture = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        elif picture.ndim == 2 and self._channels == 3:
            picture = cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB)
        if height <= self._max_height_px:
            return picture
        size = (max(1, round(width * self._max_height_px / height)), self._max_height_px)
        smaller: npt.NDArray[Any] = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        return smaller

    def _stamps(self, path: Path, count: int) -> Int64:
        """(count,) ns: the stamps in the folder of images, or evenly spaced ones."""
        if path.is_dir() and is_file(path / STAMPS):
            return _stamps_of(path / STAMPS, count)
        return np.round(np.arange(count) * 1e9 / (self._settings.fps or DEFAULT_FPS)).astype(np.int64)


def deep_or_grey(path: Path) -> Literal["deep", "grey", ""]:
    """Whether a recording's first picture is grey of more than 8 bit, grey (also as equal channels), or neither.

    Raises:
        DataError: The file is missing or damaged.
    """
    kind = _kind_of(path)
    if kind == "signal":
        return ""
    if kind == "video":
        info = video_info(path)
        if info.dtype == "uint16":
            return "deep" if info.channels == 1 else ""
        first = next((frame.image for frame in iterate_video(path, stop=1)), None)
        if first is None:
            raise _damaged(path, "it contains no picture")
    else:
        first = read_image(_image_files(path)[0]) if kind == "images" else _first_of(path)[0]
    if first.dtype == np.uint16 and first.ndim == 2:
        return "deep"
    grey = first.dtype == np.uint8 and (
        first.ndim == 2 or int(np.ptp(first.astype(np.int16), axis=2).max()) <= 2 or is_grey(first)
    )
    return "grey" if grey else ""


def _first_of(path: Path) -> tuple[npt.NDArray[Any], int]:
    """The first frame of an array or of pages, and the number of frames."""
    opened = _opened(path)
    try:
        return np.array(opened[0]), len(opened)
    finally:
        if isinstance(opened, Pages):
            opened.close()


def rate_of(frames: int, seconds: float) -> float:
    """Frames per second; 0 for fewer than two frames."""
    return round((frames - 1) / seconds, 3) if seconds > 0 else 0.0


def _kind_of(path: Path) -> Kind:
    """Kind of a file or folder: signals are recognised by suffix, others by content.

    Raises:
        DataError: The file is missing or of an unknown kind.
    """
    if path.is_dir():
        return "images"
    if not is_file(path):
        raise DataError(f"no file {path}", "a recording", "correct its path in the manifest, or restore the file")
    if path.suffix.lower() in TEXTS:
        return "signal"
    try:
        kind = kind_of(path)
    except OSError as error:
        raise _damaged(path, error.strerror or reason(error)) from error
    if kind in ("array", "pages"):
        return "array"
    if kind == "video":
        return "video"
    raise DataError(
        f"{path} is of an unknown kind",
        f"one of {', '.join(ENDINGS)}, or a folder of images",
        "convert it, for example with ffmpeg",
    )


def _cut(path: Path, clip: Clip, start_s: float, end_s: float | None) -> Clip:
    inside = _inside(path, clip.stamps_ns, start_s, end_s)
    return _starting_at_zero(clip.frames[inside], clip.stamps_ns[inside])


def _starting_at_zero(frames: npt.NDArray[Any], stamps_ns: Int64) -> Clip:
    """Return a clip whose stamps begin at 0."""
    return Clip(frames, stamps_ns - stamps_ns[0])


def _inside(path: Path, stamps_ns: Int64, start_s: float, end_s: float | None) -> npt.NDArray[np.bool_]:
    """Mask of the frames inside a piece.

    Raises:
        DataError: There are none, or the piece extends past the end of the recording.
    """
    since_ns = stamps_ns - stamps_ns[0]
    _check_piece(path, float(since_ns[-1]) / 1e9, start_s, end_s)
    inside: npt.NDArray[np.bool_] = since_ns >= round(start_s * 1e9) - _SAME_NS
    if end_s is not None:
        inside &= since_ns < round(end_s * 1e9) - _SAME_NS
    if not inside.any():
        raise _beyond(path, float(since_ns[-1]) / 1e9, start_s, end_s)
    return inside


def _check_piece(path: Path, length_s: float, start_s: float, end_s: float | None) -> None:
    if start_s > length_s or (end_s is not None and end_s > length_s + LATE_SECONDS):
        raise _beyond(path, length_s, start_s, end_s)


def _beyond(path: Path, length_s: float, start_s: float, end_s: float | None) -> DataError:
    piece = f"{start_s:g} s to {'its end' if end_s is None else f'{end_s:g} s'}"
    return DataError(
        f"{path} lasts {length_s:.2f} s, its piece extends from {piece}",
        "a piece inside the recording, with a frame in it",
        "correct start_s and end_s in the manifest",
    )


def _check_size(path: Path, wanted_bytes: float) -> None:
    """Raise a DataError if a clip is too large; clips are held in memory as a whole."""
    if wanted_bytes > MOST_BYTES:
        raise DataError(
            f"{path} as one clip takes {wanted_bytes / 1e9:.1f} GB",
            f"clips of at most {MOST_BYTES / 1e9:g} GB",
            "cut it into pieces in a manifest (start_s, end_s)",
        )


def _image_files(folder: Path) -> list[Path]:
    """A folder's images in the order of the numbers in their names; names that begin with a dot are skipped."""
    return sequence(folder)


def _opened(path: Path) -> npt.NDArray[Any] | Pages:
    """Open an array as stored: (T, H, W[, 3]) pictures, or a signal (T, ...) of numbers."""
    try:
        with open_regular(path) as file:
            has_pages = is_tiff(file.read(4))
        array = Pages(path) if has_pages else mapped(path)
    except (ValueError, OSError) as error:
        raise _damaged(path, reason(error)) from error
    is_picture = array.dtype in (np.uint8, np.uint16) and (array.ndim == 3 or array.shape[3:] == (3,))
    if 0 in array.shape or not (is_picture or (array.dtype.kind == "f" and array.ndim >= 2)):
        expected = "uint8 or uint16 (T, H, W[, 3]), or a signal (T, N) of floats"
        raise _damaged(path, f"it contains {array.dtype} {array.shape}, not {expected}")
    if is_picture:
        try:
            check_pixels(array.shape[2], array.shape[1])
        except ValueError as error:
            raise _damaged(path, str(error)) from error
    return array


def _stamps_of(file: Path, count: int) -> Int64:
    try:
        stamps = read_stamps(file)
    except (OSError, ValueError) as error:
        raise _damaged(file, reason(error)) from error
    if len(stamps) != count:
        raise _damaged(file, f"{len(stamps)} stamps for {count} images")
    return stamps


def _columns(path: Path, wanted: tuple[str, ...] | None) -> Columns:
    """Find the columns of a signal's axes and its time.

    Args:
        path: The file; without a header line it has three axes, optionally followed by the time.
        wanted: Names of the axes; None takes the only three columns besides the time.

    Raises:
        DataError: There are further columns, or the wanted ones are missing or not adjacent.
    """
    names = _names(path)
    time = next((k for k, name in enumerate(names) if name in _TIMES), None)
    if not names and wanted is None:
        return Columns(axes=0, time=len(_AXES), timed=False)
    if wanted is None:
        others = [k for k in range(len(names)) if k != time]
        found = others[0] if len(others) == len(_AXES) and others[-1] - others[0] == 2 else None
    else:
        axes = [name.strip().lower() for name in wanted]
        found = next((k for k in range(len(names)) if names[k : k + len(axes)] == axes), None)
    if found is None:
        shown = printable(", ".join(names[:20]))
        raise DataError(
            f"{path} has {f'the columns {shown}' if shown else 'columns without names'}",
            f"the axes {', '.join(wanted or _AXES)} next to each other, and the time",
            "name the three axes in dataset.toml: columns = ['x', 'y', 'z'] below the modality",
        )
    return Columns(found, len(names) if time is None else time, time is not None)


def _names(path: Path) -> list[str]:
    """Names of the columns in lower case; empty if the first line contains numbers."""
    try:
        with open_regular(path) as file:
            line = file.readline(4096).decode("utf-8-sig", "replace")
    except OSError as error:
        raise _damaged(path, error.strerror or reason(error)) from error
    cells = next(csv.reader([line]), []) if "," in line else line.split()
    names = [name.strip().lower() for name in cells]
    return [] if any(map(_is_number, names)) else names


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _damaged(path: Path, found: str) -> DataError:
    return DataError(
        f"{path} is damaged: {found}", "a readable recording", "fetch it again; training continues without it"
    )
