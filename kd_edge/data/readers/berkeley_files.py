"""Files of Berkeley MHAD: their locations, raw pictures of the sensor, and their time stamps."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kd_edge.data.readers.kinect import held, walk
from kd_edge.data.readers.sensor_files import time_unit
from kd_edge.errors import DataError, reason
from kd_edge.packages import import_extra
from kd_edge.types import Int64

LAYOUT = (
    "Camera/Cluster01/Cam01/S01/A01/R01/img_l01_c01_s01_a01_r01_00000.pgm and "
    "Accelerometer/Shimmer01/acc_h01_s01_a01_r01.txt"
)
"""Layout of the data set, for errors."""

SENSORS = 6

_LEVELS = tuple(re.compile(rf"{name}0*(\d+)", re.IGNORECASE) for name in ("Cluster", "Cam", "S", "A", "R"))
_SIGNAL = re.compile(r"acc_h(\d+)_s(\d+)_a(\d+)_r(\d+)\.txt", re.IGNORECASE)
_TIMES = re.compile(r"(?:corr_moc_img|time_stamps_img)_s(\d+)_a(\d+)_r(\d+)\.txt", re.IGNORECASE)
_PICTURE = re.compile(r".*?_?(\d+)\.(?:pgm|ppm|png|jpe?g)", re.IGNORECASE)
_JPEG_END = b"\xff\xd9"
_HEAVY = re.compile(r"Cluster\d+|Kinect|Mocap|Audio", re.IGNORECASE)  # millions of files that are not read as text


class Performance(NamedTuple):
    """One repetition of an action; its text form is ``s01_a02_r03``, as in file names."""

    subject: int
    action: int
    repetition: int

    def __str__(self) -> str:
        return f"s{self.subject:02d}_a{self.action:02d}_r{self.repetition:02d}"


class View(NamedTuple):
    """One camera."""

    cluster: int
    camera: int


class Files(NamedTuple):
    """Files of a copy of the data set.

    Attributes:
        pictures: Performance and view -> folder of pictures, never empty.
        signals: Number of the accelerometer -> performance -> file.
        times: Performance -> time stamps of its pictures, shared by all cameras.
        others: Folders of actions that are not classes of the data set.
    """

    pictures: dict[tuple[Performance, View], Path]
    signals: dict[int, dict[Performance, Path]]
    times: dict[Performance, Path]
    others: list[str]


def find_files(root: Path, actions: int) -> Files:
    """Find the recordings of actions 1 to ``actions`` without reading the pictures.

    Raises:
        DataError: The folder is missing or contains no pictures.
    """
    found = Files({}, {n: {} for n in range(1, SENSORS + 1)}, {}, [])
    for path in walk(root, f"the folder of Berkeley MHAD, with {LAYOUT}", _HEAVY):
        if match := _SIGNAL.fullmatch(path.name):
            sensor, performance = int(match[1]), Performance(*map(int, match.groups()[1:]))
            if sensor in found.signals and 1 <= performance.action <= actions:
                found.signals[sensor].setdefault(performance, path)
        elif match := _TIMES.fullmatch(path.name):
            found.times.setdefault(Performance(*map(int, match.groups())), path)
    for (cluster, camera, *performed), folder in _folders(root):
        performance = Performance(*performed)
        if not 1 <= performance.action <= actions:
            found.others.append(folder.relative_to(root).as_posix())
        else:
            found.pictures.setdefault((performance, View(cluster, camera)), folder)
    if not found.pictures:
        what = "accelerometers, but no pictures" if any(found.signals.values()) else held(root)
        raise DataError(
            f"no Berkeley MHAD pictures in {root} (it contains {what})",
            LAYOUT,
            "give the data set's own folder as --data, or one that contains it as berkeley-mhad/",
        )
    return found


def picture_files(folder: Path) -> dict[int, Path]:
    """Return the pictures of one clip in order, by the last number in their names.

    Raises:
        DataError: The folder contains no picture.
    """
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise DataError(f"cannot read {folder} ({error.strerror})", "a folder of pictures", "fetch it again") from error
    numbered = {int(match[1]): folder / match[0] for match in map(_PICTURE.fullmatch, names) if match}
    if not numbered:
        raise DataError(f"no picture in {folder}", "img_*_00000.pgm and so on", "fetch this folder again")
    return dict(sorted(numbered.items()))


def listing_key(folder: Path) -> str:
    """Return the SHA-256 (hex) of the names, sizes and modification times of a folder's pictures.

    Their content is not read, because the pictures of the whole data set take half a terabyte.

    Raises:
        DataError: The folder contains no picture.
    """
    digest = hashlib.sha256()
    for path in picture_files(folder).values():
        stat = path.stat()
        digest.update(f"{path.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def read_pictures(paths: Sequence[Path], max_height_px: int) -> npt.NDArray[np.uint8]:
    """Read pictures of one size as (T, H, W, 3) uint8, R, G, B; higher ones are scaled down (area average).

    A ``.pgm`` is a raw Bayer picture: green and red alternate on the first line, blue and green on the second, as in
    the data set's own demonstration. Other grayscale pictures stay gray.

    Raises:
        DataError: A picture cannot be decoded or differs in size; the message names it.
    """
    first = _picture(paths[0], max_height_px)
    images = np.empty((len(paths), *first.shape), np.uint8)
    for n, path in enumerate(paths):
        image = _picture(path, max_height_px) if n else first
        if image.shape != first.shape:
            raise _damaged(path, f"it is {image.shape[1]} x {image.shape[0]}, the first one is not")
        images[n] = image
    return images


def frame_stamps(times: Path | None, numbers: Sequence[int], fps: float) -> tuple[Int64, float | None]:
    """Return the stamps of a clip's pictures.

    Args:
        times: Text file with a line per picture: number, time, and further fields; None without one.
        numbers: Numbers of the clip's pictures, increasing.
        fps: Nominal frame rate, 1/s.

    Returns:
        ((T,) int64 stamps in ns, 0 at the first; its time on the file's clock in seconds). If the file lacks one of the
        pictures, or its times do not increase or differ from the nominal rate by more than half of it: stamps by number
        at the nominal rate, and None.

    Raises:
        DataError: The file contains anything but numbers.
    """
    known = _read_times(times, fps) if times is not None else {}
    if all(number in known for number in numbers):
        seconds = np.array([known[number] for number in numbers])
        return np.round((seconds - seconds[0]) * 1e9).astype(np.int64), float(seconds[0])
    steps = np.array(numbers, dtype=np.int64) - numbers[0]
    return np.round(steps / fps * 1e9).astype(np.int64), None


def _read_times(path: Path, fps: float) -> dict[int, float]:
    """Number of a picture -> seconds; empty if the times are implausible."""
    rows = []
    for line, text in enumerate(_lines(path), 1):
        fields = text.replace(",", " ").split()
        try:
            rows += [(float(fields[0]), float(fields[1]))] if fields else []
        except (ValueError, IndexError) as error:
            raise DataError(
                f"{path}, line {line}: '{text.strip()[:80]}'", "number and time of a picture", "fetch this file again"
            ) from error
    if len(rows) < 2 or not np.isfinite(rows).all():
        return {}
    numbers, seconds = np.array(rows).T
    seconds = seconds * time_unit(seconds, fps)
    steps, differences = np.diff(seconds), np.diff(numbers)
    if not (np.all(steps > 1e-6) and np.all(differences > 0)):
        return {}
    rate = float(np.median(differences / steps))
    if not fps / 1.5 <= rate <= fps * 1.5:  # motion capture frame numbers, read as ms, would give twice the rate
        return {}
    return {int(number): float(time) for number, time in zip(numbers, seconds, strict=True)}


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path} ({error})", "a text file", "fetch this file again") from error


def _folders(folder: Path, numbers: tuple[int, ...] = ()) -> Iterator[tuple[tuple[int, ...], Path]]:
    """Yield (cluster, camera, subject, action, repetition) and folder of every non-empty recording."""
    if len(numbers) == len(_LEVELS):
        with os.scandir(folder) as entries:
            if next(entries, None) is not None:
                yield numbers, folder
        return
    for inside in sorted(folder.iterdir()):
        match = _LEVELS[len(numbers)].fullmatch(inside.name)
        if match is not None and inside.is_dir():
            yield from _folders(inside, (*numbers, int(match[1])))
        elif not numbers and inside.name.lower() == "camera" and inside.is_dir():
            yield from _folders(inside)


def _picture(path: Path, max_height_px: int) -> npt.NDArray[np.uint8]:
    """One picture, (H, W, 3) uint8."""
    cv2 = import_extra("cv2", "cpu")
    try:
        content = np.fromfile(path, np.uint8)
        if path.suffix.lower() in (".jpg", ".jpeg") and _JPEG_END not in content[-64:].tobytes():
            raise _damaged(path, "it is truncated")  # the decoder would fill the rest with gray
        image = cv2.imdecode(content, cv2.IMREAD_UNCHANGED) if content.size else None
    except (OSError, cv2.error) as error:
        raise _damaged(path, reason(error)) from error
    if image is None or image.dtype != np.uint8 or min(image.shape[:2]) < 2:
        raise _damaged(path, "it is not a picture of 8 bits per value")
    if image.ndim == 2:
        raw = path.suffix.lower() == ".pgm"
        image = cv2.cvtColor(image, cv2.COLOR_BayerGB2RGB if raw else cv2.COLOR_GRAY2RGB)
    else:
        image = cv2.cvtColor(image[:, :, :3], cv2.COLOR_BGR2RGB)
    if image.shape[0] > max_height_px:
        width = max(1, round(image.shape[1] * max_height_px / image.shape[0]))
        image = cv2.resize(image, (width, max_height_px), interpolation=cv2.INTER_AREA)
    result: npt.NDArray[np.uint8] = image
    return result


def _damaged(path: Path, found: str) -> DataError:
    return DataError(f"{path} is damaged: {found}", "a picture", "fetch it again; training continues without its clip")
