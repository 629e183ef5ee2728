"""Intensity windows over time: limits of frames, smoothed, live and recorded."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kd_edge.window import PercentileWindow, WindowLimits, clip_limits, percentile_limits


def test_percentile_limits_are_order_statistics_without_the_ignored_value() -> None:
    image = np.concatenate([np.zeros(50), np.arange(1, 102)]).astype(np.uint16)[None, :]
    assert percentile_limits(image, PercentileWindow(low_percent=1, high_percent=99, ignore_value=0)) == (2.0, 100.0)
    assert percentile_limits(image, PercentileWindow(low_percent=0, high_percent=100)) == (0.0, 101.0)


def test_percentile_limits_of_an_empty_frame() -> None:
    limits = percentile_limits(np.zeros((4, 4), np.uint16), PercentileWindow(ignore_value=0))
    assert all(math.isnan(v) for v in limits)


def test_limits_follow_a_step_with_the_time_constant() -> None:
    limits = WindowLimits(PercentileWindow(time_constant_ms=100))
    assert limits.smooth((0.0, 100.0), 0) == (0.0, 100.0)
    low, high = limits.smooth((100.0, 200.0), 100_000_000)  # one time constant later
    assert low == pytest.approx(100 * (1 - math.exp(-1)))
    assert high == pytest.approx(100 + 100 * (1 - math.exp(-1)))


def test_a_frame_without_measurement_keeps_the_limits() -> None:
    limits = WindowLimits(PercentileWindow(time_constant_ms=0))
    limits.smooth((10.0, 60.0), 0)
    assert limits.smooth((math.nan, math.nan), 1) == (10.0, 60.0)
    limits.reset()
    assert limits.smooth((math.nan, math.nan), 2) == (0.0, 8.0)


def test_a_flat_frame_does_not_amplify_noise() -> None:
    limits = WindowLimits(PercentileWindow(minimum_span=16))
    assert limits.smooth((50.0, 51.0), 0) == (50.0, 66.0)


@given(
    st.sampled_from(["uint8", "uint16"]),
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.sampled_from([(1.0, 99.0), (0.0, 100.0), (25.0, 75.5)]),
    st.sampled_from([None, 0, 7]),
    st.sampled_from([2, 50, 65536]),
    st.integers(0, 2**32 - 1),
)
def test_percentile_limits_agree_with_sorting_everything(
    dtype: str, shape: tuple[int, int], percents: tuple[float, float], ignored: int | None, values: int, seed: int
) -> None:
    image = np.random.default_rng(seed).integers(0, min(values, np.iinfo(dtype).max + 1), shape).astype(dtype)
    before = image.copy()
    window = PercentileWindow(low_percent=percents[0], high_percent=percents[1], ignore_value=ignored)
    found = percentile_limits(image, window)
    np.testing.assert_array_equal(image, before)  # a small frame is its own grid
    step = math.ceil(math.sqrt(image.size / 4096))
    ordered = sorted(int(v) for v in image[::step, ::step].flat if v != ignored)
    if not ordered:
        assert all(math.isnan(v) for v in found)
    else:
        assert found == tuple(ordered[round(p / 100 * (len(ordered) - 1))] for p in percents)


def test_recorded_and_live_limits_agree() -> None:
    window = PercentileWindow(time_constant_ms=200)
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 4000, (6, 20, 30), dtype=np.uint16)
    stamps = np.cumsum(rng.integers(20, 60, 6)).astype(np.int64) * 1_000_000
    own = np.array([percentile_limits(f, window) for f in frames], np.float32)
    live = WindowLimits(window)
    expected = np.array([live.of(f, int(t)) for f, t in zip(frames, stamps, strict=True)], np.float32)
    np.testing.assert_array_equal(clip_limits(own, stamps, window), expected)
