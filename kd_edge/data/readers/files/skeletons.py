"""Recorded skeletons (joints over time) and the pictures of coloured limbs drawn from them."""

from __future__ import annotations

import colorsys
import csv
import io
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from kd_edge.data.dataset import Probe
from kd_edge.data.readers.files.media import TEXTS, Header, Media, Values, rate_of
from kd_edge.data.readers.files.settings import DEFAULT_FPS, Modality
from kd_edge.data.readers.sensor_files import increasing, time_unit
from kd_edge.errors import DataError, reason
from kd_edge.packages import import_extra
from kd_edge.reading import read_bytes
from kd_edge.types import Clip, Float32, Int64

SKELETON, DRAWN = "skeleton", "pose"
"""The modality of joints, and the one of pictures drawn from them."""
ENDINGS = (".json",)
"""Suffixes of skeleton files in addition to those of arrays and signals."""
VERSION = 2
"""Version of reading and drawing; part of the cache keys."""
HEIGHT, WIDTH = 240, 320
_MOST_BYTES = 64_000_000
_MOST_JOINTS = 1000
_TIMES = ("t", "time", "time_s", "timestamp", "stamp", "stamp_ns")
_JOINTS = {2: "xy", 3: "xyz", 4: "xyzc"}
"""Meaning of a joint's values by their number."""
_MARGIN = 0.1  # share of the picture left free on each side of the joints' extent in the clip
_SHIFT = 4  # sub-pixel bits of OpenCV's drawing

_KINECT_1 = "0-1 1-2 2-3 1-4 4-5 5-6 6-7 3-12 12-13 13-14 14-15 1-8 8-9 9-10 10-11 3-16 16-17 17-18 18-19"
_KINECT_2 = (
    "0-1 1-20 20-2 2-3 20-4 4-5 5-6 6-7 7-22 22-21 20-8 8-9 9-10 10-11 11-24 24-23 0-12 12-13 13-14 14-15 0-16 16-17 "
    "17-18 18-19"
)
_COCO = "0-1 0-2 1-3 2-4 5-6 5-7 7-9 6-8 8-10 5-11 6-12 11-12 11-13 13-15 12-14 14-16"
_HAND = "0-1 1-2 2-3 3-4 0-5 5-6 6-7 7-8 5-9 9-10 10-11 11-12 9-13 13-14 14-15 15-16 13-17 0-17 17-18 18-19 19-20"
_MEDIAPIPE = (
    "0-1 1-2 2-3 3-7 0-4 4-5 5-6 6-8 9-10 11-12 11-13 13-15 15-17 15-19 15-21 17-19 12-14 14-16 16-18 16-20 16-22 "
    "18-20 11-23 12-24 23-24 23-25 24-26 25-27 26-28 27-29 28-30 29-31 30-32 27-31 28-32"
)
_LAYOUTS = {20: _KINECT_1, 25: _KINECT_2, 17: _COCO, 21: _HAND, 33: _MEDIAPIPE}
"""Limbs by the number of joints: Kinect; Kinect v2 and NTU RGB+D; COCO; MediaPipe's hand and body."""


