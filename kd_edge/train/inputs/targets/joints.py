"""Where the joints of a skeleton are, and how they move, at the moments of a clip's frames."""

from __future__ import annotations

from collections import Counter

import numpy as np

from kd_edge.data import Sample
from kd_edge.errors import DataError
from kd_edge.train.inputs.targets.base import Found, Group, StudentClips, at_moments, nowhere
from kd_edge.train.recipe.student_stages import JointTargets
from kd_edge.types import Clip, Float32, Int64

LEAST_COVER = 0.5
"""A body must be seen in this share of its clip's frames, and this share of its joints in a frame that counts."""


def joints_of(target: JointTargets, clips: StudentClips) -> Found:
    """Positions and velocities of every clip.

    Raises:
        DataError: Not one clip has them.
    """
    found: dict[str, Float32] = {}
    counts: dict[str, int] = {}
    missing: dict[str, str] = {}
    first: DataError | None = None
    for sample in clips.samples:
        try:
            clip = clips.dataset.open(sample, target.modality)
            counts[sample.id] = _joint_count(clip, target.modality, sample)
            found[sample.id] = joint_targets(clip, clips.stamps_ns[sample.id], target)
        except DataError as error:
            missing[sample.id] = error.found
            first = first or error
    if not found:
        raise nowhere(target.modality, missing, first)
    usual = Counter(counts[name] for name in found).most_common(1)[0][0]  # a single odd recording decides nothing
    odd = [name for name in found if counts[name] != usual]
    missing |= {name: f"{counts[name]} joints where most have {usual}" for name in odd}
    values = {name: each for name, each in found.items() if counts[name] == usual}
    size = next(iter(values.values())).shape[1]
    return Found(tuple(_groups(target, size)), values, {target.modality: missing})


def joint_targets(clip: Clip, stamps_ns: Int64, target: JointTargets) -> Float32:
    """Positions and their changes at the moments of a clip's frames: (N, 3 J) or (N, 6 J).

    A joint that was not seen is NaN, and so are all of them where hardly any was seen and where the skeleton has not
    begun or has ended. What lies before the clip counts as its first frame: nothing has moved there yet.

    Args:
        clip: (T, J, 3) positions, x right, y up, z away from the camera; not finite where not seen.
        stamps_ns: (N,) of the student's frames.
        target: How.

    Raises:
        DataError: The skeleton covers less than half of the clip, or the clip less than half of it.
    """
    when = clip.stamps_ns + round(target.lag_ms * 1e6)
    joints = _about_their_median(clip.frames.astype(np.float64)).reshape(len(when), -1)  # (T, 3 J)
    _check_length(when, stamps_ns)
    positions = at_moments(joints, when, stamps_ns)
    covered = int((~np.isnan(positions)).any(axis=1).sum())
    if covered < LEAST_COVER * len(stamps_ns):
        raise DataError(
            f"a skeleton of {len(when)} frames that covers less than half of its clip ({covered} of {len(stamps_ns)})",
            "one that is as long as the clip, with a body in it",
            "correct the recording, or lag_ms",
        )
    if target.velocity_ms is None:
        return positions.astype(np.float32)
    before = np.maximum(stamps_ns - round(target.velocity_ms * 1e6), stamps_ns[0])
    earlier = at_moments(joints, when, before)
    return np.concatenate([positions, positions - earlier], axis=1).astype(np.float32)


def _check_length(when_ns: Int64, stamps_ns: Int64) -> None:
    """Refuse a skeleton far longer than its clip: at a wrong frame rate each pose would meet another picture."""
    seconds, clip_seconds = ((int(each[-1]) - int(each[0])) / 1e9 for each in (when_ns, stamps_ns))
    if len(stamps_ns) > 1 and seconds * LEAST_COVER > clip_seconds:
        raise DataError(
            f"a skeleton of {len(when_ns)} frames over {seconds:.1f} s with a clip of {clip_seconds:.1f} s",
            "one that is as long as its clip",
            "check the frame rate of both, or cut the skeleton to its clip",
        )


def _about_their_median(joints: np.ndarray) -> np.ndarray:
    """(T, J, 3) about the median of the joints that are seen, by the clip's median body size; NaN where not seen."""
    is_seen = np.isfinite(joints).all(axis=2)
    is_seen &= (is_seen.mean(axis=1) >= LEAST_COVER)[:, None]
    placed = np.full_like(joints, np.nan)
    sizes = []
    for k in np.flatnonzero(is_seen.any(axis=1)):
        there = is_seen[k]
        placed[k, there] = joints[k, there] - np.median(joints[k, there], axis=0)
        sizes.append(np.sqrt((placed[k, there] ** 2).sum(axis=1).mean()))
    return placed / max(float(np.median(sizes)), 1e-6) if sizes else placed


def _joint_count(clip: Clip, modality: str, sample: Sample) -> int:
    if clip.frames.ndim != 3 or clip.frames.shape[2] != 3 or clip.frames.dtype.kind != "f":
        raise DataError(
            f"{modality} of {sample.id} is {clip.frames.dtype} {clip.frames.shape}",
            "positions of joints (T, J, 3)",
            "name a modality of skeletons in the stage's targets",
        )
    return int(clip.frames.shape[1])


def _groups(target: JointTargets, size: int) -> list[Group]:
    if target.velocity_ms is None:
        return [Group(f"{target.modality} positions", 0, size, True, target.weight)]
    half = size // 2
    return [
        Group(f"{target.modality} positions", 0, half, True, target.weight),
        Group(f"{target.modality} velocities", half, half, True, target.weight),
    ]
