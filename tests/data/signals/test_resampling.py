"""Angles that come round."""

from __future__ import annotations

import numpy as np
import pytest

from kd_edge.data.dataset import SignalFormat
from kd_edge.data.signals.resampling import Signal, resample

S = 1_000_000_000


def signal(*axes: list[float]) -> Signal:
    return Signal(np.array(axes, np.float32).T, np.arange(len(axes[0]), dtype=np.int64) * S)


def test_angles_take_the_short_way() -> None:
    """By hand: 350, 355, 365, 370 from second to second, whose means over each are 352.5, 360 and 367.5."""
    turning = signal([350, 355, 5, 10], [10, 5, 355, 350], [90, 100, 110, 120])
    means = resample(turning, 0, 3 * S, 3, period=360.0)
    np.testing.assert_allclose(means, [[352.5, 0, 7.5], [7.5, 0, 352.5], [95, 105, 115]], atol=1e-4)
    assert means.dtype == np.float32
    through = resample(turning, 0, 3 * S, 3)
    np.testing.assert_allclose(through[0], [352.5, 180, 7.5], atol=1e-4)  # as other values: half the circle away


def test_signed_angles_stay_signed() -> None:
    """By hand: 170, 178, 186 = -174, 194 = -166; a signal between -20 and 20 never leaves it."""
    turning = signal([170, 178, -174, -166], [-20, -10, 10, 20], [0, 0, 0, 0])
    means = resample(turning, 0, 3 * S, 3, period=360.0)
    np.testing.assert_allclose(means, [[174, -178, -170], [-15, 0, 15], [0, 0, 0]], atol=1e-4)


def test_an_instant_between_two_angles() -> None:
    means = resample(signal([350, 20], [0, 0], [0, 0]), S // 2, S // 2, 2, period=360.0)
    np.testing.assert_allclose(means[0], [5, 5], atol=1e-4)


def test_many_turns_stay_on_the_circle() -> None:
    values = [float(30 * k % 360) for k in range(40)]
    means = resample(signal(values, values, values), 0, 39 * S, 39, period=360.0)
    np.testing.assert_allclose(means[0], [(30 * k + 15) % 360 for k in range(39)], atol=1e-3)


@pytest.mark.parametrize(
    ("unit", "value_range", "expected"),
    [
        ("degree", (0.0, 360.0), 360.0),
        ("degree", (-180.0, 180.0), 360.0),
        ("degree", (-180.0, 360.0), 360.0),  # MMAct's azimuth, pitch and roll together
        ("degree", (-45.0, 45.0), None),
        ("degree/s", (-1000.0, 1000.0), None),
        ("g", (-8.0, 8.0), None),
    ],
)
def test_which_values_come_round(unit: str, value_range: tuple[float, float], expected: float | None) -> None:
    assert SignalFormat(unit, value_range, 50.0).period == expected