class Skeletons(Media):
    """Reads joints from ``.npy``, ``.csv`` with three columns per joint (or as set by ``joint``), or ``.json``.

    A ``.csv`` may have a header, and then a column of times before the joints. A ``.json`` is a list of frames, each a
    list of joints, each a list of numbers; or an object with that list as ``joints`` and optionally ``stamp_ns``. A
    joint counts as not seen if a value is ``nan`` or ``null``, if it is at 0, 0, 0, or if its confidence is 0.

    The result has the axes of all skeletons in kd-edge: x to the right, y up, z away from the camera. In recordings of
    three axes z is their own z or, if that points up, the axis perpendicular to both; with two axes, such as key points
    in a picture, z is 0.

    Args:
        settings: Settings of the skeletons in ``dataset.toml``.
    """

    def __init__(self, settings: Modality) -> None:
        super().__init__(settings, 1, HEIGHT)
        self._fps = settings.fps or DEFAULT_FPS

    @property
    def key(self) -> str:
        """See ``Media.key``."""
        return f"{super().key}-{self._settings.joint or 'joint'}-skeleton{VERSION}"

    def read(self, path: Path, start_s: float = 0.0, end_s: float | None = None) -> Clip:
        """See ``Media.read``; (T, J, 3) float32: x right, y up, z away; NaN if a joint was not seen."""
        clip = self._stored(path, start_s, end_s)
        kind = self._settings.joint or _JOINTS[clip.frames.shape[2]]
        if len(kind) != clip.frames.shape[2]:
            raise _damaged(path, f"a joint has {clip.frames.shape[2]} numbers, not {kind} as set in dataset.toml")
        return Clip(upright(clip.frames, kind, self._settings.up), clip.stamps_ns)

    def _stored(self, path: Path, start_s: float, end_s: float | None) -> Clip:
        """(T, J, 2 to 4) float32 joints as stored in the file."""
        if path.suffix.lower() not in (*TEXTS, *ENDINGS):
            return _checked(path, super().read(path, start_s, end_s))
        joints, stamps = self._text(path)
        since = stamps - stamps[0]
        inside = since >= round(start_s * 1e9)
        if end_s is not None:
            inside &= since < round(end_s * 1e9)
        if not inside.any():
            raise DataError(
                f"{path} lasts {since[-1] / 1e9:.2f} s, its piece begins at {start_s:g} s",
                "a piece inside the recording",
                "correct start_s and end_s in the manifest",
            )
        return _checked(path, Clip(joints[inside], stamps[inside] - stamps[inside][0]))

    def probe(self, path: Path) -> Probe:
        """See ``Media.probe``."""
        if path.suffix.lower() not in (*TEXTS, *ENDINGS):
            return super().probe(path)
        stamps = self._text(path)[1]
        return Probe(len(stamps), float(stamps[-1] - stamps[0]) / 1e9)

    def header(self, path: Path) -> Header:
        """See ``Media.header``."""
        length = self.probe(path)
        return Header(length.frames, length.seconds, rate_of(length.frames, length.seconds), "float32", None)

    def values(self, path: Path) -> Values:
        """See ``Media.values``; a skeleton is neither a picture nor a signal of three axes."""
        if path.suffix.lower() in (*TEXTS, *ENDINGS):
            self._text(path)
        else:
            super().values(path)
        return Values("float32", is_picture=False)

    def _text(self, path: Path) -> tuple[Float32, Int64]:
        """(T, J, 3) and (T,) ns of a text file."""
        try:
            content = read_bytes(path, _MOST_BYTES).decode("utf-8-sig")
            joints, stamps = (
                _of_json(content)
                if path.suffix.lower() in ENDINGS
                else _of_csv(content, self._fps, len(self._settings.joint or "xyz"))
            )
        except (OSError, ValueError, TypeError, RecursionError, OverflowError, csv.Error) as error:
            raise _damaged(path, getattr(error, "strerror", None) or reason(error)) from error
        if joints.ndim != 3 or 0 in joints.shape:
            raise _damaged(path, f"it contains {joints.shape} numbers, not (T, J, 3)")
        if stamps is None:
            return joints, np.round(np.arange(len(joints)) * 1e9 / self._fps).astype(np.int64)
        if stamps.shape != joints.shape[:1] or np.any(np.diff(stamps) <= 0):
            raise _damaged(path, f"{len(joints)} frames and stamps {stamps.shape}, not one increasing stamp per frame")
        return joints, stamps


class Drawn(Media):
    """Reads skeletons as drawn pictures (T, 240, 320, 3) uint8.

    Args:
        skeletons: Reader of the skeletons.
        settings: Settings of the skeletons in ``dataset.toml``; ``limbs`` is used.
    """

    def __init__(self, skeletons: Skeletons, settings: Modality) -> None:
        super().__init__(settings, 3, HEIGHT)
        self._skeletons, self._limbs = skeletons, settings.limbs

    @property
    def key(self) -> str:
        """See ``Media.key``."""
        return f"{self._skeletons.key}-drawn{VERSION}"

    def read(self, path: Path, start_s: float = 0.0, end_s: float | None = None) -> Clip:
        """See ``Media.read``."""
        clip = self._skeletons.read(path, start_s, end_s)
        return Clip(draw(clip.frames, self._limbs), clip.stamps_ns)

    def probe(self, path: Path) -> Probe:
        """See ``Media.probe``."""
        return self._skeletons.probe(path)

    def header(self, path: Path) -> Header:
        """See ``Media.header``."""
        return self._skeletons.header(path)._replace(dtype="uint8", size=(HEIGHT, WIDTH))

    def values(self, path: Path) -> Values:
        """See ``Media.values``."""
        self._skeletons.values(path)
        return Values("uint8", is_picture=True)


def upright(joints: Float32, kind: str, up: str) -> Float32:
    """Convert recorded joints to the common axes: x right, y up, z away.

    Args:
        joints: (T, J, 2 to 4); joints that were not seen are not finite, 0 on every axis or have a confidence of 0.
        kind: Meaning of a joint's values: ``xy``, ``xyc``, ``xyz`` or ``xyzc``.
        up: Axis that points upwards: ``y``, ``-y``, ``z`` or ``-z``; ``y`` or ``-y`` for two axes.

    Returns:
        (T, J, 3) float32; NaN if not seen.
    """
    axes = len(kind.removesuffix("c"))
    position = joints[..., :axes]
    is_seen = np.isfinite(position).all(axis=-1) & (position != 0).any(axis=-1)
    if kind.endswith("c"):
        is_seen &= joints[..., -1] > 0
    sign = -1 if up.startswith("-") else 1
    x, y = position[..., 0], position[..., 1]
    if axes == 2:
        rotated = (x, sign * y, np.zeros_like(x))
    elif up.endswith("z"):
        rotated = (x, sign * position[..., 2], sign * y)
    else:
        rotated = (x, sign * y, position[..., 2])
    seen: Float32 = np.where(is_seen[..., None], np.stack(rotated, axis=-1), np.float32(np.nan))
    return seen


