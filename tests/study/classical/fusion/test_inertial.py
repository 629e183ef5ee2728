from __future__ import annotations

import numpy as np
import pytest

from kd_edge.errors import DataError
from kd_edge.study.classical.fusion.inertial import at_points, window_statistics


def test_statistics_by_hand() -> None:
    signal = np.array([[1, 0], [3, 0], [2, 4], [2, 8]], dtype=np.float32)
    first = [2, 0, 1, 0, 1, 0, 5**0.5, 0]  # mean, variance, standard deviation, root mean square of both axes
    second = [2, 6, 0, 4, 0, 2, 2, 40**0.5]
    found = window_statistics(signal, 2)
    assert found.dtype == np.float32
    assert found == pytest.approx([*first, *second])


def test_uneven_windows_take_every_value_once() -> None:
    signal = np.array([[3.0], [3.0], [3.0], [7.0], [9.0]])
    assert window_statistics(signal, 2)[[0, 4]] == pytest.approx([3, 8])


def test_large_offsets_do_not_cost_the_variance() -> None:
    """In float32 the squares of 1e4 would swallow a variance of 1/4."""
    signal = (1e4 + np.array([[0.0], [1.0]] * 8)).astype(np.float32)
    assert window_statistics(signal, 1)[:3] == pytest.approx([1e4 + 0.5, 0.25, 0.5])


def test_a_signal_that_is_too_short_is_refused() -> None:
    with pytest.raises(DataError, match=r"a signal of 3 values.*4 values or more"):
        window_statistics(np.zeros((3, 2)), 4)


def test_points_lie_evenly_over_the_clip() -> None:
    signal = np.array([[0.0, 1.0], [1.0, 1.0], [4.0, 1.0]])
    assert at_points(signal, 5) == pytest.approx(np.array([[0, 0.5, 1, 2.5, 4], [1] * 5]))
    assert at_points(signal[:1], 3) == pytest.approx(np.array([[0] * 3, [1] * 3]))
