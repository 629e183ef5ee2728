"""What comparators look at in a depth clip: its motion maps as one vector, or as images that tell early from late."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from kd_edge.study.classical.fusion.config import MotionConfig, View
from kd_edge.study.classical.fusion.depth_motion import MotionMaps, box, motion_maps, resized, trimmed
from kd_edge.types import Float32


def depth_vector(frames: npt.NDArray[Any], config: MotionConfig, normalisation: str) -> Float32:
    """The views' motion maps at their fixed sizes, each normalised, one after the other.

    Args:
        frames: (T, H, W) in mm, 0 = no measurement.
        config: Views and sizes.
        normalisation: ``max`` divides a map by its largest value; ``root`` takes the roots and scales them to length 1.

    Returns:
        (sum of the views' h * w,) float32, zeros for a view in which nothing moved.

    Raises:
        DataError: Fewer than two frames, or no depth images.
    """
    maps = _maps(trimmed(frames, config.trim_frames), config)
    return np.concatenate([_normalised(_at_size(maps, view, config).ravel(), normalisation) for view in config.views])


def motion_images(frames: npt.NDArray[Any], config: MotionConfig) -> Float32:
    """Motion maps that weigh the clip's end more, then its start.

    Args:
        frames: (T, H, W) in mm, 0 = no measurement.
        config: Views and sizes.

    Returns:
        (2 * views, S, S) float32 in [0, 1] with S = ``config.height``: roots of the views' shares of their largest
        value, by weights that rise from 0 to 1 over the clip, then by falling ones. A view's box is that of both.

    Raises:
        DataError: Fewer than two frames, or no depth images.
    """
    chosen = trimmed(frames, config.trim_frames)
    whole = _maps(chosen, config)
    late = _maps(chosen, config, np.linspace(0, 1, len(chosen) - 1))
    images = [_shares(getattr(whole, view), getattr(late, view), config) for view in config.views]
    return np.concatenate([np.stack(parts) for parts in zip(*images, strict=True)])


def unit_length(vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Rows (..., D) at Euclidean length 1; zeros stay."""
    values = np.asarray(vectors, dtype=np.float64)
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-12))


def _maps(frames: npt.NDArray[Any], config: MotionConfig, weights: npt.NDArray[np.float64] | None = None) -> MotionMaps:
    return motion_maps(
        frames,
        bin_mm=config.bin_mm,
        range_mm=config.range_mm,
        projection=config.projection,
        silhouette=config.silhouette,
        weights=weights,
    )


def _at_size(maps: MotionMaps, view: View, config: MotionConfig) -> Float32:
    height, width = {
        "front": (config.height, config.width),
        "side": (config.height, config.depth),
        "top": (config.depth, config.width),
    }[view]
    motion: Float32 = getattr(maps, view)
    return resized(motion[box(motion, config.crop_share)], height, width)


def _normalised(values: Float32, normalisation: str) -> Float32:
    if normalisation == "root":
        return unit_length(np.sqrt(values)).astype(np.float32)
    return np.asarray(values / max(float(values.max()), 1e-12), dtype=np.float32)


def _shares(whole: Float32, late: Float32, config: MotionConfig) -> tuple[Float32, Float32]:
    """One view late and early: (S, S) each."""
    inside, largest = box(whole, config.crop_share), np.float32(max(float(whole.max()), 1e-12))
    early = np.maximum(whole - late, 0)
    first, second = (resized(part[inside] / largest, config.height, config.height) for part in (late, early))
    return np.sqrt(first), np.sqrt(second)