def draw(
    joints: npt.NDArray[np.floating[Any]],
    limbs: tuple[tuple[int, int], ...] | None = None,
    up: Literal["y", "-y", "z", "-z"] = "y",
) -> npt.NDArray[np.uint8]:
    """Draw skeletons seen from the front, at one scale that fits the whole clip.

    Args:
        joints: (T, J, 2 or more) in any unit; x points to the right.
        limbs: Pairs of joints; None uses the usual layout of that number of joints, or draws dots if there is none.
        up: Axis that points upwards; ``-y`` in pictures, whose rows count downwards.

    Returns:
        (T, 240, 320, 3) uint8 on a black background, each limb in its own colour.
    """
    cv2 = import_extra("cv2", "cpu")
    pairs = _limbs(joints.shape[1]) if limbs is None else limbs
    pixels, is_seen = _placed(joints, up)
    points = np.round(np.where(is_seen[..., None], pixels, 0) * (1 << _SHIFT)).astype(np.int32)
    images = np.zeros((len(joints), HEIGHT, WIDTH, 3), dtype=np.uint8)
    colours = [_colour(k, len(pairs)) for k in range(len(pairs))]
    for image, corners, seen in zip(images, points.tolist(), is_seen, strict=True):
        for (a, b), colour in zip(pairs, colours, strict=True):
            if max(a, b) < len(seen) and seen[a] and seen[b]:
                cv2.line(image, corners[a], corners[b], colour, 5, cv2.LINE_AA, _SHIFT)
        for joint in np.flatnonzero(seen):
            cv2.circle(image, corners[joint], 3 << _SHIFT, (255, 255, 255), -1, cv2.LINE_AA, _SHIFT)
    return images


def _limbs(count: int) -> tuple[tuple[int, int], ...]:
    pairs = (pair.split("-") for pair in _LAYOUTS.get(count, "").split())
    return tuple((int(a), int(b)) for a, b in pairs)


def _placed(joints: npt.NDArray[np.floating[Any]], up: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """(T, J, 2) pixels, and (T, J) whether a joint was seen."""
    axis = min({"y": 1, "z": 2}[up[-1]], joints.shape[2] - 1)
    flat = np.stack([joints[..., 0], joints[..., axis] * (1 if up.startswith("-") else -1)], -1).astype(np.float64)
    is_seen = np.isfinite(flat).all(-1) & (joints[..., :3] != 0).any(-1)
    if not is_seen.any():
        return np.zeros_like(flat), is_seen
    low, high = flat[is_seen].min(0), flat[is_seen].max(0)
    size = np.array([WIDTH, HEIGHT])
    scale = float(np.min((1 - 2 * _MARGIN) * size / np.maximum(high - low, 1e-9)))
    return (flat - (low + high) / 2) * min(scale, 1e9) + size / 2, is_seen


def _colour(k: int, count: int) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(k / count, 0.8 if k % 2 else 1.0, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def _of_json(text: str) -> tuple[Float32, Int64 | None]:
    value = json.loads(text)
    frames, stamps = (value.get("joints"), value.get("stamp_ns")) if isinstance(value, dict) else (value, None)
    joints = np.array(frames, dtype=np.float32)  # null becomes nan
    return joints, None if stamps is None else np.array(stamps, dtype=np.int64)


def _of_csv(text: str, fps: float, numbers: int) -> tuple[Float32, Int64 | None]:
    lines = [line for line in csv.reader(io.StringIO(text, newline="")) if any(line)]
    header = [name.strip().lower() for name in lines[0]] if lines else []
    is_named = any(name and not _is_number(name) for name in header)
    values = np.array([[float(cell or "nan") for cell in line] for line in lines[is_named:]], dtype=np.float64)
    if values.ndim != 2 or not values.size:
        raise ValueError("it contains no line of numbers")
    times = values[:, 0] if is_named and header[0] in _TIMES else None
    values = values if times is None else values[:, 1:]
    if values.shape[1] % numbers:
        word = {2: "two", 3: "three", 4: "four"}[numbers]
        raise ValueError(f"{values.shape[1]} columns, where each joint has {word}")
    joints = values.reshape(len(values), -1, numbers).astype(np.float32)
    if times is None:
        return joints, None
    stamps = np.round((times - times[0]) * time_unit(times, fps) * 1e9).astype(np.int64)
    kept = increasing(stamps)
    return joints[kept], stamps[kept]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _checked(path: Path, clip: Clip) -> Clip:
    shape = clip.frames.shape
    if clip.frames.dtype != np.float32 or len(shape) != 3 or not 2 <= shape[2] <= 4 or shape[1] > _MOST_JOINTS:
        raise _damaged(path, f"it contains {clip.frames.dtype} {shape}, not (T, J, 3) numbers of J joints")
    return clip


def _damaged(path: Path, found: str) -> DataError:
    return DataError(
        f"{path} is not a skeleton: {found}",
        "T frames of J joints with three numbers each",
        "correct it, or leave it out",
    )
