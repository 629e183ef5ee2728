"""Kinect v2 skeletons as stored by NTU RGB+D and PKU-MMD: 25 joints of every body, and the choice of the main body.

Positions are metres in the camera's frame: x to the right of the picture, y up, z away from the camera. The files of
NTU RGB+D confirm this: a joint's column in the picture increases with x, its row decreases with y.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kd_edge.data.readers.kinect import FPS
from kd_edge.errors import DataError, reason
from kd_edge.reading import read_bytes
from kd_edge.types import Clip, Float32

SKELETON = "skeleton"
"""Name of the modality."""
JOINTS = 25
VERSION = 1
"""Version of reading; part of content keys."""

_MOST_BYTES = 256_000_000  # a long video's skeletons take about 10
_MOST_FRAMES = 100_000
_MOST_BODIES = 64  # a camera tracks six at a time, and a body that was lost briefly gets a new id
_BODY_NUMBERS, _JOINT_NUMBERS = 10, 12  # id, clipped edges, hands, lean, state; position, pixels, orientation, state
_PKU_BODIES = 2


def read_ntu(path: Path) -> Float32:
    """Read every body of a ``.skeleton`` file of NTU RGB+D.

    The file is a list of numbers: the number of frames; for each frame the number of bodies; for each body its id, nine
    more numbers and the number of joints; for each joint x, y, z, its column and row in the depth and in the colour
    picture, its orientation (w, x, y, z) and its tracking state (0 not tracked, 1 inferred, 2 seen).

    Returns:
        (B, T, 25, 3) float32; NaN where a body, or a joint of it, is not tracked.

    Raises:
        DataError: The file is missing, truncated or of another format; the message names it.
    """
    numbers = iter(_text(path).split())
    bodies: dict[str, npt.NDArray[np.float32]] = {}  # by the id that the camera assigned
    try:
        frames = int(next(numbers))
        if not 1 <= frames <= _MOST_FRAMES:
            raise ValueError(f"it has {frames} frames")
        for k in range(frames):
            for _ in range(int(next(numbers))):
                name, *_ = _take(numbers, _BODY_NUMBERS)
                if (count := int(next(numbers))) != JOINTS:
                    raise ValueError(f"a body has {count} joints")
                bodies.setdefault(name, np.full((frames, JOINTS, 3), np.nan, np.float32))[k] = _joints(numbers)
                if len(bodies) > _MOST_BODIES:
                    raise ValueError(f"it has more than {_MOST_BODIES} bodies")
    except StopIteration as error:
        raise _damaged(path, "it ends before its last frame") from error
    except ValueError as error:
        raise _damaged(path, reason(error)) from error
    return np.stack(list(bodies.values())) if bodies else np.empty((0, frames, JOINTS, 3), np.float32)


def read_pku(path: Path) -> Float32:
    """Read both bodies of a long video of PKU-MMD: a line of 2 x 25 x 3 numbers per frame.

    Returns:
        (2, T, 25, 3) float32; NaN where a body is missing, which is stored as zeros.

    Raises:
        DataError: The file is missing, truncated or of another format; the message names it.
    """
    lines = [line for line in _text(path).replace(",", " ").splitlines() if line.strip()]
    size = _PKU_BODIES * JOINTS * 3
    for number, line in enumerate(lines, 1):
        if (count := len(line.split())) != size:
            raise _damaged(path, f"line {number} has {count} numbers, not {size}")
    if not 1 <= len(lines) <= _MOST_FRAMES:
        raise _damaged(path, f"it has {len(lines)} frames")
    try:
        values = np.array(" ".join(lines).split(), dtype=np.float32)
    except ValueError as error:
        raise _damaged(path, reason(error)) from error
    bodies = values.reshape(len(lines), _PKU_BODIES, JOINTS, 3).swapaxes(0, 1).copy()  # (2, T, 25, 3)
    bodies[(bodies == 0).all(axis=(2, 3))] = np.nan
    return bodies


def main_body(bodies: Float32, path: Path) -> Clip:
    """Return the body that moves most, as in published readers; others are bystanders or furniture.

    The movement of a body is the sum of squared distances of its joints from their means over time, so that of two
    bodies that move alike the one seen for longer is returned.

    Args:
        bodies: (B, T, 25, 3); NaN where not seen.
        path: Source file, for the error.

    Returns:
        (T, 25, 3) float32 at 30 frames per second; NaN where not seen.

    Raises:
        DataError: No body is seen.
    """
    seen = np.isfinite(bodies)
    if not seen.any():
        raise DataError(f"{path} contains no body", "a body", "leave it out; training continues without it")
    values = np.where(seen, bodies, 0).astype(np.float64)
    means = values.sum(axis=1, keepdims=True) / np.maximum(seen.sum(axis=1, keepdims=True), 1)
    movement = (np.where(seen, values - means, 0) ** 2).sum(axis=(1, 2, 3))  # (B,)
    movement[~seen.any(axis=(1, 2, 3))] = -1  # an unseen body ranks below one that stands still
    frames = bodies[int(movement.argmax())]
    return Clip(frames, np.round(np.arange(len(frames)) * 1e9 / FPS).astype(np.int64))


def _joints(numbers: Iterator[str]) -> Float32:
    """(25, 3) of the next body; its other numbers, such as infinite pixels, are ignored."""
    rows = [_take(numbers, _JOINT_NUMBERS) for _ in range(JOINTS)]
    positions = np.array([row[:3] for row in rows], dtype=np.float32)
    is_tracked = np.array([row[-1:] for row in rows], dtype=np.float32) > 0
    joints: Float32 = np.where(is_tracked, positions, np.float32(np.nan))
    return joints


def _take(numbers: Iterator[str], count: int) -> list[str]:
    return [next(numbers) for _ in range(count)]


def _text(path: Path) -> str:
    try:
        return read_bytes(path, _MOST_BYTES).decode("ascii", "replace")
    except FileNotFoundError as error:
        raise DataError(f"no file {path}", "the skeletons", "complete the data set (kd-edge data check)") from error
    except OSError as error:
        raise _damaged(path, error.strerror or reason(error)) from error


def _damaged(path: Path, found: str) -> DataError:
    return DataError(
        f"{path} is damaged: {found}",
        f"frames of bodies of {JOINTS} joints each",
        "fetch this file again; training continues without it",
    )
