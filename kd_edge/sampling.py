"""Choose the frames of the segments: by index for recorded clips, by time stamp for streams."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from kd_edge.errors import KdEdgeError
from kd_edge.types import Int64

Mode = Literal["random", "centre"]


def segment_indices(frames: int, segments: int, *, mode: Mode, rng: np.random.Generator | None = None) -> Int64:
    """Choose one frame from each of ``segments`` equal parts of a clip (TSN sampling).

    ``centre`` takes ``floor(tick / 2 + tick * k)`` with ``tick = frames / segments`` (TSN's test rule, without the
    guard that returns frame 0 for short clips: a short clip repeats frames evenly instead). ``random`` takes a uniform
    frame inside each part of ``frames // segments`` frames; a clip with fewer frames than segments uses ``centre``.

    Args:
        frames: Length of the clip, at least 1.
        segments: Number of segments T, at least 1.
        mode: ``"random"`` for training, ``"centre"`` for evaluation.
        rng: Required for ``"random"``.

    Returns:
        (segments,) int64, 0-based, non-decreasing.

    Raises:
        KdEdgeError: ``frames`` or ``segments`` is less than 1, or ``rng`` is missing for ``"random"``.

    Source: Wang et al., "Temporal Segment Networks", ECCV 2016.
    """
    if frames < 1 or segments < 1:
        raise KdEdgeError(
            f"a clip of {frames} frames for {segments} segments", "at least one of each", "check the recording"
        )
    k = np.arange(segments, dtype=np.int64)
    part = frames // segments
    if mode == "centre" or part == 0:
        return ((2 * k + 1) * frames) // (2 * segments)
    if rng is None:
        raise KdEdgeError("random sampling without a generator", "rng=np.random.Generator", "pass rng")
    return k * part + rng.integers(0, part, size=segments)


def nearest(stamps_ns: Int64, targets_ns: Int64) -> Int64:
    """Return the index of the stamp nearest to each target; the earlier one on a tie.

    Args:
        stamps_ns: (N,) int64, strictly increasing, N >= 1.
        targets_ns: Any shape, int64.

    Returns:
        int64 indices into ``stamps_ns`` with the shape of ``targets_ns``.
    """
    after = np.searchsorted(stamps_ns, targets_ns)
    right = np.minimum(after, len(stamps_ns) - 1)
    left = np.maximum(after - 1, 0)
    earlier = targets_ns - stamps_ns[left] <= stamps_ns[right] - targets_ns
    chosen: Int64 = np.where(earlier, left, right).astype(np.int64)
    return chosen


def nearest_one(stamps_ns: Sequence[int], target_ns: int) -> int:
    """``nearest`` for a single target in plain integers, which is faster for the few targets per frame of a stream.

    Args:
        stamps_ns: Strictly increasing, at least one.
        target_ns: The target time.
    """
    after = bisect_left(stamps_ns, target_ns)
    left, right = max(after - 1, 0), min(after, len(stamps_ns) - 1)
    return left if target_ns - stamps_ns[left] <= stamps_ns[right] - target_ns else right


def gather(stamps_ns: Int64, now_ns: int, segments: int, spacing_ns: int) -> Int64 | None:
    """Choose the stored frame nearest to each segment's time ``now - k * spacing``.

    Args:
        stamps_ns: (N,) int64, strictly increasing.
        now_ns: Time of the newest segment.
        segments: Number of segments T.
        spacing_ns: Time between segments, ``clip_seconds / T``.

    Returns:
        (segments,) int64 indices into ``stamps_ns``, oldest first; None (warming) if a segment has no frame within half
        a spacing.
    """
    if len(stamps_ns) == 0:
        return None
    targets = now_ns - np.arange(segments - 1, -1, -1, dtype=np.int64) * spacing_ns
    chosen = nearest(stamps_ns, targets)
    if np.any(np.abs(stamps_ns[chosen] - targets) * 2 > spacing_ns):
        return None
    return chosen


def motion_indices(stamps_ns: Int64, at: npt.NDArray[np.int64], offsets_ms: tuple[int, ...]) -> Int64:
    """Choose the frames of the motion stack: for each chosen frame, those nearest to ``t - offset``.

    Before the start of the clip its first frame is used (no motion yet); a live stream warms up instead.

    Args:
        stamps_ns: (N,) int64, strictly increasing.
        at: (S,) int64, the chosen frames.
        offsets_ms: C offsets into the past, milliseconds; the first is 0 in every recipe.

    Returns:
        (S, C) int64 indices into ``stamps_ns``.
    """
    back_ns = np.asarray(offsets_ms, dtype=np.int64) * 1_000_000
    return nearest(stamps_ns, stamps_ns[at][:, None] - back_ns[None, :])  # (S, C)
