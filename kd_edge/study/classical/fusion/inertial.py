"""Statistics of a wearable sensor's signals over equal parts of the clip.

Source: Chen, Jafari, Kehtarnavaz, "Improving Human Action Recognition Using Fusion of Depth Camera and Inertial
Sensors", IEEE Trans. Human-Machine Systems 2015.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kd_edge.errors import DataError
from kd_edge.types import Float32


def window_statistics(signal: npt.NDArray[np.floating], windows: int) -> Float32:
    """Mean, variance, standard deviation and root mean square of each axis in each of M equal windows.

    Args:
        signal: (T, C) with T >= M; windows differ in length by one value at most, the longer ones first.
        windows: Number M of windows.

    Returns:
        (M * 4 * C,) float32: window by window, statistic by statistic, axis by axis. Moments divide by the number of
        values.

    Raises:
        DataError: Shorter than M values.
    """
    if len(signal) < windows:
        raise DataError(f"a signal of {len(signal)} values", f"{windows} values or more", "set inertial.windows lower")
    parts = np.array_split(np.asarray(signal, dtype=np.float64), windows)
    statistics = [
        np.stack([part.mean(0), part.var(0), part.std(0), np.sqrt((part * part).mean(0))])  # (4, C)
        for part in parts
    ]
    return np.stack(statistics).astype(np.float32).ravel()  # (M, 4, C) -> (M * 4 * C,)


def at_points(signal: npt.NDArray[np.floating], points: int) -> Float32:
    """A signal (T, C) as (C, points) float32, linear between values spread evenly over the clip."""
    values = np.asarray(signal, dtype=np.float64)
    at, known = np.linspace(0, 1, points), np.linspace(0, 1, len(values))
    return np.stack([np.interp(at, known, axis) for axis in values.T]).astype(np.float32)
