"""Where the joints of a skeleton are, and how they move, at the moments of a clip's frames."""

from __future__ import annotations

import numpy as np

from kd_edge.data import Sample
from kd_edge.errors import DataError
from kd_edge.train.inputs.targets.base import Found, Group, StudentClips, nowhere
from kd_edge.train.recipe.student_stages import JointTargets
from kd_edge.types import Clip, Float32, Int64

LEAST_COVER = 0.5
"""A skeleton must last for this share of its clip."""


def joints_of(target: JointTargets, clips: StudentClips) -> Found:
    """Positions and velocities of every clip.

    Raises:
        DataError: Not one clip has them.
    """
    found: dict[str, Float32] = {}
    missing: dict[str, str] = {}
    joints = None
    for sample in clips.samples:
        try:
            clip = clips.dataset.open(sample, target.modality)
            joints = joints or _joint_count(clip, target.modality, sample)
            found[sample.id] = joint_targets(clip, clips.stamps_ns[sample.id], target)
            if clip.frames.shape[1] != joints:
                raise DataError(f"{sample.id} has {clip.frames.shape[1]} joints", f"{joints}", "correct the recording")
        except DataError as error:
            found.pop(sample.id, None)
            missing[sample.id] = error.found
    if not found:
        raise nowhere(target.modality, missing)
    size = next(iter(found.values())).shape[1]
    return Found(tuple(_groups(target, size)), found, {target.modality: missing})


def joint_targets(clip: Clip, stamps_ns: Int64, target: JointTargets) -> Float32:
    """Positions and their changes at the moments of a clip's frames: (N, 3 J) or (N, 6 J).

    Args:
        clip: (T, J, 3) positions, x right, y up, z away from the camera.
        stamps_ns: (N,) of the student's frames.
        target: How.

    Raises:
        DataError: The skeleton covers less than half of the clip, or is not made of finite numbers.
    """
    joints, when = clip.frames.astype(np.float64), clip.stamps_ns + round(target.lag_ms * 1e6)
    if not np.isfinite(joints).all():
        raise DataError("a skeleton with numbers that are not finite", "positions in metres", "correct the recording")
    span = max(1, int(stamps_ns[-1] - stamps_ns[0]))
    covered = min(when[-1], stamps_ns[-1]) - max(when[0], stamps_ns[0])
    if len(stamps_ns) > 1 and covered < LEAST_COVER * span:
        raise DataError(
            f"a skeleton of {len(when)} frames that covers less than half of its clip",
            "one that is as long as the clip",
            "correct the recording, or lag_ms",
        )
    joints = joints - np.median(joints, axis=1, keepdims=True)
    size = float(np.median(np.sqrt((joints**2).sum(axis=2).mean(axis=1))))
    flat = (joints / max(size, 1e-6)).reshape(len(joints), -1)  # (T, 3 J)
    positions = _at(flat, when, stamps_ns)
    if target.velocity_ms is None:
        return positions.astype(np.float32)
    earlier = _at(flat, when, stamps_ns - round(target.velocity_ms * 1e6))
    return np.concatenate([positions, positions - earlier], axis=1).astype(np.float32)


def _joint_count(clip: Clip, modality: str, sample: Sample) -> int:
    if clip.frames.ndim != 3 or clip.frames.shape[2] != 3 or clip.frames.dtype.kind != "f":
        raise DataError(
            f"{modality} of {sample.id} is {clip.frames.dtype} {clip.frames.shape}",
            "positions of joints (T, J, 3)",
            "name a modality of skeletons in the stage's targets",
        )
    return int(clip.frames.shape[1])


def _at(series: np.ndarray, when_ns: Int64, moments_ns: Int64) -> np.ndarray:
    """A series (T, M) at other moments, between its frames by straight lines; its ends are held."""
    place = np.interp(moments_ns, when_ns, np.arange(len(when_ns)))
    before = np.minimum(place.astype(np.int64), max(0, len(when_ns) - 2))
    share = (place - before)[:, None]
    after = np.minimum(before + 1, len(when_ns) - 1)
    result: np.ndarray = series[before] * (1 - share) + series[after] * share
    return result


def _groups(target: JointTargets, size: int) -> list[Group]:
    if target.velocity_ms is None:
        return [Group(f"{target.modality} positions", 0, size, True, target.weight)]
    half = size // 2
    return [
        Group(f"{target.modality} positions", 0, half, True, target.weight),
        Group(f"{target.modality} velocities", half, half, True, target.weight),
    ]
